"""Reads images that are arrays: .npy files, and what sources make of arrays and of parts of images."""

import io
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from swinft.data.sources.pixels import SCALED

NUMBERS = "uif"  # kinds of types: whole numbers and floating-point ones


def is_array(content: bytes) -> bool:
    """Whether an image is an array in the format of .npy files."""
    return content.startswith((npy.MAGIC_PREFIX, SCALED))


def read_header(content: bytes) -> tuple[int, int, np.dtype[Any]]:
    """Height, width and type of an array's pixels.

    Raises:
        ValueError: It is damaged, or not an image.
    """
    shape, _, dtype, _ = _header(content)
    return shape[0], shape[1], dtype


def read_array(content: bytes) -> tuple[NDArray[Any], float | None]:
    """The samples, (H, W), (H, W, 1) or (H, W, 3); and for pixels that have been scaled already, which part was cut.

    Raises:
        ValueError: It is damaged, or not an image.
    """
    shape, is_fortran, dtype, start = _header(content)
    count = int(np.prod(shape))
    if len(content) - start < count * dtype.itemsize:
        raise ValueError("its samples are incomplete")
    samples = np.frombuffer(content, dtype, count, start).reshape(shape, order="F" if is_fortran else "C")
    altered = float(content[len(SCALED) :].partition(b"\n")[0]) if content.startswith(SCALED) else None
    return samples, altered


def _header(content: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any], int]:
    """Shape, order, type, and where the samples start; nothing is unpickled."""
    file = io.BytesIO(content)
    if content.startswith(SCALED):
        file.readline()
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"it is a .npy file of the unknown version {version[0]}.{version[1]}")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, is_fortran, dtype = read(file)
    if dtype.kind not in NUMBERS or not (len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))):
        sides = " × ".join(map(str, shape)) or "one number"
        raise ValueError(f"it is {sides} of {dtype}, and must be H × W, H × W × 1 or H × W × 3 of real numbers")
    return shape, is_fortran, dtype, file.tell()
