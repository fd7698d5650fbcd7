"""Metrics of segmentation by name, and the counts of pixels that they are computed from.

They get, for each image and class, the pixels that are predicted and true, and those that are predicted: float64
(N, K, 2); and as targets those that are true, (N, K).

Shapes: N images, K classes, (H, W) image size.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.model.metrics.masks import dice_of, iou_of, map_over_iou_of, pooled_dice_of

Array = NDArray[Any]
THRESHOLD = 0.5  # probability from which a pixel is in a mask, until another is fitted
AT_A_TIME = 2**20  # pixels: NumPy counts in 8 bytes a pixel, which for a large image and many threads is much
LEVELS = 256  # of stored probabilities: 255 is 1


def dice(predictions: Array, targets: Array, weights: Array | None = None) -> float:
    """Dice coefficient of masks: the mean over images and classes; 1 where a mask is empty and predicted empty."""
    return _mean(dice_of(_counts(predictions, targets)), targets, weights)


def dice_of_present(predictions: Array, targets: Array, weights: Array | None = None) -> float:
    """The same over the masks that are not both empty and predicted empty."""
    scores = dice_of(_counts(predictions, targets), math.nan)
    shares = np.repeat(np.ones(len(targets)) if weights is None else weights, targets.shape[1])
    counted = ~np.isnan(scores) & (shares > 0)
    return float(np.average(scores[counted], weights=shares[counted])) if counted.any() else math.nan


def pooled_dice(predictions: Array, targets: Array, weights: Array | None = None) -> float:
    """Dice coefficient of the pixels of all images together; the mean over classes that are true or predicted."""
    shares = np.ones(len(targets)) if weights is None else weights
    counts = _counts(predictions, targets).reshape(*targets.shape, 3) * shares[:, None, None]
    scores = [pooled_dice_of(counts[:, k]) for k in range(targets.shape[1])]
    defined = [score for score in scores if not math.isnan(score)]
    return float(np.mean(defined)) if defined else math.nan


def iou(predictions: Array, targets: Array, weights: Array | None = None) -> float:
    """Intersection over union of masks: the mean over images and classes; 1 where both are empty."""
    return _mean(iou_of(_counts(predictions, targets)), targets, weights)


def map_over_iou(predictions: Array, targets: Array, weights: Array | None = None) -> float:
    """Fraction of the thresholds 0.50, 0.55 … 0.95 that the IoU of a mask exceeds; the mean over images and classes.

    1 where a mask is empty and predicted empty, 0 where only one of both is.
    """
    return _mean(map_over_iou_of(_counts(predictions, targets)), targets, weights)


def level_counts(levels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Pixels of at least each level that are in a mask, and all of them, int64 (256, 2).

    Args:
        levels: Probabilities as levels, (H, W).
        mask: True pixels, (H, W).
    """
    found = np.zeros((LEVELS, 2), np.int64)
    flat, is_inside = levels.ravel(), mask.ravel()
    for start in range(0, len(flat), AT_A_TIME):
        part = flat[start : start + AT_A_TIME]
        for column, chosen in enumerate((part[is_inside[start : start + AT_A_TIME]], part)):
            found[:, column] += np.bincount(chosen, minlength=LEVELS)
    return found[::-1].cumsum(0)[::-1]


def level_of(threshold: float) -> int:
    """The lowest level whose probability is at least a threshold."""
    return math.ceil(threshold * (LEVELS - 1) - 1e-9)


def _counts(predictions: Array, targets: Array) -> Array:
    """Pixels in both masks, in the predicted and in the true one, of every image and class, (N · K, 3)."""
    return np.concatenate([predictions, targets[..., None]], axis=2).reshape(-1, 3)


def _mean(scores: Array, targets: Array, weights: Array | None) -> float:
    """Mean over images and classes of scores (N · K,); images count by their weights."""
    return float(np.average(scores.reshape(targets.shape).mean(1), weights=weights))
