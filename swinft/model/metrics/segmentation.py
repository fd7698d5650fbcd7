"""Metrics of masks by name: means over images and classes, from counts of pixels."""

from collections.abc import Callable
from typing import Any

from swinft.model.metrics import pixel_counts
from swinft.model.metrics.base import Array, BuiltinMetric


class MaskMetric(BuiltinMetric):
    """Base of metrics of masks, which get counts of pixels."""

    kinds = ("segmentation",)
    higher_is_better = True
    gaps = "own"
    score: Callable[[Array, Array, Array | None], float]

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        return self.score(predictions, targets, self.weights)


class Dice(MaskMetric):
    """Dice coefficient of masks: the mean over images and classes; 1 where a mask is empty and predicted empty."""

    name = "dice"
    score = staticmethod(pixel_counts.dice)


class DiceOfPresent(MaskMetric):
    """Dice coefficient of the masks that are not both empty and predicted empty: the mean over images and classes."""

    name = "dice_of_present"
    score = staticmethod(pixel_counts.dice_of_present)


class PooledDice(MaskMetric):
    """Dice coefficient of the pixels of all images together; the mean over classes that are true or predicted."""

    name = "pooled_dice"
    score = staticmethod(pixel_counts.pooled_dice)


class IoU(MaskMetric):
    """Intersection over union of masks: the mean over images and classes; 1 where both are empty."""

    name = "iou"
    score = staticmethod(pixel_counts.iou)


class MAPOverIoU(MaskMetric):
    """Fraction of the thresholds 0.50, 0.55 … 0.95 that the IoU of a mask exceeds; the mean over images and classes.

    1 where a mask is empty and predicted empty, 0 where only one of both is.
    """

    name = "map_over_iou"
    score = staticmethod(pixel_counts.map_over_iou)
