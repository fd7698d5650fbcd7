"""Metrics of the most probable class, or of the most probable ones.

Shapes: N rows, K classes.
"""

import math
from typing import Any

import numpy as np

from swinft.errors import InputError
from swinft.model.grades import to_grades
from swinft.model.metrics.base import CLASSES, NUMBERS, Array, BuiltinMetric, row_blocks
from swinft.model.metrics.one_class import OneClassMetric
from swinft.ranges import COUNT, FINITE, POSITIVE, UNIT


class ClassMetric(BuiltinMetric):
    """Base of metrics of the most probable class."""

    kinds = CLASSES
    higher_is_better = True
    takes_float32 = True  # only the order of a row's values counts


class Accuracy(ClassMetric):
    """Fraction of rows whose most probable class is correct."""

    name = "accuracy"

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        return float(np.average(predictions.argmax(1) == targets, weights=self.weights))


class BalancedAccuracy(ClassMetric):
    """Mean over the classes that some row has of the fraction of their rows whose most probable class is correct."""

    name = "balanced_accuracy"

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        counts = np.ones(len(targets)) if self.weights is None else self.weights
        size = predictions.shape[1]
        found = np.bincount(targets, counts * (predictions.argmax(1) == targets), size)
        of_class = np.bincount(targets, counts, size)
        return float((found[of_class > 0] / of_class[of_class > 0]).mean())


class MatthewsCorrelation(ClassMetric):
    """Matthews correlation of the most probable class. Undefined if truth or prediction is one class only."""

    name = "mcc"

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        counts = np.ones(len(targets)) if self.weights is None else self.weights
        size, given = predictions.shape[1], predictions.argmax(1)
        wanted, answered = np.bincount(targets, counts, size), np.bincount(given, counts, size)
        total, right = counts.sum(), counts[given == targets].sum()
        spread = (total**2 - wanted @ wanted) * (total**2 - answered @ answered)
        return float((right * total - wanted @ answered) / math.sqrt(spread)) if spread > 0 else math.nan


class QuadraticKappa(BuiltinMetric):
    """Quadratically weighted kappa of the most probable class, or of grades; the mean over target columns.

    Numbers are converted to grades as in a submission: rounded, and clipped to the range in the training table. The
    grade of a class is the number in its name, or its position in `data.columns.class_order`.
    """

    name = "quadratic_kappa"
    kinds = (*CLASSES, *NUMBERS)
    higher_is_better = True
    scores_grades = True

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        if targets.ndim == 1:
            values = np.arange(predictions.shape[1]) if self.grades is None else self.grades
            return _kappa(values[predictions.argmax(1)], values[targets], self.weights)
        low, high = (targets.min(0), targets.max(0)) if self.grades is None else self.grades
        columns = zip(to_grades(predictions, low, high).T, np.rint(targets).T, strict=True)
        return float(np.mean([_kappa(given, wanted, self.weights) for given, wanted in columns]))


class F1(OneClassMetric):
    """F1 of one class or label: 2TP / (2TP + FP + FN); 0 if no row has or gets it.

    Args:
        positive: The positive class or label; by default the only label, or the class 1, true or yes of two.
        threshold: The probability from which a row is positive, in 0–1; by default the most probable class counts, and
            for a label `submission.threshold`, 0.5.
        beta: Weight of recall against precision, above 0: 2 for F2.
    """

    name = "f1"
    higher_is_better = True

    def __init__(self, positive: str | None = None, threshold: float | None = None, beta: float = 1.0) -> None:
        super().__init__(positive)
        self.threshold = None if threshold is None else self._number("threshold", threshold, UNIT)
        self.beta = float(self._number("beta", beta, POSITIVE))

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        scores, is_positive, weights = self.of_one(predictions, targets)
        if self.threshold is None and targets.ndim == 1:
            place = self._position(self.outputs or ["0", "1"])
            chosen = predictions.argmax(1) == place
        else:
            chosen = scores >= (0.5 if self.threshold is None else self.threshold)
        counts = np.ones(len(scores)) if weights is None else weights
        both, given, wanted = (counts[each].sum() for each in (chosen & is_positive, chosen, is_positive))
        return float((1 + self.beta**2) * both / (given + self.beta**2 * wanted)) if both else 0.0


class TopKAccuracy(ClassMetric):
    """Fraction of rows whose class is among the k most probable ones.

    Args:
        k: How many classes count, from 1. Of equally probable ones the first by the order of the classes come first.
    """

    name = "top_k_accuracy"
    wants_probabilities = True

    def __init__(self, k: int = 5) -> None:
        self.k = self._number("k", k, COUNT, whole=True)

    def refusal(self, kind: str) -> str:
        """As many classes as there are."""
        count = len(self.outputs)
        if not 0 < count <= self.k:
            return ""
        fix = f"set k to {count - 1} or fewer" if count > 2 else "use accuracy"
        return f"of {count} classes the true one is always among the {self.k} most probable ones: {fix}."

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        return float(np.average(ranks_of(predictions, targets) <= self.k, weights=self.weights))


class MAPAtK(ClassMetric):
    """Mean of 1 / rank of the class among the k most probable ones, 0 if it is not among them (MAP@k).

    Args:
        k: How many classes are answered, from 1. Of equally probable ones the first by the order of the classes come
            first.
        new: Answer for a class that is in no training row, such as `new_whale`. It ranks below every class of a
            probability of `threshold` or more, and above the others. A held-out row whose class no training row of its
            fold has counts as new, so that a threshold can be chosen on out-of-fold predictions.
        threshold: See `new`; null for 0.5, to which the rule `new_class` moves a fitted one.
    """

    name = "map_at_k"
    wants_probabilities = True

    def __init__(self, k: int = 5, new: str | None = None, threshold: float | None = None) -> None:
        self.k = self._number("k", k, COUNT, whole=True)
        self.new = None if new is None else self._name("new", new)
        self.threshold = None if threshold is None else float(self._number("threshold", threshold, FINITE))
        if new is None and threshold is not None:
            raise InputError("map_at_k: threshold is for the answer `new`. Give both of them, or none.")
        self.threshold = 0.5 if new is not None and threshold is None else self.threshold

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        if self.threshold is None:
            ranks = ranks_of(predictions, targets)
        else:
            unseen = np.zeros(len(targets), dtype=bool) if self.unseen is None else self.unseen.astype(bool)
            blocks = row_blocks(len(targets), predictions.shape[1])
            ranks = np.concatenate(
                [ranks_of(*self._with_new(predictions[rows], targets[rows], unseen[rows])) for rows in blocks]
            )
        return float(np.average(np.where(ranks <= self.k, 1 / ranks, 0), weights=self.weights))

    def _with_new(self, predictions: Array, targets: Array, is_new: Array) -> tuple[Array, Array]:
        """Predictions and targets with the new class as the last one, of a probability that is the threshold."""
        last = predictions.shape[1]
        constant = np.full((len(predictions), 1), self.threshold)
        if (
            self.new is not None and self.new in self.outputs
        ):  # the training table has the class, too: it ranks by the threshold alone
            place = list(self.outputs).index(self.new)
            is_new = is_new | (targets == place)
            predictions = predictions.copy()
            predictions[:, place] = -math.inf
        return np.concatenate([predictions, constant], axis=1), np.where(is_new, last, targets)


def ranks_of(predictions: Array, targets: Array) -> Array:
    """Rank of each row's class by its probability, from 1, int64 (N,); the first of equal ones comes first."""
    found = []
    for rows in row_blocks(len(targets), predictions.shape[1]):
        values, wanted = predictions[rows], targets[rows]
        own = values[np.arange(len(wanted)), wanted][:, None]
        earlier = np.arange(values.shape[1]) < wanted[:, None]
        found.append(1 + ((values > own) | ((values == own) & earlier)).sum(1))
    return np.concatenate(found)


def _kappa(given: Array, wanted: Array, weights: Array | None) -> float:
    """1 minus the ratio of the mean squared difference of grades (N,) to that expected by chance.

    It needs no confusion matrix. NaN if all grades are the same: no difference is expected by chance.
    """
    if weights is not None:
        # The mean squared distance of two independent draws: variances, and the distance of the means.
        both = np.stack([given, wanted], 1)
        means = np.average(both, 0, weights)
        by_chance = np.average((both - means) ** 2, 0, weights).sum() + (means[0] - means[1]) ** 2
        return float(1 - np.average((given - wanted) ** 2, 0, weights) / by_chance) if by_chance > 0 else math.nan
    by_chance = given.var() + wanted.var() + (given.mean() - wanted.mean()) ** 2
    return float(1 - np.square(given - wanted).mean() / by_chance) if by_chance > 0 else math.nan
