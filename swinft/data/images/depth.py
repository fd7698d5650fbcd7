"""Decoded pixels of 8 bits and of more, and their scales in augmentation, network and display."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# uint8 in 0–255, uint16 in 0–65535, or float32 in 0–1.
Pixels = NDArray[np.uint8 | np.uint16 | np.float32]
WHITE = {"uint8": 255, "uint16": 65535, "float32": 1}
LEVELS = 65535  # that float32 is said to have, where neighbouring levels matter


def level(dtype: np.dtype[Any]) -> float:
    """The difference of two neighbouring levels of pixels."""
    return 1.0 if dtype.kind == "u" else 1 / LEVELS


def as_unit(pixels: Pixels) -> NDArray[np.float32]:
    """Pixels as float32 in 0–1, as albumentations takes them."""
    return pixels if pixels.dtype == np.float32 else np.float32(1 / WHITE[pixels.dtype.name]) * pixels  # type: ignore[return-value]


def as_bytes(levels: NDArray[Any]) -> NDArray[np.uint8]:
    """Levels in 0–255 as uint8, for display."""
    return levels if levels.dtype == np.uint8 else np.rint(np.clip(levels, 0, 255)).astype(np.uint8)


def displayed(pixels: Pixels) -> NDArray[np.uint8]:
    """Decoded pixels as uint8, for display."""
    return pixels if pixels.dtype == np.uint8 else as_bytes(255 * as_unit(pixels))  # type: ignore[return-value]
