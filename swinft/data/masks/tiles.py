"""Tiles of large images: where they are, and a random one for training at the scale of the prediction.

Shapes: (H, W) image size, (h, w) tile size, K classes.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swinft.data.images.depth import Pixels
from swinft.data.images.resize import nearest, resized
from swinft.data.masks.rle import IGNORED
from swinft.ranges import UNIT, Range, SettingsError, range_problems, whole_problems

Planes = NDArray[np.uint8]  # (H, W, K), 0, 1 and IGNORED
KEY = "data.target_kind: Segmentation: tile"
RANGES = {"overlap": Range(0, 0.75), "scale": Range(0, 4, above=True), "masked": UNIT}
RANDOM_TILE = 1  # distinguishes the numbers that choose a tile from those of its augmentation


@dataclass(frozen=True)
class TileConfig:
    """Tiles of images that are larger than the network's input. A tile has `data.image_size`.

    Args:
        overlap: Fraction of a tile's side by which neighbours overlap at least, in prediction, 0 to 0.75. Where tiles
            overlap their maps are averaged, with weights that fall smoothly towards a tile's border.
        scale: Images are resized by this factor before tiles are cut, in training and prediction, above 0, up to 4; at
            0.5 a tile of 512 pixels shows 1024 pixels of the file.
        masked: Fraction of the training tiles that are chosen to contain a pixel of a mask, of a class that is drawn
            from those of the image, 0 to 1; the others are anywhere in the image.
        per_image: Tiles of each image in an epoch of training.

    Raises:
        InputError: A value is out of its range.
    """

    overlap: float = 0.25
    scale: float = 1.0
    masked: float = 0.0
    per_image: int = 1

    def __post_init__(self) -> None:
        """Checks the values."""
        problems = range_problems(KEY, vars(self), RANGES) + whole_problems(KEY, vars(self), {"per_image": 1})
        if problems:
            raise SettingsError(problems)

    def scaled(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of an image that is resized by `scale`."""
        return max(1, round(self.scale * height)), max(1, round(self.scale * width))

    def whole(self, image: Pixels, planes: Planes | None) -> tuple[Pixels, Planes | None]:
        """An image and its masks, resized by `scale`."""
        return resized_both(image, planes, self.scaled(*image.shape[:2]))

    def random(
        self, image: Pixels, planes: Planes | None, size: tuple[int, int], key: tuple[int, int, int]
    ) -> tuple[Pixels, Planes | None]:
        """A tile of an image (H, W, 3) and of its masks, as a pure function of the key.

        Args:
            image: At the size of its file.
            planes: Its masks; None for none.
            size: (h, w) of the tile.
            key: Seed, epoch and row.
        """
        rng = np.random.default_rng([*key, RANDOM_TILE])
        shown = tuple(max(1, round(side / self.scale)) for side in size)
        place = [rng.integers(max(0, most - side) + 1) for most, side in zip(image.shape, shown, strict=False)]
        if rng.random() < self.masked and planes is not None:
            place = _holding_mask(planes, place, shown, rng)
        cut = tuple(slice(int(start), int(start) + side) for start, side in zip(place, shown, strict=True))
        tile, own = filled(image[cut], planes if planes is None else planes[cut], (shown[0], shown[1]))
        return resized_both(tile, own, size)


def _holding_mask(planes: Planes, place: list[int], shown: tuple[int, ...], rng: np.random.Generator) -> list[int]:
    """Top and left of a tile that contains a random pixel of a random class; the given ones if all masks are empty."""
    planes = (planes > 0) & (planes != IGNORED)
    classes = np.flatnonzero(planes.any((0, 1)))
    if not len(classes):
        return place
    pixels = np.flatnonzero(planes[..., rng.choice(classes)])
    found = []
    pixel = np.unravel_index(int(rng.choice(pixels)), planes.shape[:2])
    for at, side, most in zip(pixel, shown, planes.shape, strict=False):
        low, high = max(0, int(at) - side + 1), min(int(at), max(0, most - side))
        found.append(int(rng.integers(low, high + 1)))
    return found


def starts(length: int, side: int, overlap: float) -> list[int]:
    """Where tiles of a side start along an image's length: as few as overlap by a fraction, evenly spaced.

    The first starts at 0 and the last ends at the image's end; one starts at 0 where the image is not longer.
    """
    if length <= side:
        return [0]
    step = max(1, math.floor(side * (1 - overlap)))
    count = -(-(length - side) // step) + 1
    return [round(k * (length - side) / (count - 1)) for k in range(count)]


def filled(image: Pixels, planes: Planes | None, size: tuple[int, int]) -> tuple[Pixels, Planes | None]:
    """An image and its masks, mirrored beyond their lower and right borders until they have a size."""
    more = [(0, max(0, least - most)) for least, most in zip(size, image.shape, strict=False)]
    if more == [(0, 0), (0, 0)]:
        return image, planes
    widths = [*more, (0, 0)]
    return np.pad(image, widths, "symmetric"), None if planes is None else np.pad(planes, widths, "symmetric")


def resized_both(image: Pixels, planes: Planes | None, size: tuple[int, int]) -> tuple[Pixels, Planes | None]:
    """An image and its masks at a size; pixels of masks are those of the nearest centre."""
    if image.shape[:2] != size:
        image = resized(np.ascontiguousarray(image), *size)
    return image, None if planes is None else nearest(planes, *size)
