"""Head for masks: a decoder of the backbone's feature maps, and a probability of each class in each pixel.

Shapes: B batch, D channels, K classes, (H, W) pixels.
"""

import math
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from swinft.model.decoders import Decoder, DecoderName
from swinft.model.heads.base import Head, check_equal_shapes, checked_fraction, made_loss
from swinft.model.heads.loss import Loss
from swinft.model.heads.mask_losses import MASK_LOSSES, MaskLossName, SumLoss
from swinft.model.metrics.pixel_counts import THRESHOLD


class SegmentationHead(Head):
    """Predicts a mask of each of K classes; a pixel may be in several, or in none.

    Args:
        in_features: Not used: `connect` gives it the channels of the maps.
        num_outputs: K, given by the target.
        decoder: `unet`, `fpn`, `upernet`, `unetplusplus`, `manet`, `linknet`, `pspnet`, `pan` or `segformer`, by
            segmentation-models-pytorch. A backbone whose first map has stride 4, as Swin's, is not for all of them.
        decoder_args: Arguments of the decoder's class to replace: `{decoder_channels: [256, 128, 64, 32, 16]}`.
        loss: `bce`, `dice`, `focal` or `lovasz`; the weights of several, `{bce: 1, dice: 1}`; or a class with
            arguments, such as `swinft.DiceLoss` or a custom one, of logits and masks (B, K, H, W).
        dropout: Probability of dropping a channel of the decoder's map, in [0, 1).
    """

    kind = "segmentation"
    default_metrics: ClassVar[list[str]] = ["dice"]
    reads: ClassVar[Literal["vector", "maps"]] = "maps"

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        decoder: DecoderName = "unet",
        decoder_args: dict[str, Any] | None = None,
        loss: MaskLossName | dict[str, float] | Loss = "bce",
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_features, num_outputs)
        self._decoder = decoder, decoder_args
        self.own_loss = SumLoss(loss) if isinstance(loss, dict) else made_loss(self, loss, MASK_LOSSES)
        self.dropout = nn.Dropout2d(checked_fraction("dropout", dropout))

    def connect(self, channels: list[int]) -> None:
        """Builds decoder and last layer for maps of so many channels: of the images, and of strides 2, 4, …."""
        name, arguments = self._decoder
        self.decoder = Decoder(name, channels, arguments)
        self.last = nn.Conv2d(self.decoder.num_features, self.num_outputs, 3, padding=1)
        nn.init.trunc_normal_(self.last.weight, std=0.02)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, features: Any) -> Tensor:
        """Images (B, C, H, W) and their maps to logits (B, K, H, W)."""
        logits: Tensor = self.last(self.dropout(self.decoder(features)))
        size = features[0].shape[-2:]
        if logits.shape[-2:] != size:
            logits = functional.interpolate(logits, size, mode="bilinear", align_corners=False)
        return logits

    def encode(self, target: Tensor) -> Tensor:
        """Masks (B, K, H, W) as float."""
        return target.float()

    def example_targets(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """Masks for a trial step, from the coverage of each row (B, K): the upper part of the image."""
        rows = torch.linspace(0, 1, size[0], device=targets.device)[:, None].expand(size)
        return (rows < targets.clamp(0.1, 0.9)[..., None, None]).to(torch.uint8)

    def loss(self, logits: Tensor, encoded: Tensor) -> Tensor:
        """Loss of every image (B,)."""
        check_equal_shapes(self, logits, encoded)
        assert self.own_loss is not None
        losses: Tensor = self.own_loss(logits.float(), encoded.float())
        return losses

    def decode(self, logits: Tensor) -> Tensor:
        """Logits to probabilities, (B, K, H, W)."""
        return logits.float().sigmoid()

    def evaluated(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels of each class that are predicted and true, and predicted, float64 (B, K, 2); those true (B, K)."""
        found, wanted = (self.decode(logits) >= THRESHOLD).flatten(2), (target > 0).flatten(2)
        counts = torch.stack([(found & wanted).sum(2), found.sum(2)], dim=2).double()
        is_nan = logits.isnan().flatten(1).any(1)
        return counts.masked_fill(is_nan[:, None, None], math.nan), wanted.sum(2).double()
