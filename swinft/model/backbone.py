"""An image becomes features: any timm model, at any size it can do, through timm's own contract.

Shapes: B batch, H and W pixels, D features. Nothing here looks at a model's name.
"""

import inspect
import math
import pickle
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import constants, try_to_load_from_cache
from safetensors import SafetensorError
from timm.models import get_pretrained_cfg, load_state_dict
from torch import Tensor, nn

from swinft.errors import InputError, suggest
from swinft.model.prefix import without_prefix

# A window this many times larger or smaller than the one the model was made for sees another kind of context: better an
# error with good sizes than a quiet loss of accuracy.
MAX_WINDOW_RATIO = 2.0
REACH_SECONDS = 5.0
# What `timm.create_model` takes besides the arguments of a model: files of weights, folders, other outputs.
TIMMS_OWN = {
    "cache_dir",
    "checkpoint_path",
    "exportable",
    "feature_cls",
    "features_only",
    "no_jit",
    "num_classes",
    "out_indices",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "scriptable",
}


class Backbone(nn.Module):
    """A timm model without its classifier, with its own normalisation.

    Args:
        model: A timm model made with `num_classes=0`.
        mean: Channel means in 0–1, the ones its weights were trained with.
        std: Channel standard deviations in 0–1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Any, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model: Any = model
        # Not every family pools to `num_features`: some widen behind the pooling, and say so in `head_hidden_size`.
        self.num_features = int(getattr(model, "head_hidden_size", None) or model.num_features)
        # Derived from the config, not learnt: not part of the weights.
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1) * 255, persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1) * 255, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        """Pixels (B, 3, H, W), uint8 or float in 0–255, to features (B, D)."""
        features: Tensor = self.model((image.to(self.mean.dtype) - self.mean) / self.std)
        return features


def create_backbone(
    name: str,
    image_size: int | tuple[int, int] = 224,
    pretrained: bool | str = True,
    drop_path_rate: float | None = None,
    grad_checkpointing: bool = False,
    backbone_args: dict[str, Any] | None = None,
) -> Backbone:
    """Builds a backbone at an image size.

    Args:
        name: Any model of `timm.list_models()`, with or without a pretrained tag.
        image_size: Side, or height and width, in pixels.
        pretrained: True for the hub's weights, a .safetensors or .pth file, or False for none.
        drop_path_rate: Probability of skipping a residual branch in the deepest block, in [0, 1); None for the model's.
        grad_checkpointing: Recompute activations in the backward pass: less memory, about a third slower.
        backbone_args: More arguments of the timm model (`embed_dim`, `depths`, `window_size`).

    Raises:
        InputError: The name is unknown, an argument is not the model's, the weights do not fit or cannot be had, or the
            model cannot work at this size.
    """
    sides = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    if len(sides) != 2:
        raise InputError(f"image_size is {image_size}; give one side, or height and width, in pixels.")
    height, width = sides
    arguments = dict(backbone_args or {})
    window = arguments.get("window_size")
    if drop_path_rate is not None:
        arguments["drop_path_rate"] = drop_path_rate
    model = _create(name, pretrained, arguments)
    _resize(model, name, (height, width), window)
    if grad_checkpointing:
        try:
            model.set_grad_checkpointing(True)
        except (AssertionError, AttributeError) as error:
            raise InputError(
                f"'{name}' cannot recompute activations: set model.grad_checkpointing to false."
            ) from error
    return Backbone(model, model.pretrained_cfg["mean"], model.pretrained_cfg["std"])


def _create(name: str, pretrained: bool | str, arguments: dict[str, Any]) -> Any:
    """The timm model at its native size, with its weights."""
    base = name.split(".")[0]
    if not timm.is_model(base):
        raise InputError(f"timm has no model '{name}' (model.backbone).{suggest(base, timm.list_models())}")
    own = sorted(TIMMS_OWN & arguments.keys())
    if own:
        raise InputError(
            f"model.backbone_args holds {', '.join(own)}: model.backbone and model.pretrained name the network and its "
            f"weights, and swinft decides the rest. Remove it."
        )
    file = weights_file(name, pretrained)
    try:
        model: Any = timm.create_model(name, pretrained=bool(pretrained) and not file, num_classes=0, **arguments)
    except Exception as error:  # whatever the model does not like about its arguments or its tag
        fix = " To build it as it is, remove model.backbone_args (--model.backbone_args null)." if arguments else ""
        raise InputError(f"timm cannot build '{name}' with {arguments}: {error} (model.backbone_args).{fix}") from error
    if file:
        _load(model, name, file)
    return model


def weights_file(name: str, pretrained: bool | str) -> Path | None:
    """The local file to load, also for hub weights that were downloaded before; None for no weights or for a download.

    Raises:
        InputError: The file does not exist; there are no weights to download; or the hub cannot be reached, found out
            in seconds and not after the retries of its client.
    """
    if isinstance(pretrained, str):
        if not Path(pretrained).is_file():
            raise InputError(
                f"model.pretrained: no file '{pretrained}'. Allowed: true, false, a .safetensors or .pth file."
            )
        return Path(pretrained)
    if not pretrained or not timm.is_model(name.split(".")[0]):
        return None
    tags = timm.list_pretrained(f"{name.split('.')[0]}.*")
    if "." in name and name not in tags:
        raise InputError(f"timm has no weights '{name}' (model.backbone).{suggest(name, tags)}")
    config = get_pretrained_cfg(name)
    if config is None or not (config.hf_hub_id or config.url):
        raise InputError(
            f"model.pretrained is true, but timm knows no weights of '{name}' and would start from random ones. Name "
            f"another backbone, or set model.pretrained to false or to a file."
        )
    if not config.hf_hub_id:
        return None
    cached = try_to_load_from_cache(config.hf_hub_id, "model.safetensors")
    if isinstance(cached, str):
        return Path(cached)
    if constants.HF_HUB_OFFLINE or not _is_reachable(constants.ENDPOINT):
        raise InputError(
            f"model.pretrained is true, but the weights of '{name}' are not on this machine and {constants.ENDPOINT} "
            f"cannot be reached. Download model.safetensors of '{config.hf_hub_id}' elsewhere and set model.pretrained "
            f"to its path, or set it to false to start from random weights."
        )
    return None


def _is_reachable(url: str) -> bool:
    try:
        urllib.request.urlopen(url, timeout=REACH_SECONDS).close()
    except urllib.error.HTTPError:
        return True  # an answer, if not a welcome
    except OSError:
        return False
    return True


def _load(model: Any, name: str, file: Path) -> None:
    """Loads a file strictly. timm's own loader lets missing keys pass once the classifier differs.

    Raises:
        InputError: The file holds anything else than this model's weights and a classifier.
    """
    try:
        state = load_state_dict(str(file), device="cpu", weights_only=True)
        state = without_prefix(state, model.state_dict().keys(), file)
        # Each family keeps the conversion of older and of the authors' checkpoints under this name.
        convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
        state = convert(state, model) if convert else state
        missing, unexpected = model.load_state_dict(state, strict=False)
    except (RuntimeError, KeyError, AttributeError, ValueError, pickle.UnpicklingError, SafetensorError) as error:
        raise InputError(f"{file} does not hold weights of '{name}' (model.pretrained): {error}") from error
    classifier = model.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    unexpected = [key for key in unexpected if not key.startswith(heads)] if heads else unexpected
    if missing or unexpected:
        raise InputError(
            f"{file} does not hold the weights of '{name}' (model.pretrained). Missing: {_few(missing)}. "
            f"Not known to the model: {_few(unexpected)}."
        )


def _few(keys: Sequence[str]) -> str:
    return f"{', '.join(keys[:5])}{f' and {len(keys) - 5} more' if len(keys) > 5 else ''}" if keys else "none"


def _resize(model: Any, name: str, size: tuple[int, int], window: int | None) -> None:
    """Brings a model from its native size to `size`, once, from its pristine weights.

    Raises:
        InputError: The model is fixed to another size, or no window divides its grids.
    """
    native = tuple(model.pretrained_cfg["input_size"][-2:])
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", (1, 1))
    if any(side % length for side, length in zip(size, patch, strict=True)):
        raise InputError(
            f"data.image_size {size[0]} x {size[1]} px is no multiple of the {patch[0]} px patches of '{name}': the "
            f"rest would be cut off. Set {size[0] // patch[0] * patch[0]} or {-(-size[0] // patch[0]) * patch[0]}."
        )
    set_size = getattr(model, "set_input_size", None)
    if set_size is None:
        if model.pretrained_cfg.get("fixed_input_size") and size != native:
            raise InputError(
                f"'{name}' is made for {native[0]} px and no other size: set data.image_size to {native[0]}."
            )
        return
    takes_windows = "window_size" in inspect.signature(set_size).parameters
    # MaxViT's windows are not shifted: its grids need no divisor per stage.
    if not takes_windows or not hasattr(model, "patch_embed") or not hasattr(model, "layers"):
        if size != native:
            _set_size(set_size, name, size)
        return
    windows = _stage_windows(model, name, size, window)
    _set_size(set_size, name, size, window_size=windows)


def _set_size(set_size: Callable[..., None], name: str, size: tuple[int, int], **options: Any) -> None:
    try:
        set_size(img_size=size, **options)
    except AssertionError as error:
        raise InputError(f"'{name}' cannot work at {size[0]} x {size[1]} px (data.image_size): {error}") from error


def _stage_windows(model: Any, name: str, size: tuple[int, int], window: int | None) -> list[tuple[int, int]]:
    """A window per stage that divides the stage's grid.

    Where a window does not divide the grid, timm pads after the cyclic shift and opposite edges attend to each other.
    So every stage gets the divisor of its grid that is nearest to the window it should have: the native one, scaled up
    with the image beyond the native size, as the authors do from 224 (7) to 384 (12) px.
    """
    natives = model.pretrained_cfg["input_size"][-2:]

    def sides(*lengths: int) -> list[list[int]]:
        return [_side_windows(model, natives[axis], length, axis, window) for axis, length in enumerate(lengths)]

    windows = sides(*size)
    if not all(windows):
        near = sorted(range(8, 2 * max(size), 4), key=lambda length: abs(length - max(size)))
        good = sorted([length for length in near if all(sides(length, length))][:4])
        raise InputError(
            f"'{name}' cannot cut {size[0]} x {size[1]} px into windows{f' of {window}' if window else ''} without "
            f"padding, which would let opposite edges attend to each other. Sizes that work: {good} (data.image_size)."
        )
    return list(zip(*windows, strict=True))


def _side_windows(model: Any, native: int, side: int, axis: int, window: int | None) -> list[int]:
    """Windows along one side, one per stage; empty where a stage has none."""
    patch = model.patch_embed.patch_size[axis]
    if side % patch:
        return []
    windows = []
    for index, stage in enumerate(model.layers):
        grid = -(-side // patch // 2**index)  # each merge halves the grid, rounding up
        made_for = stage.blocks[0].window_size[axis]
        wanted = min(grid, window or made_for * max(1.0, side / native))
        divisors = [d for d in range(1, grid + 1) if grid % d == 0]
        best = min(divisors, key=lambda d: abs(math.log(d / wanted)))
        if best != wanted if window else not 1 / MAX_WINDOW_RATIO <= best / wanted <= MAX_WINDOW_RATIO:
            return []
        windows.append(best)
    return windows
