"""Shrinks images to the size that training needs, with or without a cache.

An image is shrunk, with its aspect ratio, until it just covers 1.14 times the training size in height and width. It is
never enlarged. The filter is the antialiased bilinear one of Pillow and torchvision, in torch's kernel, which takes a
fifth of the time of OpenCV's area averaging. Covering works for all three resize rules and for lists of transforms;
the extra 14 % leave space for random crops.

Differences from the pixels of `decode`, for a training size of (H, W):

- An image below 1.14 H in height or 1.14 W in width is not shrunk: no difference.
- Every other image is shrunk twice: here, with sides rounded to whole pixels, and then by the resize rule. Evaluation
  sees it slightly softer: photographs differ by 0.3 to 4 of 255 grey levels per pixel on average (pad least, crop
  most), noise by up to 13.
- A JPEG at least twice as large as needed is decoded at 1/2, 1/4 or 1/8 of its size, then shrunk. This contributes 0.4
  to 3.6 grey levels to the difference above, less for larger JPEGs.
- Augmentations see the shrunk image: lengths in pixels (blurs, holes, fixed crops), noise and compression act on
  fewer pixels, and a small crop is enlarged from fewer.
"""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from swinft.data.images.decode import decode, decode_reduced, load
from swinft.data.images.depth import Pixels
from swinft.data.images.info import ImageInfo
from swinft.data.images.rules import RULES, ImageRules
from swinft.data.sources.files import FILES
from swinft.data.sources.source import Source

MARGIN = 1.14  # 256 pixels for 224: space for random crops, and evaluation never enlarges
# Part of the cache key: change it with any code below that changes pixels.
GEOMETRY = f"covers {MARGIN} of the training size, antialiased, height first, never enlarged, JPEG at 1/2, 1/4, 1/8"


def load_image(
    path: str | Path, image_size: tuple[int, int] | None, rules: ImageRules = RULES, source: Source = FILES
) -> Pixels:
    """Decodes an image and shrinks it for a training size.

    Args:
        path: As for `decode`.
        image_size: Training height and width in pixels; None for full size.
        rules: As for `decode`.
        source: As for `decode`.

    Returns:
        RGB (H, W, 3), uint8 or as the rule `keep` says, read-only.

    Raises:
        ImageError: As for `decode`.
    """
    if image_size is None:
        return decode(path, rules, source)
    return _shrunk(*decode_reduced(path, min_shrunk_shape(image_size), rules, source), image_size)


def load_image_and_info(
    path: str | Path, content: bytes, image_size: tuple[int, int] | None, rules: ImageRules = RULES
) -> tuple[Pixels, ImageInfo]:
    """The same for a file that was read already; also returns its header information.

    Args:
        path: Named in errors.
        content: All bytes of the file.
        image_size: As for `load_image`.
        rules: As for `decode`.

    Raises:
        ImageError: As for `decode`.
    """
    pixels, full, info = load(path, content, min_shrunk_shape(image_size) if image_size else None, rules)
    return (_shrunk(pixels, full, image_size) if image_size else pixels), info


def _shrunk(pixels: Pixels, full: tuple[int, int], image_size: tuple[int, int]) -> Pixels:
    height, width = shrunk_shape(*full, image_size)  # from the full size: the reduced one is rounded
    if (height, width) != pixels.shape[:2]:
        pixels = resized(pixels, height, width)
        pixels.flags.writeable = False
    return pixels


def resized(pixels: Pixels, height: int, width: int) -> Pixels:
    """Resizes pixels (H, W, 3) to (height, width, 3) with this module's filter; it can also enlarge."""
    whole = _read_only(pixels) if pixels.dtype == np.uint8 else torch.from_numpy(pixels.astype(np.float32))
    batch = whole[None].permute(0, 3, 1, 2)  # a batch of one, which torch recognises as channels_last
    # Height first: torch would start with the width, also in rows that are about to be dropped, and take 1.2 to 1.5
    # times as long. Rounding in between differs by at most one grey level.
    for size in ((height, pixels.shape[1]), (height, width)):
        batch = functional.interpolate(batch, size, mode="bilinear", antialias=True)
    result: Pixels = batch.permute(0, 2, 3, 1)[0].numpy()
    return result if result.dtype == pixels.dtype else np.rint(result).astype(pixels.dtype)


def nearest(planes: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Resizes masks (H, W, K) to (height, width, K): each pixel is that of the nearest centre, without mixing."""
    if planes.shape[:2] == (height, width):
        return planes
    size, how = (width, height), cv2.INTER_NEAREST_EXACT
    found = [cv2.resize(np.ascontiguousarray(each), size, interpolation=how) for each in planes.transpose(2, 0, 1)]
    return np.stack(found, axis=2).astype(np.uint8)


def _read_only(pixels: Pixels) -> torch.Tensor:
    """The same memory as a tensor, which must not be written to; avoids torch's warning about read-only arrays."""
    address, _ = pixels.__array_interface__["data"]
    view: Any = SimpleNamespace(__array_interface__=pixels.__array_interface__ | {"data": (address, False)}, of=pixels)
    return torch.from_numpy(np.asarray(view))


def min_shrunk_shape(image_size: tuple[int, int]) -> tuple[int, int]:
    """Height and width in pixels that a shrunk image must cover, for a training size."""
    return math.ceil(MARGIN * image_size[0]), math.ceil(MARGIN * image_size[1])


def shrunk_shape(height: int, width: int, image_size: tuple[int, int]) -> tuple[int, int]:
    """Height and width in pixels of an image after shrinking, for a training size."""
    least_height, least_width = min_shrunk_shape(image_size)
    scale = max(least_height / height, least_width / width)
    if scale >= 1:
        return height, width
    return max(least_height, round(height * scale)), max(least_width, round(width * scale))
