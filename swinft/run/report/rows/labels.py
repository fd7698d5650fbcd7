"""Rows whose labels look wrong, by out-of-fold predictions: confident learning for classes, residuals for numbers.

Shapes: N rows, K outputs.
"""

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swinft.data.target.base import Target
from swinft.errors import InputError
from swinft.run.rounds.noise import label_quality, suspicious

Array = NDArray[np.float64]
MOST_CELLS = 2**26  # predictions of classes: confident learning has some copies of them in float64
LIKELY = 0.5
MANY = "Labels with a predicted probability below 0.5: of so many rows and {:,} classes, nothing else is computed."
OUTLIER = 3.5  # modified z-score from which a residual is an outlier: Iglewicz and Hoaglin, 1993
NORMAL = 1.4826  # standard deviation of a normal distribution, in its median absolute deviations


@dataclass(frozen=True)
class LabelIssues:
    """Labels that look wrong.

    Args:
        quality: Of each row's label, in 0–1, low is bad, (N,); NaN of rows that lack a target.
        rows: Positions of rows whose labels look wrong, the worst first, int64 (m,).
        output: The label or number of each row that looks wrong most, int64 (N,); None of classes.
        method: How they were found, as a sentence.
    """

    quality: Array
    rows: NDArray[np.int64]
    output: NDArray[np.int64] | None
    method: str


def label_issues(target: Target, given: NDArray[np.number], predicted: NDArray[np.float32]) -> LabelIssues | None:
    """Finds labels that look wrong; None for soft targets, shares and masks, whose labels are no single answers.

    Args:
        target: The kind of target.
        given: Targets: int64 (N,) classes, or float (N, K); −1 or NaN where missing.
        predicted: Out-of-fold predictions (N, K).
    """
    if target.is_soft or target.are_maps or (not target.are_classes and has_shares(target, given)):
        return None
    flat = given.reshape(len(given), -1)
    is_there = np.isfinite(predicted).all(1) & ~(flat < 0 if target.are_classes else np.isnan(flat)).any(1)
    there = np.flatnonzero(is_there)
    quality = np.full(len(given), np.nan)
    if not len(there):
        return LabelIssues(quality, there, None, "No row has a label and a prediction.")
    if predicted.size > MOST_CELLS and target.are_classes:
        own_class = predicted[there, given[there].astype(np.int64)].astype(np.float64)
        quality[there] = own_class / np.array([predicted[row].clip(0, 1).sum(dtype=np.float64) for row in there])
        order = there[np.argsort(quality[there], kind="stable")]
        return LabelIssues(quality, order[quality[order] < LIKELY], None, MANY.format(len(predicted[0])))
    own, values = given[there], predicted[there].astype(np.float64)
    quality[there] = label_quality(target, own, values)
    if not target.are_probabilities:
        scores = robust_scores(np.asarray(values - own, dtype=np.float64))
        order = np.argsort(-scores.max(1), kind="stable")
        found, output = order[scores.max(1)[order] > OUTLIER], scores.argmax(1)
        method = (
            f"Residuals with a modified z-score above {OUTLIER}: their distance from the median residual, divided by "
            f"{NORMAL} median absolute deviations."
        )
    else:
        output = None if target.are_classes else np.where(own > 0.5, values, 1 - values).argmin(1)
        found, method = _confident(target, own, values, quality[there])
    places = np.zeros(len(given), dtype=np.int64)
    places[there] = 0 if output is None else output
    return LabelIssues(quality, there[found], None if output is None else places, method)


def _confident(
    target: Target, given: NDArray[np.number], values: Array, quality: Array
) -> tuple[NDArray[np.int64], str]:
    """Positions of issues of classes and labels, the worst first, and how they were found."""
    try:
        with warnings.catch_warnings():  # of classes with few rows, in which it may find fewer issues
            warnings.simplefilter("ignore")
            return suspicious(target, given, values, None)[0], "Confident learning by cleanlab (Northcutt et al. 2021)."
    except InputError as error:
        order = np.argsort(quality, kind="stable")
        return order[quality[order] < LIKELY], f"Labels with a predicted probability below 0.5. {error}"


def has_shares(target: Target, given: NDArray[np.number]) -> bool:
    """Whether targets of labels are not all 0 or 1, as those of a custom kind may be; NaN is a missing one."""
    return target.are_probabilities and not bool((np.isin(given, (0, 1)) | np.isnan(given)).all())


def robust_scores(residuals: Array) -> Array:
    """The modified z-score of each residual (N, K): how many robust standard deviations it is off the median."""
    distance = np.abs(residuals - np.median(residuals, axis=0))
    scale = NORMAL * np.median(distance, axis=0)
    # Of an output whose most predictions are exact, the mean distance is the scale, as its authors advise.
    scale = np.where(scale > 0, scale, 1.253314 * distance.mean(0))
    found: Array = distance / np.where(scale > 0, scale, 1)
    return found
