"""The dataset of segmentation: images with their masks, which go through the same geometric transforms.

Shapes: N rows, K classes, (H, W) image size.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from swinft.data.augment.pipelines import apply_to_both, check_image
from swinft.data.images.depth import Pixels
from swinft.data.images.resize import nearest
from swinft.data.loading.dataset import PADDING, ImageDataset, Key
from swinft.data.masks.masks import Masks, Planes, shape_of
from swinft.data.masks.rle import IGNORED
from swinft.data.masks.tiles import TileConfig, filled, starts
from swinft.data.sources.source import ImageError
from swinft.errors import InputError

PROBED = 32  # images whose sizes are looked at, to know how much memory batches of whole ones take


@dataclass(frozen=True, eq=False)
class MaskDataset(ImageDataset):
    """An item also has `size`, int64 (2,): height and width of the image's file; and `target`, uint8 (K, H, W).

    With tiles, an item of training is a random one of its image. Of other rows it is the whole image, (H, W) larger
    than the network's input, with the keys `tile`, `tops` and `lefts` (`swinft.model.tiles`).

    Args:
        masks: Masks of the rows; None for rows to predict.
        tile: Tiles of large images; None where images are resized to the network's input.
        per_pass: Tiles of a forward pass; 0 for random tiles.
        classes: Names of the K classes.
    """

    masks: Masks | None = None
    tile: TileConfig | None = None
    per_pass: int = 0
    classes: Sequence[str] = ()

    def __getitem__(self, key: Key | int) -> dict[str, Any]:
        epoch, row = self.key(key)
        try:
            item = self._padding() if row == PADDING else self._pair(epoch, row)
        except ImageError:
            if not self.skips_bad:
                raise
            return self[epoch, PADDING]
        return {**item, **self.labels(row)}

    def _padding(self) -> dict[str, Any]:
        item = {"image": np.zeros((*self.image_size, 3), self.dtype), "size": torch.zeros(2, dtype=torch.int64)}
        if self.masks is not None:
            item["target"] = torch.zeros((self.masks.num_classes, *self.image_size), dtype=torch.uint8)
        return item | self._tiling(self.image_size)

    def _pair(self, epoch: int, row: int) -> dict[str, Any]:
        """The image of a row, its masks, and the size of its file."""
        image, shape = self.decoded(row), self.shape(row)
        planes = None if self.masks is None else nearest(self.masks.planes(row), *image.shape[:2])
        ready, planes = self._both(image, planes, epoch, row)
        tiling = self._tiling(ready.shape[:2])
        if self.per_pass:
            ready, planes = filled(ready, planes, self.image_size)
        item: dict[str, Any] = {"image": ready, "size": torch.tensor(shape), **tiling}
        if planes is not None:
            item["target"] = torch.from_numpy(np.ascontiguousarray(planes.transpose(2, 0, 1)))
        return item

    def _tiling(self, inner: tuple[int, int]) -> dict[str, Any]:
        """The keys that say where the tiles of an image of some height and width are; none of a single tile."""
        if self.tile is None or not self.per_pass:
            return {}
        tops, lefts = (
            starts(length, side, self.tile.overlap) for length, side in zip(inner, self.image_size, strict=True)
        )
        numbers = torch.tensor([*self.image_size, self.per_pass, *inner])
        return {"tile": numbers, "tops": torch.tensor(tops), "lefts": torch.tensor(lefts)}

    def most_pixels(self) -> int:
        """Pixels of the largest image as an item has it, of some that are looked at; of one tile in training."""
        if self.tile is None or not self.per_pass or not len(self):
            return math.prod(self.image_size)
        visited = np.arange(self.num_rows) if self.visited is None else self.visited
        rows = visited[np.linspace(0, len(visited) - 1, PROBED, dtype=int)]
        found = [math.prod(self.tile.scaled(*shape)) for row in {*rows.tolist()} if (shape := self._shape(row))]
        return max([math.prod(self.image_size), *found])

    def _shape(self, row: int) -> tuple[int, int] | None:
        """Height and width of a row's image; None if it cannot be read, which is found when it is loaded."""
        try:
            return self.shape(row)
        except ImageError:
            return None

    def shape(self, row: int) -> tuple[int, int]:
        """Height and width of a row's image file.

        Raises:
            ImageError: It cannot be read.
        """
        if self.masks is None:
            return shape_of(self.images.paths[row], self.images.rules, self.images.source)
        return int(self.masks.shapes[row, 0]), int(self.masks.shapes[row, 1])

    def tried(self, image: Pixels) -> Pixels:
        """What the pipeline gets of an image, to try it: a tile, if there are tiles."""
        return image if self.tile is None else self.tile.random(image, None, self.image_size, (self.seed, 0, 0))[0]

    def _both(self, image: Pixels, planes: Planes | None, epoch: int, row: int) -> tuple[Pixels, Planes | None]:
        """Image and masks after preprocessing and pipeline.

        Raises:
            InputError: One of them fails, or its output has another shape or type.
        """
        image, key = self.images.rules.for_transforms(image), "loading.preprocess" if self.preprocess else "augment"
        try:
            ready = image
            if self.preprocess:
                ready, planes = self._bordered(self.preprocess.both, image, planes)
                if ready.shape != image.shape:
                    raise InputError("it changes the size, and masks are written at the size of the image's file")
                key = "augment"
            if self.tile and self.per_pass:
                ready, planes = self.tile.whole(ready, planes)
            elif self.tile:
                ready, planes = self.tile.random(ready, planes, self.image_size, (self.seed, epoch, row))
            if not self.per_pass:
                ready, planes = self._bordered(
                    lambda image, planes: apply_to_both(self.pipeline, image, planes, self.seed, epoch, row),
                    ready,
                    planes,
                )
        except Exception as error:  # transforms raise anything
            message = f"data.{key} fails on the image of shape {image.shape}"
            raise InputError(str(self.names.problem(row, message, str(error)))) from error
        expected = (ready.shape[0], ready.shape[1]) if self.per_pass else self.image_size
        check_image(ready, expected, dtype=self.dtype)
        if planes is not None and planes.shape[:2] != expected:
            raise InputError(f"data.augment gives masks of {planes.shape[:2]} for images of {self.image_size}.")
        return (ready if self.dtype == np.uint8 else np.clip(ready, 0, 1) * np.float32(255)), planes

    def _bordered(
        self,
        transform: Callable[[Pixels, Planes | None], tuple[Pixels, Planes | None]],
        image: Pixels,
        planes: Planes | None,
    ) -> tuple[Pixels, Planes | None]:
        """Transforms an image and its masks; what the transform adds around the image is ignored if `ignore` is set.

        A further plane of ones shows what it adds: there it has the 0 with which transforms fill masks.
        """
        if planes is None or self.masks is None or self.masks.ignored is None:
            return transform(image, planes)
        framed = np.concatenate([planes, np.ones((*planes.shape[:2], 1), np.uint8)], axis=2)
        ready, changed = transform(image, framed)
        assert changed is not None
        found = changed[..., :-1].copy()
        found[changed[..., -1] == 0] = IGNORED
        return ready, found
