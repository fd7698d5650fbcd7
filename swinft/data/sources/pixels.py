"""Converts pixel arrays and text to image bytes, without loss."""

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.tables.numbers import NUMBER
from swinft.data.tables.table import Problem, Table

# All spellings of a level: a dictionary is faster than parsing, and accepts nothing else.
LEVELS = {spelling: level for level in range(256) for spelling in (str(level), f"{level}.0")}

# Start of an array of pixels that are scaled already, before the format of .npy files.
SCALED = b"swinft pixels "
SET_SHAPE = "Set height, width and channels in the init_args of data.loading.source."


def netpbm(pixels: NDArray[np.uint8]) -> bytes:
    """Encodes pixels (H, W), (H, W, 1) or (H, W, 3) as PGM or PPM.

    Raises:
        ValueError: Shape or type is different.
    """
    is_colour = pixels.ndim == 3 and pixels.shape[2] == 3
    if pixels.dtype != np.uint8 or not (is_colour or pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 1)):
        shape = " × ".join(map(str, pixels.shape)) or "one number"
        raise ValueError(f"it is {shape} of {pixels.dtype}, and must be H × W, H × W × 1 or H × W × 3 of uint8")
    height, width = pixels.shape[:2]
    return f"P{6 if is_colour else 5} {width} {height} 255\n".encode() + pixels.tobytes()


def array_file(samples: NDArray[Any]) -> bytes:
    """Encodes an array that is an image: uint8 as PGM or PPM, other numbers as a .npy file.

    Raises:
        ValueError: It holds no numbers.
    """
    if samples.dtype == np.uint8 or samples.dtype.kind not in "uif":
        return netpbm(samples)
    file = io.BytesIO()
    np.lib.format.write_array(file, samples, allow_pickle=False)
    return file.getvalue()


def part_file(pixels: NDArray[Any], altered: float = 0.0) -> bytes:
    """Encodes decoded pixels (H, W, 3), so that decoding them again changes nothing.

    Args:
        pixels: The pixels.
        altered: As in `ImageInfo`, where pixels have more than 8 bits.
    """
    scaled = SCALED + f"{altered!r}\n".encode() if pixels.dtype != np.uint8 else b""
    return scaled + array_file(np.ascontiguousarray(pixels))


def image_shape(numbers: int, height: int | None, width: int | None, channels: int) -> tuple[int, int, int]:
    """Height, width and channels of an image with so many values; a square if neither side is given.

    Args:
        numbers: Number of values of a row.
        height: In pixels; None to derive it.
        width: In pixels; None to derive it.
        channels: Values per pixel.
    """
    pixels = numbers // channels
    found = height or (pixels // width if width else math.isqrt(pixels))
    return found, width or (pixels // found if height else found), channels


def row_levels(table: Table, row: int, numbers: Sequence[str], size: int, problems: list[Problem]) -> bytes:
    """Parses a row's pixel values; returns zeros if a problem is appended.

    Args:
        table: The table of the row.
        row: Its position.
        numbers: Its cells.
        size: Required number of values.
        problems: Errors are appended.
    """
    if len(numbers) != size:
        fix = f"It has {len(numbers):,}. {SET_SHAPE}"
        problems.append(table.problem(row, f"an image has {size:,} values, and the row a different number", fix))
        return bytes(size)
    try:
        return bytes(map(LEVELS.__getitem__, numbers))
    except KeyError as error:
        fix = f"{error} must be a whole number in 0–255."
        problems.append(table.problem(row, "a pixel is not a grey level", fix))
        return bytes(size)


def row_numbers(table: Table, row: int, numbers: Sequence[str], size: int, problems: list[Problem]) -> bytes:
    """Parses a row's pixel values as float32, of any size; arguments and zeros as `row_levels`."""
    if len(numbers) != size:
        row_levels(table, row, numbers, size, problems)
        return bytes(4 * size)
    wrong = [each for each in numbers if not NUMBER.fullmatch(each) and each.casefold() != "nan"]
    with np.errstate(over="ignore"):
        found = np.array(["0"] if wrong else numbers, dtype=np.float64).astype(np.float32)
    wrong += [numbers[place] for place in np.flatnonzero(np.isinf(found)).tolist()]
    if wrong:
        problems.append(table.problem(row, "a pixel is not a number", f"'{wrong[0]}' must be a number like -12.5."))
        return bytes(4 * size)
    return found.tobytes()
