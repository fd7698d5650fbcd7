"""Fast random resized crop and flip, without albumentations: its overhead exceeds the work on cached images.

Crops are relative to the region that evaluation sees: `scale` is a fraction of its area, and the aspect ratio is up to
4/3 wider or narrower than its own. That region is, for the resize rule

- `squash`: the whole image, with the image's own aspect ratio;
- `crop`: the largest part of the image with the output's aspect ratio;
- `pad`: the image, padded with black to the output's aspect ratio.
"""

import hashlib
import math
import struct
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from albumentations import DualTransform
from cv2.typing import MatLike
from numpy.typing import NDArray

from swinft.data.images.depth import Pixels
from swinft.data.images.resize import nearest, resized

Resize = Literal["squash", "crop", "pad"]

FIVE_NUMBERS = struct.Struct(">5Q").unpack
RATIO = 4 / 3  # largest change of the aspect ratio
# Shrinking by more than this factor is antialiased. Bilinear sampling skips pixels from a factor of 2. At 1.5 it takes
# a third of the time of antialiasing, and crops of cached images are rarely shrunk by more.
ANTIALIASED_FROM = 1.5


class Box(NamedTuple):
    """A crop box in whole pixels; with the rule `pad` it may extend beyond the image."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class RandomCrop:
    """The preset `crop`: a random resized crop, flipped horizontally with probability 0.5.

    Args:
        image_size: Output height and width in pixels.
        resize: The resize rule of evaluation.
        scale: Smallest and largest fraction of the area that evaluation sees.
    """

    image_size: tuple[int, int]
    resize: Resize = "crop"
    scale: tuple[float, float] = (0.25, 1.0)

    def __call__(self, image: Pixels, seed: int, epoch: int, row: int) -> Pixels:
        """Crops an image (H, W, 3), as a pure function of (seed, epoch, row)."""
        out = np.empty((*self.image_size, 3), dtype=image.dtype)
        return random_crop(image, out, seed, epoch, row, self.scale, resize=self.resize)

    def masks(self, masks: NDArray[np.uint8], seed: int, epoch: int, row: int) -> NDArray[np.uint8]:
        """Crops the masks (H, W, K) of an image as its pixels are cropped."""
        return crop_masks(masks, self.image_size, *self.draw(masks.shape[0], masks.shape[1], seed, epoch, row))

    def draw(self, height: int, width: int, seed: int, epoch: int, row: int) -> tuple[Box, bool]:
        """The random crop box for an image of this size, and whether it is flipped."""
        return _draw_crop(height, width, self.image_size, seed, epoch, row, self.scale, self.resize, flip=0.5)


class CropTransform(DualTransform):
    """The same crop, without the flip, as an albumentations transform of images and masks.

    Args:
        image_size: As in `RandomCrop`.
        resize: As in `RandomCrop`.
        scale: As in `RandomCrop`.
    """

    def __init__(self, image_size: tuple[int, int], resize: Resize, scale: tuple[float, float]) -> None:
        super().__init__(p=1)
        self.image_size, self.resize, self.scale = image_size, resize, scale

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draws a crop box."""
        height, width = params["shape"][:2]
        first, second, third, fourth = (self.py_random.random() for _ in range(4))
        return {"box": _box(height, width, self.image_size, self.scale, self.resize, (first, second, third, fourth))}

    def apply(self, img: Pixels, box: Box, **params: Any) -> Pixels:
        """Crops and resizes."""
        return crop_and_resize(img, np.empty((*self.image_size, 3), dtype=img.dtype), box, is_flipped=False)

    def apply_to_mask(self, mask: NDArray[np.uint8], *args: Any, box: Box, **params: Any) -> NDArray[np.uint8]:
        """Crops and resizes masks (H, W, K)."""
        return crop_masks(mask, self.image_size, box, is_flipped=False)


def random_crop(
    image: Pixels,
    out: Pixels,
    seed: int,
    epoch: int,
    row: int,
    scale: tuple[float, float] = (0.08, 1.0),
    flip: float = 0.5,
    resize: Resize = "crop",
) -> Pixels:
    """Random resized crop with a horizontal flip, a pure function of (seed, epoch, row).

    Args:
        image: uint8 (H, W, 3), or float32 in 0–1.
        out: Output buffer of the same type (H, W, 3), contiguous; an entry of a batch saves a copy.
        seed: Seed of the augmentation.
        epoch: From 0.
        row: Position in the table.
        scale: Smallest and largest fraction of the area that evaluation sees. A crop that does not fit is shrunk.
        flip: Probability of the flip.
        resize: The resize rule of evaluation.

    Returns:
        `out`.
    """
    height, width = image.shape[:2]
    size = (out.shape[0], out.shape[1])
    return crop_and_resize(image, out, *_draw_crop(height, width, size, seed, epoch, row, scale, resize, flip))


def crop_and_resize(image: Pixels, out: Pixels, box: Box, is_flipped: bool) -> Pixels:
    """Resizes a part of an image into `out`, black outside of the image."""
    top, left, height, width = box
    bottom, right = min(top + height, image.shape[0]), min(left + width, image.shape[1])
    first_row, first_column = max(top, 0), max(left, 0)
    rows = image[first_row:bottom]
    # One contiguous copy: resizing directly from a memory-mapped file would wait for each row.
    part = cv2.flip(rows[:, first_column:right], 1) if is_flipped else rows.copy()[:, first_column:right]
    if (bottom - first_row, right - first_column) == (height, width):
        _resize(part, out)
        return out
    out[:] = 0
    y = slice(*(round((edge - top) / height * out.shape[0]) for edge in (first_row, bottom)))
    x = slice(*(round((edge - left) / width * out.shape[1]) for edge in (first_column, right)))
    x = slice(out.shape[1] - x.stop, out.shape[1] - x.start) if is_flipped else x
    inner = np.empty_like(out[y, x], order="C")
    if inner.size:
        _resize(part, inner)
        out[y, x] = inner
    return out


def crop_masks(masks: NDArray[np.uint8], image_size: tuple[int, int], box: Box, is_flipped: bool) -> NDArray[np.uint8]:
    """The same of masks (H, W, K): each pixel is that of the nearest centre, and outside of the image is no mask."""
    top, left, height, width = box
    found = np.zeros((height, width, masks.shape[2]), np.uint8)
    bottom, right = min(top + height, masks.shape[0]), min(left + width, masks.shape[1])
    y, x = max(top, 0), max(left, 0)
    found[y - top : bottom - top, x - left : right - left] = masks[y:bottom, x:right]
    return nearest(found[:, ::-1] if is_flipped else found, *image_size)


def _resize(image: MatLike, out: Pixels) -> None:
    """Resizes into `out`: bilinear, antialiased if a side is shrunk by more than `ANTIALIASED_FROM`.

    With Intel IPP (in OpenCV's x86 wheels) the result is exact to half a grey level. OpenCV's own code, the default,
    rounds the weights, is off by up to 0.75 and takes 1.4 times as long. The IPP setting is per thread.
    """
    height, width = out.shape[:2]
    if image.shape[0] > ANTIALIASED_FROM * height or image.shape[1] > ANTIALIASED_FROM * width:
        out[:] = resized(np.asarray(image, dtype=out.dtype), height, width)
        return
    before = cv2.ipp.useIPP_NotExact()
    cv2.ipp.setUseIPP_NotExact(True)
    try:
        cv2.resize(image, (width, height), dst=out)
    finally:
        cv2.ipp.setUseIPP_NotExact(before)


def _draw_crop(
    height: int,
    width: int,
    image_size: tuple[int, int],
    seed: int,
    epoch: int,
    row: int,
    scale: tuple[float, float],
    resize: Resize,
    flip: float,
) -> tuple[Box, bool]:
    first, second, third, fourth, fifth = _uniform_numbers(seed, epoch, row)
    return _box(height, width, image_size, scale, resize, (first, second, third, fourth)), fifth < flip


def _uniform_numbers(seed: int, epoch: int, row: int) -> list[float]:
    """Five numbers in [0, 1), by hashing: creating a generator would take longer than the flip."""
    digest = hashlib.blake2b(b"%d %d %d" % (seed, epoch, row), digest_size=40).digest()
    return [number / 2**64 for number in FIVE_NUMBERS(digest)]


def _box(
    height: int,
    width: int,
    image_size: tuple[int, int],
    scale: tuple[float, float],
    resize: Resize,
    draws: tuple[float, float, float, float],
) -> Box:
    """The crop box for four numbers in [0, 1), which choose area, aspect ratio, top and left."""
    aspect = width / height if resize == "squash" else image_size[1] / image_size[0]
    padded_height, padded_width = height, width
    if resize == "pad":
        padded_height, padded_width = max(height, round(width / aspect)), max(width, round(height * aspect))
    widest = min(padded_width, padded_height * aspect)  # width of the region that evaluation sees
    area = widest * widest / aspect * (scale[0] + (scale[1] - scale[0]) * draws[0])
    ratio = aspect * RATIO ** (2 * draws[1] - 1)  # width / height: log-uniform from 3/4 to 4/3 of the aspect
    wide, high = math.sqrt(area * ratio), math.sqrt(area / ratio)
    shrink = min(1.0, padded_width / wide, padded_height / high)
    wide, high = max(1, int(wide * shrink + 0.5)), max(1, int(high * shrink + 0.5))
    top, left = _offset(draws[2], high, height, padded_height), _offset(draws[3], wide, width, padded_width)
    return Box(top, left, high, wide)


def _offset(draw: float, side: int, image: int, padded: int) -> int:
    """Start of a crop along one side: within the image, or around it if the crop is longer."""
    border = (padded - image) // 2
    first, last = (0, image - side) if side <= image else (max(image - side, -border), min(0, padded - border - side))
    return first + int(draw * (last - first + 1))
