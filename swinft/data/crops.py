"""Random resized crop and flip with nothing around it: from the cache, drawing and checking cost as much as they do."""

import hashlib
import math
import struct
from dataclasses import dataclass

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import NDArray

FIVE_NUMBERS = struct.Struct(">5Q").unpack
RATIO = 4 / 3  # of a crop's longer to its shorter side, at most


@dataclass(frozen=True)
class RandomCrop:
    """The preset `crop`: a random part of every image, flipped left to right half of the time.

    Args:
        image_size: Height and width of what comes out, in pixels.
        scale: Least and largest share of the image's area.
    """

    image_size: tuple[int, int]
    scale: tuple[float, float] = (0.25, 1.0)

    def __call__(self, image: NDArray[np.uint8], seed: int, epoch: int, row: int) -> NDArray[np.uint8]:
        """An image (H, W, 3) to its crop; what is drawn depends on (seed, epoch, row) alone."""
        out = np.empty((*self.image_size, 3), dtype=np.uint8)
        return random_crop(image, out, seed, epoch, row, self.scale)


def random_crop(
    image: NDArray[np.uint8],
    out: NDArray[np.uint8],
    seed: int,
    epoch: int,
    row: int,
    scale: tuple[float, float] = (0.08, 1.0),
    flip: float = 0.5,
) -> NDArray[np.uint8]:
    """Cuts a random part out of an image, resizes it, and flips it left to right.

    What is drawn depends on (seed, epoch, row) alone. Resizing is bilinear: a cached picture is hardly larger than what
    it is resized to, and averaging areas would take ten times as long.

    Args:
        image: uint8 (H, W, 3).
        out: Where the result goes, uint8 (H, W, 3) of the size that is wanted, contiguous; a row of a batch saves a
            copy.
        seed: Of the run.
        epoch: From 0.
        row: Position in the table.
        scale: Least and largest share of the image's area. Where a crop of the drawn proportions does not fit, it is as
            large as fits.
        flip: Probability.

    Returns:
        `out`.
    """
    (top, left, height, width), is_flipped = drawn_crop(image.shape[0], image.shape[1], seed, epoch, row, scale, flip)
    rows = image[top : top + height]
    # A copy in one stretch: jumping from row to row through a mapped file, resizing would wait for it.
    _resize(cv2.flip(rows[:, left : left + width], 1) if is_flipped else rows.copy()[:, left : left + width], out)
    return out


def _resize(image: MatLike, out: NDArray[np.uint8]) -> None:
    """Resizes into `out`, bilinear; exact to half a grey level where OpenCV has Intel's library: its wheels for x86.

    OpenCV's own code rounds the weights, is off by up to 0.75 and takes 1.4 times as long. It is the default because
    the two differ. The switch belongs to the thread.
    """
    before = cv2.ipp.useIPP_NotExact()
    cv2.ipp.setUseIPP_NotExact(True)
    try:
        cv2.resize(image, (out.shape[1], out.shape[0]), dst=out)
    finally:
        cv2.ipp.setUseIPP_NotExact(before)


def drawn_crop(
    height: int,
    width: int,
    seed: int,
    epoch: int,
    row: int,
    scale: tuple[float, float],
    flip: float = 0.5,
) -> tuple[tuple[int, int, int, int], bool]:
    """What `random_crop` draws for an image of a height and width: top, left, height, width; whether it is flipped."""
    first, second, third, fourth, fifth = _draws(seed, epoch, row)
    return _box(height, width, scale, (first, second, third, fourth)), fifth < flip


def _draws(seed: int, epoch: int, row: int) -> list[float]:
    """Five numbers in [0, 1): a hash of the three, as making a generator of them takes longer than the flip."""
    digest = hashlib.blake2b(b"%d %d %d" % (seed, epoch, row), digest_size=40).digest()
    return [number / 2**64 for number in FIVE_NUMBERS(digest)]


def _box(
    height: int, width: int, scale: tuple[float, float], draws: tuple[float, float, float, float]
) -> tuple[int, int, int, int]:
    """Top, left, height and width of the crop in pixels."""
    area = height * width * (scale[0] + (scale[1] - scale[0]) * draws[0])
    ratio = RATIO ** (2 * draws[1] - 1)  # of width to height: log-uniform from 3/4 to 4/3
    wide, high = math.sqrt(area * ratio), math.sqrt(area / ratio)
    shrink = min(1.0, width / wide, height / high)
    wide, high = max(1, int(wide * shrink + 0.5)), max(1, int(high * shrink + 0.5))
    return int(draws[2] * (height - high + 1)), int(draws[3] * (width - wide + 1)), high, wide
