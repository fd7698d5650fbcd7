"""The dataset of segmentation: images with their masks, which go through the same geometric transforms.

Shapes: N rows, K classes, (H, W) image size.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from swinft.data.augment.pipelines import apply_to_both, check_image
from swinft.data.images.depth import Pixels
from swinft.data.images.resize import nearest
from swinft.data.loading.dataset import PADDING, ImageDataset, Key
from swinft.data.masks.masks import Masks, Planes, shape_of
from swinft.data.sources.source import ImageError
from swinft.errors import InputError


@dataclass(frozen=True, eq=False)
class MaskDataset(ImageDataset):
    """An item also has `size`, int64 (2,): height and width of the image's file; and `target`, uint8 (K, H, W).

    Args:
        masks: Masks of the rows; None for rows to predict.
    """

    masks: Masks | None = None

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
        return item

    def _pair(self, epoch: int, row: int) -> dict[str, Any]:
        """The image of a row, its masks, and the size of its file."""
        image = self.decoded(row)
        if self.masks is None:
            shape = shape_of(self.images.paths[row], self.images.rules, self.images.source)
        else:
            shape = (int(self.masks.shapes[row, 0]), int(self.masks.shapes[row, 1]))
        planes = None if self.masks is None else nearest(self.masks.planes(row), *image.shape[:2])
        ready, planes = self._both(image, planes, epoch, row)
        item: dict[str, Any] = {"image": ready, "size": torch.tensor(shape)}
        if planes is not None:
            item["target"] = torch.from_numpy(np.ascontiguousarray(planes.transpose(2, 0, 1)))
        return item

    def _both(self, image: Pixels, planes: Planes | None, epoch: int, row: int) -> tuple[Pixels, Planes | None]:
        """Image and masks after preprocessing and pipeline.

        Raises:
            InputError: One of them fails, or its output has another shape or type.
        """
        image, key = self.images.rules.for_transforms(image), "loading.preprocess" if self.preprocess else "augment"
        try:
            ready = image
            if self.preprocess:
                ready, planes = self.preprocess.both(image, planes)
                if ready.shape != image.shape:
                    raise InputError("it changes the size, and masks are written at the size of the image's file")
                key = "augment"
            ready, planes = apply_to_both(self.pipeline, ready, planes, self.seed, epoch, row)
        except Exception as error:  # transforms raise anything
            message = f"data.{key} fails on the image of shape {image.shape}"
            raise InputError(str(self.names.problem(row, message, str(error)))) from error
        check_image(ready, self.image_size, dtype=self.dtype)
        if planes is not None and planes.shape[:2] != self.image_size:
            raise InputError(f"data.augment gives masks of {planes.shape[:2]} for images of {self.image_size}.")
        return (ready if self.dtype == np.uint8 else np.clip(ready, 0, 1) * np.float32(255)), planes
