"""Pixels of predicted and true masks at the size of the image files, and the decision which pixels are in a mask.

Shapes: N images, K classes.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.inspection.scan import in_order
from swinft.data.masks.masks import Masks
from swinft.data.masks.rle import IGNORED
from swinft.errors import InputError
from swinft.inference.maps import Maps, Resize
from swinft.model.metrics.pixel_counts import LEVELS, THRESHOLD, level_counts, level_of
from swinft.system.limits import available_cores


@dataclass(frozen=True)
class MaskDecision:
    """Which pixels are in a predicted mask.

    Args:
        thresholds: Of each class, the probability from which a pixel is in its mask, in 0–1.
        min_areas: Of each class, the fewest pixels of a mask at the size of the image's file; one of fewer is empty.
    """

    thresholds: Sequence[float]
    min_areas: Sequence[int]

    @classmethod
    def default(cls, num_classes: int, threshold: float = THRESHOLD) -> "MaskDecision":
        """The same threshold for all classes, and no smallest area."""
        return cls([threshold] * num_classes, [0] * num_classes)

    def mask(self, levels: NDArray[np.uint8], k: int) -> NDArray[np.bool_]:
        """The mask of a class from its map, bool of the same shape."""
        found: NDArray[np.bool_] = levels >= max(1, level_of(self.thresholds[k]))
        return found if found.sum() >= self.min_areas[k] else np.zeros_like(found)


@dataclass(frozen=True, eq=False)
class MaskCounts:
    """Pixels of every image and class, by the level from which a pixel is predicted. Ignored pixels do not count.

    Args:
        both: True pixels of at least each level, int64 (N, K, 256).
        found: Pixels of at least each level, int64 (N, K, 256).
        true: True pixels, int64 (N, K).
        area: Pixels of at least each level with the ignored ones, int64 (N, K, 256): the area of a mask that is
            submitted, which the smallest area is compared with; None if none is ignored.
    """

    both: NDArray[np.int64]
    found: NDArray[np.int64]
    true: NDArray[np.int64]
    area: NDArray[np.int64] | None = None

    def decided(self, decision: MaskDecision) -> NDArray[np.float64]:
        """What metrics get as predictions, float64 (N, K, 2), as in `swinft.model.metrics.pixel_counts`."""
        levels = [max(1, level_of(threshold)) for threshold in decision.thresholds]
        classes = np.arange(len(levels))
        both, found = (each[:, classes, levels].astype(np.float64) for each in (self.both, self.found))
        is_empty = (found if self.area is None else self.area[:, classes, levels]) < np.array(decision.min_areas)
        return np.stack([np.where(is_empty, 0, both), np.where(is_empty, 0, found)], axis=2)

    def take(self, rows: NDArray[np.int64]) -> "MaskCounts":
        """The counts of some images."""
        area = None if self.area is None else self.area[rows]
        return MaskCounts(self.both[rows], self.found[rows], self.true[rows], area)

    def of_class(self, k: int) -> "MaskCounts":
        """The counts of one class."""
        area = None if self.area is None else self.area[:, [k]]
        return MaskCounts(self.both[:, [k]], self.found[:, [k]], self.true[:, [k]], area)


def count_pixels(maps: Maps, masks: Masks, rows: Sequence[int] | NDArray[Any], resize: Resize) -> MaskCounts:
    """Compares predicted maps with true masks, at the size of the image files.

    Args:
        maps: Predictions of N rows.
        masks: True masks of the training table.
        rows: The N rows' positions in it.
        resize: How images were resized for the network.

    Raises:
        InputError: A map is of an image of another size.
    """
    shape = (len(maps), masks.num_classes)
    both, found = np.zeros((*shape, LEVELS), np.int64), np.zeros((*shape, LEVELS), np.int64)
    true, area = np.zeros(shape, np.int64), None if masks.ignored is None else np.zeros_like(found)

    def one(place: int) -> str:
        planes = masks.planes(int(rows[place]))
        if planes.shape[:2] != tuple(maps.sizes[place].tolist()):
            return f"{planes.shape[:2]} and {tuple(maps.sizes[place].tolist())}"
        for k, levels in enumerate(maps.decided(place, resize, masks.classes)):
            counts, mask = planes[..., k] != IGNORED, planes[..., k] > 0
            if area is not None:
                area[place, k] = level_counts(levels, mask)[:, 1]
                levels, mask = levels[counts], mask[counts]
            inside, every = level_counts(levels, mask).T
            both[place, k], found[place, k], true[place, k] = inside, every, mask.sum()
        return ""

    with ThreadPoolExecutor(threads := available_cores()) as pool:
        for place, problem in enumerate(in_order(pool, one, range(len(maps)), 4 * threads)):
            if problem:
                raise InputError(f"the image of row {rows[place]} had another size when it was predicted: {problem}.")
    return MaskCounts(both, found, true, area)
