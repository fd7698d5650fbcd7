"""Fitted weights of classes, with which their probabilities are multiplied.

Shapes: N rows, K classes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from swinft.inference.rules.fitted import Score
from swinft.inference.rules.rule import Values
from swinft.inference.rules.searches import LEAST_GAIN, TRIED
from swinft.inference.rules.thresholds import BuiltinFittedRule
from swinft.ranges import check_whole

ENOUGH = 1e-4  # of the metric, in a round over all classes
FEWEST = 16  # weights that are tried of each of many classes
ROUNDS = 4  # of the coordinate ascent
FLOOR = 1e-12  # of a probability before its logarithm
LARGEST = 20.0  # logarithm of a weight
Chosen = NDArray[np.int64]


class ClassWeightsRule(BuiltinFittedRule):
    """Multiplies the probability of each class by a fitted weight, and divides each row by its sum.

    A coordinate ascent on the metric of the most probable class, from equal weights and from the inverse shares of the
    classes. Accuracy, balanced accuracy and macro F1 are computed without the metric, which is faster.

    Args:
        metric: Metric to fit for; null for the run's first one.
        min_positives: Classes with fewer rows keep the weight 1.
    """

    name = "class_weights"
    kinds = ("classification",)

    def __init__(self, metric: str | None = None, min_positives: int = 20) -> None:
        self._metric(metric)
        check_whole(self.name, "min_positives", min_positives, 0)
        self.min_positives = min_positives

    def fit(self, values: Values, targets: Values, rows: pd.DataFrame, score: Score) -> dict[str, Any]:
        """The weights, by class."""
        self._check_decides(score)
        counts = np.nansum(targets, 0)
        searched = counts >= max(self.min_positives, 1)
        equal = np.ones(len(counts))
        if not searched.any():
            return {"weights": dict(zip(self.outputs, equal.tolist(), strict=True))}
        inverse = np.where(searched, counts[searched].mean() / np.maximum(counts, 1), 1)
        gain = _gain_of(values, targets, score, (equal, inverse))
        logs = np.log(np.maximum(values, FLOOR))
        found = [_climbed(logs, np.log(start), gain, searched) for start in (equal, inverse)]
        weights = max([equal, *map(np.exp, found)], key=lambda each: score(weighted(values, each)))
        weights = weights / np.exp(np.log(weights).mean())
        return {"weights": dict(zip(self.outputs, weights.tolist(), strict=True))}

    def apply(self, values: Values, rows: pd.DataFrame) -> Values:
        """The weighted probabilities, which sum to 1."""
        return weighted(values, np.array(list(self.parameters["weights"].values())))


def weighted(values: Values, weights: Values) -> Values:
    """Probabilities (N, K) times weights (K,), divided by their sum."""
    changed = np.maximum(values, 0) * weights
    sums = changed.sum(1, keepdims=True)
    divided: Values = np.where(sums > 0, changed / np.where(sums > 0, sums, 1), values)
    return divided


@dataclass(frozen=True)
class Counts:
    """A metric of the chosen classes, from the numbers of rows of each class.

    Args:
        name: `accuracy`, `balanced` for the mean recall of the classes that rows have, `f1` for the mean F1 of the
            classes that rows have or get, `all_f1` for that of all classes.
        truth: Class of each row, (N,).
        weights: What each row counts, (N,).
        number: K.
    """

    name: str
    truth: Chosen
    weights: Values
    number: int

    def __call__(self, chosen: Chosen) -> float:
        """The metric of one class of each row, (N,)."""
        return float(self._metric(*self._sums(chosen))[0])

    def of_cuts(self, needed: Values, cuts: list[float], k: int, others: Chosen) -> list[float]:
        """The metric for each of C ascending cuts: of class k are the rows (N,) below it, the rest of other classes.

        Only what changes between two cuts is counted.
        """
        right, given = self._sums(others)
        step = np.searchsorted(cuts, needed, side="right")  # the first cut above it
        moved = step < len(cuts)
        place, weights, truth = step[moved] * self.number, self.weights[moved], self.truth[moved]
        size, shape = len(cuts) * self.number, (len(cuts), self.number)
        left, was_right = place + others[moved], others[moved] == truth
        lost = np.bincount(left, weights, size).reshape(shape)
        lost_right = np.bincount(left, weights * was_right, size).reshape(shape)
        lost[:, k] -= lost.sum(1)
        lost_right[:, k] -= np.bincount(step[moved], weights * (truth == k), len(cuts))
        found: list[float] = self._metric(right - lost_right.cumsum(0), given - lost.cumsum(0)).tolist()
        return found

    def _sums(self, chosen: Chosen) -> tuple[Values, Values]:
        """Weighted rows of each class (K,) that are right, and that get it."""
        return self._count(self.truth, self.weights * (chosen == self.truth)), self._count(chosen, self.weights)

    def _count(self, classes: Chosen, weights: Values) -> Values:
        return np.bincount(classes, weights, self.number).astype(np.float64)

    @cached_property
    def _wanted(self) -> Values:
        """Weighted rows of each class, (K,)."""
        return self._count(self.truth, self.weights)

    def _metric(self, right: Values, given: Values) -> Values:
        """The metric (C,) of sums (C, K), or of one row of them."""
        right, given = np.atleast_2d(right), np.atleast_2d(given)
        if self.name == "accuracy":
            accuracy: Values = right.sum(1) / self.weights.sum()
            return accuracy
        total, hits = (
            (self._wanted + 0 * given, right) if self.name == "balanced" else (self._wanted + given, 2 * right)
        )
        parts = np.where(total > 0, hits / np.where(total > 0, total, 1), 0)
        mean: Values = parts.sum(1) / (self.number if self.name == "all_f1" else (total > 0).sum(-1))
        return mean


def _gain_of(values: Values, targets: Values, score: Score, tried: tuple[Values, ...]) -> Callable[[Chosen], float]:
    """The metric as a function of the chosen classes (N,): one of `Counts` if it has the same values."""
    width = values.shape[1]
    tried = (*tried, np.linspace(0.5, 2, width), np.linspace(3, 0.3, width))
    wanted = [score(weighted(values, weights)) for weights in tried]
    chosen = [weighted(values, weights).argmax(1) for weights in tried]
    for name in ("accuracy", "balanced", "f1", "all_f1"):
        known = Counts(name, np.nan_to_num(targets).argmax(1), score.weights, width)
        if len({*wanted}) > 1 and all(abs(known(c) - w) < 1e-9 for c, w in zip(chosen, wanted, strict=True)):
            return known
    return lambda classes: score(np.eye(width)[classes])


def _climbed(logs: Values, start: Values, gain: Callable[[Chosen], float], searched: NDArray[np.bool_]) -> Values:
    """Logarithms of weights (K,): each step is the best weight of one class."""
    weights, best, rows = start.copy(), gain((logs + start).argmax(1)), np.arange(len(logs))
    first, second = _two_best(logs + start)
    most = max(FEWEST, TRIED * FEWEST // max(len(start), FEWEST))
    columns = np.ascontiguousarray(logs.T)
    for _ in range(ROUNDS):
        before = best
        for k in np.flatnonzero(searched).tolist():
            # The weight with which a row becomes one of class k: the metric changes only at these.
            others = np.where(first == k, second, first)
            needed = np.clip((logs[rows, others] + weights[others]) - columns[k], -LARGEST, LARGEST)
            cuts = _cuts(needed, weights[k], most)
            found, cut = max(zip(_gains(gain, needed, cuts, k, others), cuts, strict=True), default=(best, 0.0))
            if found > best + LEAST_GAIN:
                best, weights[k] = found, cut
                # Other rows keep their two best classes.
                limit = logs[rows, second] + weights[second]
                changed = np.flatnonzero((first == k) | (second == k) | (columns[k] + cut >= limit))
                first[changed], second[changed] = _two_best(logs[changed] + weights)
        if best <= before + ENOUGH:
            break
    return weights


def _gains(gain: Callable[[Chosen], float], needed: Values, cuts: list[float], k: int, others: Chosen) -> list[float]:
    """The metric for each cut; of metrics that are known, for all cuts at once."""
    if isinstance(gain, Counts):
        return gain.of_cuts(needed, cuts, k, others) if cuts else []
    return [gain(np.where(needed < cut, k, others)) for cut in cuts]


def _cuts(needed: Values, now: float, most: int) -> list[float]:
    """Weights of a class between those that rows need: for few to many rows, and for about as many as now."""
    ordered = np.sort(needed)
    own, last = max(int(np.searchsorted(ordered, now)), 1), len(ordered) - 1
    tried = np.concatenate([np.geomspace(1, max(last, 1), most // 2), own * np.geomspace(0.5, 2, most // 2)])
    places = np.unique(np.clip(np.rint(tried), 1, max(last, 1))).astype(int)
    low, high = ordered[places - 1], ordered[np.minimum(places, last)]
    cuts: list[float] = ((low + high) / 2)[low < high].tolist()
    return cuts


def _two_best(scores: Values) -> tuple[Chosen, Chosen]:
    """The positions of the largest and the second largest of each row, (N,)."""
    if scores.shape[1] < 2:
        return np.zeros(len(scores), np.int64), np.zeros(len(scores), np.int64)
    first = scores.argmax(1)
    rest = scores.copy()
    rest[np.arange(len(scores)), first] = -np.inf
    return first, rest.argmax(1)
