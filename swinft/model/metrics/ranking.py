"""Metrics of the order of the rows by their scores: areas under curves.

Shapes: N rows, K outputs.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from swinft.model.metrics.base import CLASSES, LABELS, Array, BuiltinMetric, check_binary, mean_of_defined
from swinft.model.metrics.one_class import OneClassMetric
from swinft.ranges import BELOW_ONE, NOT_NEGATIVE

Undefined = Literal["skip", "nan"]
Curve = Callable[[Array, Array, Array | None], float]


class OrderMetric(BuiltinMetric):
    """Base of metrics of the order of the rows."""

    higher_is_better = True
    wants_probabilities = True
    compares_order = True


class AUC(OrderMetric):
    """Area under the ROC curve: of the second class if there are two, else the one-vs-rest mean over classes.

    Classes that no row has, or that all rows have, are left out.
    """

    name = "auc"
    kinds = CLASSES

    def undefined_outputs(self, targets: Array) -> list[str]:
        """Classes that no row has, or that all have."""
        counts = np.bincount(targets, minlength=len(self.outputs)) if targets.ndim == 1 else np.zeros(0)
        return [name for name, count in zip(self.outputs, counts, strict=False) if not 0 < count < len(targets)]

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        if predictions.shape[1] == 2:
            return binary_auc(predictions[:, 1], targets == 1, self.weights)
        areas = [binary_auc(column, targets == k, self.weights) for k, column in enumerate(predictions.T)]
        return mean_of_defined(areas)


class ColumnMetric(OrderMetric):
    """Base of means over labels of an area, each over the rows that have the label's target.

    Args:
        undefined: What happens if a label's area is undefined, since no row has the label or all have it: `skip`
            leaves the label out of the mean, `nan` makes the score undefined.
    """

    kinds = LABELS
    gaps = "own"

    def __init__(self, undefined: Undefined = "skip") -> None:
        self.undefined = self._word("undefined", undefined, ("skip", "nan"))

    def undefined_outputs(self, targets: Array) -> list[str]:
        """Labels that no row has, or that all have."""
        known = [column[~np.isnan(column)] for column in targets.T]
        return [name for name, column in zip(self.outputs, known, strict=True) if not 0 < column.sum() < len(column)]

    def areas(self, predictions: Array, targets: Array, curve: Curve) -> Array:
        """The area of each label, (K,); NaN where it is undefined.

        Raises:
            InputError: A target is neither 0 nor 1.
        """
        check_binary(self.name, targets)
        found = []
        for scores, labels in zip(predictions.T, targets.T, strict=True):
            known = ~np.isnan(labels)
            weights = None if self.weights is None else self.weights[known]
            counts = known.any() and (weights is None or weights.any())
            found.append(curve(scores[known], labels[known] > 0.5, weights) if counts else math.nan)
        return np.array(found)

    def mean(self, areas: Array, weights: Array | None = None) -> float:
        """The weighted mean of areas; NaN if none is defined, or as `undefined` says."""
        used = np.ones(len(areas)) if weights is None else weights
        defined = ~np.isnan(areas) & (used > 0)
        if not defined.any() or (self.undefined == "nan" and not defined[used > 0].all()):
            return math.nan
        return float(np.mean(areas[defined]) if weights is None else np.average(areas[defined], weights=used[defined]))


class MeanColumnAUC(ColumnMetric):
    """Mean over labels of the area under the ROC curve; labels that no row has, or that all have, are left out.

    Args:
        undefined: What happens if a label's area is undefined: `skip` leaves it out of the mean, `nan` makes the score
            undefined.
    """

    name = "mean_column_auc"

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        return self.mean(self.areas(predictions, targets, binary_auc))


class WeightedAUC(ColumnMetric):
    """Weighted mean over labels of the area under the ROC curve.

    Args:
        weights: Weight of labels, from 0.
        others: Weight of each label that `weights` does not name.
        undefined: As for `mean_column_auc`.
    """

    name = "weighted_auc"

    def __init__(self, weights: dict[str, float], others: float = 1.0, undefined: Undefined = "skip") -> None:
        super().__init__(undefined)
        self.others = float(self._number("others", others, NOT_NEGATIVE))
        self.by_name = self._weights("weights", weights, self.others)

    def refusal(self, kind: str) -> str:
        """Unknown labels."""
        return self._unknown(list(self.by_name))

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        weights = np.array([self.by_name.get(name, self.others) for name in self.outputs])
        return self.mean(self.areas(predictions, targets, binary_auc), weights)


class MeanAveragePrecision(ColumnMetric):
    """Mean over labels of the average precision, the area under the precision-recall curve as steps.

    Labels that no row has, or that all have, are left out.

    Args:
        undefined: What happens if a label's area is undefined: `skip` leaves it out of the mean, `nan` makes the score
            undefined.
    """

    name = "mean_average_precision"

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        return self.mean(self.areas(predictions, targets, _average_precision))


class Gini(OrderMetric, OneClassMetric):
    """Normalised Gini coefficient of one class or label: 2·AUC − 1.

    Args:
        positive: The positive class or label; by default the only label, or the class 1, true or yes of two.
    """

    name = "gini"

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        return 2 * binary_auc(*self.of_one(predictions, targets)) - 1


class PartialAUC(OrderMetric, OneClassMetric):
    """Area between the ROC curve of one class or label and a least true positive rate; 0 to 1 − min_tpr.

    Args:
        min_tpr: The true positive rate above which the area is taken, in [0, 1).
        positive: The positive class or label; by default the only label, or the class 1, true or yes of two.
    """

    name = "partial_auc"

    def __init__(self, min_tpr: float = 0.8, positive: str | None = None) -> None:
        super().__init__(positive)
        self.min_tpr = float(self._number("min_tpr", min_tpr, BELOW_ONE))

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        rates = _roc(*self.of_one(predictions, targets))
        return math.nan if rates is None else float(area_above(*rates, self.min_tpr))


def binary_auc(scores: Array, is_positive: Array, weights: Array | None) -> float:
    """Area under the ROC curve of scores (N,); NaN if all rows are positive, or all negative."""
    if weights is None:
        # The fraction of pairs that are in order, by ranks: the same area, without scikit-learn's checks, which take
        # longer than the sum and matter to searches that score thousands of times.
        from scipy.stats import rankdata

        positive = int(is_positive.sum())
        pairs = positive * (len(scores) - positive)
        above = rankdata(scores)[is_positive].sum() - positive * (positive + 1) / 2
        return float(above / pairs) if pairs else math.nan
    from sklearn.metrics import roc_auc_score

    counts = weights > 0
    both = 0 < is_positive[counts].sum() < counts.sum()
    return float(roc_auc_score(is_positive, scores, sample_weight=weights)) if both else math.nan


def _average_precision(scores: Array, is_positive: Array, weights: Array | None) -> float:
    """Average precision of scores (N,); NaN if all rows are positive, or all negative."""
    from sklearn.metrics import average_precision_score

    counts = slice(None) if weights is None else weights > 0
    both = 0 < is_positive[counts].sum() < len(is_positive[counts])
    return float(average_precision_score(is_positive, scores, sample_weight=weights)) if both else math.nan


def _roc(scores: Array, is_positive: Array, weights: Array | None) -> tuple[Array, Array] | None:
    """False and true positive rates at every distinct score, from 0 to 1; None if one of the classes is missing."""
    counts = np.ones(len(scores)) if weights is None else weights
    order = np.argsort(-scores, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # tied scores are one point
    rates = []
    for side in (~is_positive, is_positive):
        found = np.cumsum((counts * side)[order])[last]
        if not found.size or found[-1] <= 0:
            return None
        rates.append(np.concatenate([[0.0], found / found[-1]]))
    return rates[0], rates[1]


def area_above(false_rates: Array, true_rates: Array, least: float) -> Array:
    """Area between curves of straight lines, (..., points), and a lower limit."""
    above, steps = true_rates - least, np.diff(false_rates)
    left, right = above[..., :-1], above[..., 1:]
    crosses = (left < 0) & (right > 0)  # of such a segment, only the triangle above the limit counts
    width = np.where(crosses, right / np.where(crosses, right - left, 1), 1) * steps
    found: Array = (width * (np.maximum(left, 0) + np.maximum(right, 0)) / 2).sum(-1)
    return found
