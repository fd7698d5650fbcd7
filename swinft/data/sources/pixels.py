"""Bare pixels become the bytes of an image file, and text becomes pixels; nothing is lost on the way."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from swinft.data.tables.table import Problem, Table

# Every spelling of a level: a look-up is faster than any conversion, and takes nothing else.
LEVELS = {spelling: level for level in range(256) for spelling in (str(level), f"{level}.0")}


SET_SHAPE = "Set height, width and channels in the init_args of data.loading.source."


def netpbm(pixels: NDArray[np.uint8]) -> bytes:
    """An image file (PGM or PPM) of pixels (H, W), (H, W, 1) or (H, W, 3).

    Raises:
        ValueError: They are something else.
    """
    is_colour = pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.dtype != np.uint8 or not (is_colour or pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 1)):
        shape = " × ".join(map(str, pixels.shape)) or "one number"
        raise ValueError(f"it is {shape} of {pixels.dtype}, and must be H × W, H × W × 1 or H × W × 3 of uint8")
    height, width = pixels.shape[:2]
    return f"P{6 if is_colour else 5} {width} {height} 255\n".encode() + pixels.tobytes()


def image_shape(numbers: int, height: int | None, width: int | None, channels: int) -> tuple[int, int, int]:
    """Height, width and channels of an image of so many numbers, as far as they make one; a square where both are None.

    Args:
        numbers: As many as a row has.
        height: In pixels; None for what the others leave.
        width: The same.
        channels: Numbers of a pixel.
    """
    pixels = numbers // channels
    found = height or (pixels // width if width else math.isqrt(pixels))
    return found, width or (pixels // found if height else found), channels


def row_levels(table: Table, row: int, numbers: Sequence[str], size: int, problems: list[Problem]) -> bytes:
    """The levels that a row's cells spell; zeros where a problem is appended.

    Args:
        table: Names the row.
        row: Its position.
        numbers: Its cells.
        size: How many there must be.
        problems: What is wrong is appended.
    """
    if len(numbers) != size:
        fix = f"It has {len(numbers):,}. {SET_SHAPE}"
        problems.append(table.problem(row, f"an image has {size:,} numbers, and the row another number", fix))
        return bytes(size)
    try:
        return bytes(map(LEVELS.__getitem__, numbers))
    except KeyError as error:
        fix = f"{error} must be a whole number in 0–255."
        problems.append(table.problem(row, "a pixel is no level of grey", fix))
        return bytes(size)
