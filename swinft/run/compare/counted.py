"""Scores of resamples that are given as counts: how often each row was drawn.

Of metrics that are means over rows, and of areas under ROC curves, all resamples of a block are scored at once; of any
other metric one by one.

Whether a metric is a mean over rows is not looked up but tried, so that a custom one is fast as well: the scores of
single rows must give that of many rows.

Shapes: r resamples, N rows, K outputs.
"""

import copy
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from swinft.model.metrics import BuiltinMetric, Metric, mean_of_defined
from swinft.model.metrics.ranking import AUC, Gini, MeanColumnAUC, PartialAUC, area_above
from swinft.run.resamples import Counts

Array = NDArray[np.float64]
Score = Callable[[NDArray[np.int64]], float]  # of some rows, by their numbers; a row may come several times
Counted = Callable[[Counts], Array]  # counts (r, N) to scores (r,); NaN where the metric is undefined
TRIED_ROWS, TRIALS = 25, 3
ONCE = np.ones((1, 1))  # counts of rows that each come once
MetricOf = TypeVar("MetricOf", bound=Metric)


def counted(
    score: Score, metric: Metric, values: Array, targets: NDArray[Any], weights: Array | None, outputs: Sequence[str]
) -> Counted:
    """The fastest function that agrees with the metric.

    Args:
        score: The metric of some rows of the predictions.
        metric: The metric.
        values: The predictions (N, K).
        targets: Targets as the metric gets them.
        weights: What each row counts, (N,).
        outputs: Names of the outputs.
    """
    generator = np.random.default_rng(0)
    found = ranked_areas(metric, values, targets, weights, outputs)
    if found is None and isinstance(metric, BuiltinMetric) and not metric.columns:
        found = means(score, told(metric, outputs), values, targets, weights, generator)
    if found is not None and _agree(found, score, len(values), generator):
        return found
    return lambda counts: np.array([score(np.repeat(np.arange(len(each)), each.astype(np.int64))) for each in counts])


def told(metric: MetricOf, outputs: Sequence[str]) -> MetricOf:
    """A copy of a metric that knows the outputs, and no weights."""
    copied = copy.copy(metric)
    copied.outputs, copied.weights, copied.unseen = list(outputs), None, None
    return copied


def means(
    score: Score,
    metric: BuiltinMetric,
    values: Array,
    targets: NDArray[Any],
    weights: Array | None,
    generator: np.random.Generator,
) -> Counted | None:
    """Of a metric that is the mean over rows, or the root of the mean of squares; None of any other."""

    def of_rows(numbers: NDArray[np.int64]) -> Array:
        rows = [slice(number, number + 1) for number in numbers]
        return np.array([metric.compute(values[row], targets[row], None) for row in rows], dtype=np.float64)

    weight = np.ones(len(values)) if weights is None else weights
    used = np.flatnonzero(weight > 0)
    for power in (1, 2):
        for _ in range(TRIALS):
            some = generator.choice(used, min(TRIED_ROWS, len(used)), replace=False)
            try:
                alone, whole = of_rows(some), score(some)
            except Exception:  # some metrics need several rows
                return None
            if not np.isfinite(alone).all() or not _are_close(weighted_means(alone, power, weight[some], ONCE), whole):
                break
        else:
            losses = np.zeros(len(values))
            losses[used] = of_rows(used)
            return functools.partial(weighted_means, losses, power, weights)
    return None


def weighted_means(losses: Array, power: int, weights: Array | None, counts: Counts) -> Array:
    """Means (power 1) of losses (N,), or roots of the means of their squares (2)."""
    weighted = counts if weights is None else counts * weights
    total = weighted.sum(1)
    with np.errstate(all="ignore"):
        found: Array = (weighted @ losses**power / total) ** (1 / power)
    return found


def _are_close(found: Array | float, wanted: Array | float) -> bool:
    return bool(np.allclose(found, wanted, rtol=1e-9, atol=1e-12, equal_nan=True))


def _agree(fast: Counted, score: Score, rows: int, generator: np.random.Generator) -> bool:
    """Whether scores of counts are those of the metric, for all rows once and for resamples."""
    drawn = [np.arange(rows), *(generator.integers(rows, size=rows) for _ in range(TRIALS))]
    found = fast(np.stack([np.bincount(each, minlength=rows) for each in drawn]).astype(np.float64))
    return _are_close(found, np.array([score(np.sort(each)) for each in drawn]))


def ranked_areas(
    metric: Metric, values: Array, targets: NDArray[Any], weights: Array | None, outputs: Sequence[str]
) -> Counted | None:
    """Of metrics that are areas under ROC curves; None of any other, and where targets are missing or soft."""
    if targets.ndim == 2 and not np.isin(targets, (0, 1)).all():
        return None
    weight = np.ones(len(values)) if weights is None else weights
    if isinstance(metric, Gini | PartialAUC) and type(metric) in (Gini, PartialAUC):
        scores, is_positive, _ = told(metric, outputs).of_one(values, targets)
        curve = RankedColumn(scores, is_positive, weight)
        if isinstance(metric, PartialAUC):
            return functools.partial(curve.partial, least=metric.min_tpr)
        return lambda counts: 2 * curve.area(counts) - 1
    if type(metric) not in (AUC, MeanColumnAUC):
        return None
    places = [1] if isinstance(metric, AUC) and values.shape[1] == 2 else range(values.shape[1])
    labels = [targets == k if targets.ndim == 1 else targets[:, k] > 0.5 for k in places]
    columns = [RankedColumn(values[:, k], label, weight) for k, label in zip(places, labels, strict=True)]
    if len(columns) == 1:
        return columns[0].area
    return lambda counts: np.array([mean_of_defined(each) for each in np.stack([c.area(counts) for c in columns], 1)])


class RankedColumn:
    """Rows in the order of their scores, to draw the ROC curve of many resamples at once.

    Args:
        scores: Scores (N,).
        is_positive: Positive rows, bool (N,).
        weights: What each row counts, (N,).
    """

    def __init__(self, scores: Array, is_positive: NDArray[np.bool_], weights: Array) -> None:
        negative, positive = np.flatnonzero(~is_positive), np.flatnonzero(is_positive)
        self.negative = negative[np.argsort(scores[negative], kind="stable")]
        self.positive = positive[np.argsort(scores[positive], kind="stable")]
        own, others = scores[self.positive], scores[self.negative]
        self.low, self.high = (np.searchsorted(others, own, side) for side in ("left", "right"))
        self.first = np.searchsorted(own, np.unique(own))  # the first row of each distinct score
        self.weights = weights

    def _counted(self, counts: Counts) -> tuple[Array, Array]:
        """What the positive rows count, (r, P); and the sums of the lowest 0, 1, ... negative rows, (r, 1 + N − P)."""
        below = np.zeros((len(counts), len(self.negative) + 1))
        np.cumsum(counts[:, self.negative] * self.weights[self.negative], axis=1, out=below[:, 1:])
        return counts[:, self.positive] * self.weights[self.positive], below

    def area(self, counts: Counts) -> Array:
        """The area under each curve: the share of pairs in order, where ties count half; NaN without both classes."""
        counted, below = self._counted(counts)
        in_order = (counted * (below[:, self.low] + below[:, self.high])).sum(1) / 2
        pairs = counted.sum(1) * below[:, -1]
        return np.where(pairs > 0, in_order / np.where(pairs > 0, pairs, 1), math.nan)

    def partial(self, counts: Counts, least: float) -> Array:
        """The area between each curve and a true positive rate; NaN without both classes."""
        counted, below = self._counted(counts)
        totals, others = counted.sum(1), below[:, -1]
        is_defined = (totals > 0) & (others > 0)
        if not is_defined.any():
            return np.full(len(counts), math.nan)
        # From the highest score down: at each, first the corner below its rows, then that above them.
        of_score = np.add.reduceat(counted, self.first, axis=1)[:, ::-1]
        reached = np.cumsum(of_score, axis=1)
        over = others[:, None] - below[:, self.high[self.first][::-1]]
        with_ties = others[:, None] - below[:, self.low[self.first][::-1]]
        false = np.concatenate([np.stack([over, with_ties], 2).reshape(len(counts), -1), others[:, None]], 1)
        true = np.stack([reached - of_score, reached], 2).reshape(len(counts), -1)
        true = np.concatenate([true, totals[:, None]], 1)
        with np.errstate(all="ignore"):
            found = area_above(false / others[:, None], true / totals[:, None], least)
        return np.where(is_defined, found, math.nan)
