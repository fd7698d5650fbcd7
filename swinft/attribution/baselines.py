"""Baselines: images without content, from which attributions start, or with which parts of an image are covered."""

from collections.abc import Callable
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional

from swinft.attribution.names import BaselineName
from swinft.errors import InputError, suggest
from swinft.model.network import ImageModel

WHITE = 255.0
BLUR = 8  # pixels of the shorter side to which `blur` shrinks an image: no object is left


def baseline_of(network: ImageModel, images: Tensor, name: str) -> Tensor:
    """The baseline of images, of their shape, float32.

    Args:
        network: The network.
        images: Pixels (…, C, H, W) in 0–255.
        name: `mean`: the colour that its normalisation turns into 0; `black`, `white`; `blur`: the image, blurred.

    Raises:
        InputError: There is no such baseline.
    """
    makers: dict[str, Callable[[Tensor], Tensor]] = {
        "mean": lambda pixels: network.backbone.mean.to(pixels)[0].expand_as(pixels).clone(),
        "black": torch.zeros_like,
        "white": lambda pixels: torch.full_like(pixels, WHITE),
        "blur": _blurred,
    }
    if name not in makers:
        raise InputError(f"baseline is '{name}'.{suggest(name, get_args(BaselineName))}")
    return makers[name](images.float())


def _blurred(pixels: Tensor) -> Tensor:
    """Shrunk to a few pixels, and enlarged again."""
    flat = pixels.flatten(0, -4) if pixels.ndim > 4 else pixels
    height, width = flat.shape[-2:]
    scale = min(1.0, BLUR / min(height, width))
    small = (max(1, round(height * scale)), max(1, round(width * scale)))
    few = functional.interpolate(flat, small, mode="area")
    return functional.interpolate(few, (height, width), mode="bilinear", align_corners=False).view_as(pixels)
