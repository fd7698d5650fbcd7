"""Random resized crop and flip with nothing around it: from the cache, drawing and checking cost as much as they do.

What is drawn surrounds what evaluation shows, for any output size and any resize rule: the whole of that is share 1 and
ratio 1, and crops are a share of its area, in proportions up to 4/3 wider or narrower. That is for

- `squash` the whole image, so that proportions count relative to the image's own;
- `crop` the largest part of the image in the output's proportions;
- `pad` the image with black around it, up to the output's proportions.
"""

import hashlib
import math
import struct
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from albumentations import ImageOnlyTransform
from cv2.typing import MatLike
from numpy.typing import NDArray

from swinft.data.images.resize import resized

Resize = Literal["squash", "crop", "pad"]

FIVE_NUMBERS = struct.Struct(">5Q").unpack
RATIO = 4 / 3  # by which a crop is wider or narrower than what evaluation shows, at most
# From here on a side is shrunk with antialiasing. At 2 bilinear sampling begins to leave out pixels; at 1.5 it still
# takes a third of the time, and what is cached for the ordinary proportions is hardly shrunk by more.
ANTIALIASED_FROM = 1.5


class Box(NamedTuple):
    """A part of an image, in whole pixels; with the rule `pad` it may reach out of the image."""

    top: int
    left: int
    height: int
    width: int


@dataclass(frozen=True)
class RandomCrop:
    """The preset `crop`: a random part of every image, flipped left to right half of the time.

    Args:
        image_size: Height and width of what comes out, in pixels.
        resize: The rule by which evaluation resizes.
        scale: Least and largest share of the area that evaluation shows.
    """

    image_size: tuple[int, int]
    resize: Resize = "crop"
    scale: tuple[float, float] = (0.25, 1.0)

    def __call__(self, image: NDArray[np.uint8], seed: int, epoch: int, row: int) -> NDArray[np.uint8]:
        """An image (H, W, 3) to its crop; what is drawn depends on (seed, epoch, row) alone."""
        out = np.empty((*self.image_size, 3), dtype=np.uint8)
        return random_crop(image, out, seed, epoch, row, self.scale, resize=self.resize)

    def draw(self, height: int, width: int, seed: int, epoch: int, row: int) -> tuple[Box, bool]:
        """What is drawn for an image of a height and width: its part, and whether that is flipped."""
        return _drawn(height, width, self.image_size, seed, epoch, row, self.scale, self.resize, flip=0.5)


class CropTransform(ImageOnlyTransform):
    """The same crop, without the flip, as a transform among others.

    Args:
        image_size: As in `RandomCrop`.
        resize: As in `RandomCrop`.
        scale: As in `RandomCrop`.
    """

    def __init__(self, image_size: tuple[int, int], resize: Resize, scale: tuple[float, float]) -> None:
        super().__init__(p=1)
        self.image_size, self.resize, self.scale = image_size, resize, scale

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draws a part."""
        height, width = params["shape"][:2]
        first, second, third, fourth = (self.py_random.random() for _ in range(4))
        return {"box": _box(height, width, self.image_size, self.scale, self.resize, (first, second, third, fourth))}

    def apply(self, img: NDArray[np.uint8], box: Box, **params: Any) -> NDArray[np.uint8]:
        """Cuts and resizes."""
        return cut(img, np.empty((*self.image_size, 3), dtype=np.uint8), box, is_flipped=False)


def random_crop(
    image: NDArray[np.uint8],
    out: NDArray[np.uint8],
    seed: int,
    epoch: int,
    row: int,
    scale: tuple[float, float] = (0.08, 1.0),
    flip: float = 0.5,
    resize: Resize = "crop",
) -> NDArray[np.uint8]:
    """Cuts a random part out of an image, resizes it, and flips it left to right.

    What is drawn depends on (seed, epoch, row) alone.

    Args:
        image: uint8 (H, W, 3).
        out: Where the result goes, uint8 (H, W, 3) of the size that is wanted, contiguous; a row of a batch saves a
            copy.
        seed: Of the augmentation.
        epoch: From 0.
        row: Position in the table.
        scale: Least and largest share of the area that evaluation shows. Where a crop of the drawn proportions does not
            fit, it is as large as fits.
        flip: Probability.
        resize: The rule by which evaluation resizes.

    Returns:
        `out`.
    """
    height, width = image.shape[:2]
    size = (out.shape[0], out.shape[1])
    return cut(image, out, *_drawn(height, width, size, seed, epoch, row, scale, resize, flip))


def cut(image: NDArray[np.uint8], out: NDArray[np.uint8], box: Box, is_flipped: bool) -> NDArray[np.uint8]:
    """Resizes a part of an image into `out`, black where it reaches out of the image."""
    top, left, height, width = box
    bottom, right = min(top + height, image.shape[0]), min(left + width, image.shape[1])
    first_row, first_column = max(top, 0), max(left, 0)
    rows = image[first_row:bottom]
    # A copy in one stretch: jumping from row to row through a mapped file, resizing would wait for it.
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


def _resize(image: MatLike, out: NDArray[np.uint8]) -> None:
    """Resizes into `out`: bilinear, antialiased where a side is shrunk by much.

    Exact to half a grey level where OpenCV has Intel's library: its wheels for x86. OpenCV's own code rounds the
    weights, is off by up to 0.75 and takes 1.4 times as long. It is the default because the two differ. The switch
    belongs to the thread.
    """
    height, width = out.shape[:2]
    if image.shape[0] > ANTIALIASED_FROM * height or image.shape[1] > ANTIALIASED_FROM * width:
        out[:] = resized(np.asarray(image, dtype=np.uint8), height, width)
        return
    before = cv2.ipp.useIPP_NotExact()
    cv2.ipp.setUseIPP_NotExact(True)
    try:
        cv2.resize(image, (width, height), dst=out)
    finally:
        cv2.ipp.setUseIPP_NotExact(before)


def _drawn(
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
    first, second, third, fourth, fifth = _draws(seed, epoch, row)
    return _box(height, width, image_size, scale, resize, (first, second, third, fourth)), fifth < flip


def _draws(seed: int, epoch: int, row: int) -> list[float]:
    """Five numbers in [0, 1): a hash of the three, as making a generator of them takes longer than the flip."""
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
    """The part that four numbers in [0, 1) stand for: of area, proportions, top and left."""
    aspect = width / height if resize == "squash" else image_size[1] / image_size[0]
    padded_height, padded_width = height, width
    if resize == "pad":
        padded_height, padded_width = max(height, round(width / aspect)), max(width, round(height * aspect))
    widest = min(padded_width, padded_height * aspect)  # of what evaluation shows
    area = widest * widest / aspect * (scale[0] + (scale[1] - scale[0]) * draws[0])
    ratio = aspect * RATIO ** (2 * draws[1] - 1)  # of width to height: log-uniform from 3/4 to 4/3 of the aspect
    wide, high = math.sqrt(area * ratio), math.sqrt(area / ratio)
    shrink = min(1.0, padded_width / wide, padded_height / high)
    wide, high = max(1, int(wide * shrink + 0.5)), max(1, int(high * shrink + 0.5))
    top, left = _start(draws[2], high, height, padded_height), _start(draws[3], wide, width, padded_width)
    return Box(top, left, high, wide)


def _start(draw: float, side: int, image: int, padded: int) -> int:
    """Where a crop begins along a side of the image: within it, or, where it is longer, around it."""
    border = (padded - image) // 2
    first, last = (0, image - side) if side <= image else (max(image - side, -border), min(0, padded - border - side))
    return first + int(draw * (last - first + 1))
