"""Decoders of segmentation: feature maps of a backbone to one map, by segmentation-models-pytorch.

Shapes: B batch, D channels, (H, W) pixels.
"""

import importlib
import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from swinft.errors import InputError, suggest

DecoderName = Literal["unet", "unetplusplus", "manet", "linknet", "fpn", "pspnet", "pan", "upernet", "segformer"]
NAMES = get_args(DecoderName)
WIDTHS = [256, 128, 64, 32, 16]  # of U-Net's blocks, as in the library
# Module, class and the defaults that the library's whole networks give it; `depth` and `channels` are filled in.
CLASSES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "unet": ("unet", "UnetDecoder", {"n_blocks": "depth", "decoder_channels": "widths"}),
    "unetplusplus": ("unetplusplus", "UnetPlusPlusDecoder", {"n_blocks": "depth", "decoder_channels": "widths"}),
    "manet": ("manet", "MAnetDecoder", {"n_blocks": "depth", "decoder_channels": "widths"}),
    "linknet": ("linknet", "LinknetDecoder", {"n_blocks": "depth"}),
    "fpn": ("fpn", "FPNDecoder", {"encoder_depth": "depth"}),
    "pspnet": ("pspnet", "PSPDecoder", {}),
    "pan": ("pan", "PANDecoder", {"encoder_depth": "depth", "decoder_channels": 32}),
    "upernet": ("upernet", "UPerNetDecoder", {"encoder_depth": "depth"}),
    "segformer": ("segformer", "SegformerDecoder", {"encoder_depth": "depth"}),
}
EXTRA = "segmentation needs the package segmentation-models-pytorch: pip install 'swinft[segmentation]'"


class Decoder(nn.Module):
    """A decoder of segmentation-models-pytorch.

    Args:
        name: Its name.
        channels: Of the images, and of the maps of strides 2, 4, …; 0 for one that the backbone lacks.
        arguments: Arguments of its class to replace, such as `decoder_channels`.

    Raises:
        InputError: The package is not installed, an argument is wrong, or the decoder does not take such maps.
    """

    def __init__(self, name: DecoderName, channels: Sequence[int], arguments: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        if name not in NAMES:
            raise InputError(f"SegmentationHead: decoder is {name!r}.{suggest(str(name), NAMES)}")
        depth = len(channels) - 1
        module, class_name, defaults = CLASSES[name]
        try:
            found = importlib.import_module(f"segmentation_models_pytorch.decoders.{module}.decoder")
        except ImportError as error:
            raise InputError(EXTRA) from error
        decoder: Any = getattr(found, class_name)
        values = {"depth": depth, "widths": WIDTHS[-depth:] if depth <= len(WIDTHS) else WIDTHS}
        given = {key: values.get(value, value) if isinstance(value, str) else value for key, value in defaults.items()}
        own = [each for each in inspect.signature(decoder).parameters if each not in ("encoder_channels", "n_blocks")]
        if unknown := [each for each in arguments or {} if each not in own or given.get(each) == depth]:
            raise InputError(
                f"SegmentationHead: decoder_args has '{unknown[0]}', and {name} has "
                f"{', '.join(each for each in own if each != 'encoder_depth')}.{suggest(unknown[0], own)}"
            )
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Initializing zero-element tensors")  # of maps without channels
                self.decoder = decoder(encoder_channels=list(channels), **{**given, **(arguments or {})})
            self.num_features = self._tried(channels)
        except InputError:
            raise
        except Exception as error:  # the library raises anything for wrong arguments, and for maps without channels
            lacks = " (the backbone has no map of stride 2, which some decoders need)" if 0 in channels else ""
            raise InputError(
                f"SegmentationHead: decoder '{name}' with {dict(arguments or {})} cannot be built for maps of "
                f"{list(channels[1:])} channels{lacks}: {error}. Choose another decoder, or remove decoder_args."
            ) from error

    @torch.no_grad()
    def _tried(self, channels: Sequence[int]) -> int:
        """Channels of its map, by a forward pass of zeros."""
        side = 8 * 2 ** (len(channels) - 1)  # some pool the coarsest map three times
        maps = [torch.zeros(1, count, side // 2**k, side // 2**k) for k, count in enumerate(channels)]
        was_training = self.decoder.training
        found: Tensor = self.decoder.eval()(maps)
        self.decoder.train(was_training)
        return found.shape[1]

    def forward(self, maps: list[Tensor]) -> Tensor:
        """The images and their maps to one map (B, D, …), of a stride of its own."""
        found: Tensor = self.decoder(maps)
        return found
