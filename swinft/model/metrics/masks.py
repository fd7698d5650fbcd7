"""Metrics of segmentation masks: Dice, intersection over union, and their means, as pure functions.

Masks are bool arrays of any shape, the same for both. `overlap` makes three counts of a pair of masks, from
which every score of one mask per image is computed, so that the masks of a data set need not be in memory together.

Shapes: N pairs of masks, P predicted and T true objects of one image.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from swinft.errors import InputError

Mask = NDArray[np.bool_]
Counts = NDArray[np.int64]
THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))  # of the mean over intersections over union


def overlap(predicted: ArrayLike, true: ArrayLike) -> Counts:
    """Pixels of a pair of masks: in both, in the predicted one, in the true one; int64 (3,).

    Args:
        predicted: Mask, bool or 0 and 1.
        true: Mask of the same shape.

    Raises:
        InputError: The shapes differ.
    """
    given, wanted = np.asarray(predicted).astype(bool), np.asarray(true).astype(bool)
    if given.shape != wanted.shape:
        raise InputError(f"a predicted mask is {given.shape}, and the true one {wanted.shape}: resize it first.")
    return np.array([np.count_nonzero(given & wanted), np.count_nonzero(given), np.count_nonzero(wanted)], np.int64)


def dice_of(counts: ArrayLike, both_empty: float = 1.0) -> NDArray[np.float64]:
    """Dice coefficient 2|A ∩ B| / (|A| + |B|) of each pair, float64 (N,).

    Args:
        counts: What `overlap` returns, int (N, 3).
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
        counts: What `overlap` returns, int (N, 3).
        thresholds: A threshold is passed only above it.
    """
    found: NDArray[np.float64] = (iou_of(counts)[:, None] > np.asarray(thresholds)).mean(1)
    return found


def object_precision(ious: ArrayLike, thresholds: Sequence[float] = THRESHOLDS) -> float:
    """Mean over thresholds of TP / (TP + FP + FN), for several objects in one image.

    Args:
        ious: Intersection over union of each predicted with each true object, float (P, T). The objects of a side do
            not overlap, so that from 0.5 each matches at most one.
        thresholds: An object is found only above a threshold; from 0.5.

    Returns:
        1 if there is no object on either side.

    Raises:
        InputError: A threshold is below 0.5.
    """
    if min(thresholds) < 0.5:
        raise InputError(f"thresholds are {list(thresholds)}; from 0.5, where an object matches at most one other.")
    values = np.asarray(ious, np.float64)
    objects = sum(values.shape)
    if not objects:
        return 1.0
    found = np.array([np.count_nonzero(values > threshold) for threshold in thresholds])
    return float((found / (objects - found)).mean())


def dice(predicted: ArrayLike, true: ArrayLike, both_empty: float = 1.0) -> float:
    """Dice coefficient of one pair of masks; arguments as for `overlap` and `dice_of`."""
    return float(dice_of(overlap(predicted, true)[None], both_empty)[0])


def map_over_iou(predicted: ArrayLike, true: ArrayLike, thresholds: Sequence[float] = THRESHOLDS) -> float:
    """The same as `map_over_iou_of`, for one pair of masks."""
    return float(map_over_iou_of(overlap(predicted, true)[None], thresholds)[0])


def _columns(counts: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    both, given, wanted = np.asarray(counts, np.float64).reshape(-1, 3).T
    return both, given, wanted


def _ratio(above: NDArray[Any], below: NDArray[Any], both_empty: float) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.where(below > 0, above / np.where(below > 0, below, 1), both_empty)
    return found
