"""Metrics of segmentation masks: Dice, intersection over union, and their means, as pure functions.

They are computed from three counts of each pair of masks, so that the masks of a data set need not be in memory
together: pixels in both, in the predicted one, and in the true one.

Shapes: N pairs of masks.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))  # of the mean over intersections over union


def dice_of(counts: ArrayLike, both_empty: float = 1.0) -> NDArray[np.float64]:
    """Dice coefficient 2|A ∩ B| / (|A| + |B|) of each pair, float64 (N,).

    Args:
        counts: Pixels in both masks, in the predicted and in the true one, int (N, 3).
        both_empty: The value where both masks are empty; NaN to leave such pairs out of a mean.
    """
    both, given, wanted = _columns(counts)
    return _ratio(2 * both, given + wanted, both_empty)


def iou_of(counts: ArrayLike, both_empty: float = 1.0) -> NDArray[np.float64]:
    """Intersection over union of each pair, float64 (N,); arguments as for `dice_of`."""
    both, given, wanted = _columns(counts)
    return _ratio(both, given + wanted - both, both_empty)


def pooled_dice_of(counts: ArrayLike) -> float:
    """Dice coefficient of all pixels of all pairs together; NaN if all masks are empty."""
    both, given, wanted = _columns(counts)
    total = given.sum() + wanted.sum()
    return float(2 * both.sum() / total) if total else float("nan")


def map_over_iou_of(counts: ArrayLike, thresholds: Sequence[float] = THRESHOLDS) -> NDArray[np.float64]:
    """Fraction of thresholds that the intersection over union exceeds, for one mask per image; float64 (N,).

    1 where both masks are empty, 0 where one of them is.

    Args:
        counts: Pixels in both masks, in the predicted and in the true one, int (N, 3).
        thresholds: A threshold is passed only above it.
    """
    found: NDArray[np.float64] = (iou_of(counts)[:, None] > np.asarray(thresholds)).mean(1)
    return found


def _columns(counts: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    both, given, wanted = np.asarray(counts, np.float64).reshape(-1, 3).T
    return both, given, wanted


def _ratio(above: NDArray[Any], below: NDArray[Any], both_empty: float) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.where(below > 0, above / np.where(below > 0, below, 1), both_empty)
    return found
