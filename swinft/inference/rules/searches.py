"""Exact searches for thresholds and cut points on sorted predictions, as pure functions.

Shapes: N rows, K labels, G grades.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Bools = NDArray[np.bool_]
Gain = Callable[[Values], float]
Average = Literal["samples", "micro", "macro"]

MIDDLE = 0.5
BELOW, ABOVE = (float(np.nextafter(np.float32(MIDDLE), np.float32(end))) for end in (0, 1))
TRIED = 100  # thresholds that are scored where the metric is not known in closed form
MOST_ROUNDS = 20  # of a coordinate ascent
LEAST_GAIN = 1e-12


def shifted(values: Values, thresholds: Values | float) -> Values:
    """Probabilities (N, K), changed without a change of their order so that thresholds (K,) become 0.5.

    In float32 too, values of the threshold and more are above 0.5, and lower ones below it.
    """
    wanted = np.broadcast_to(np.asarray(thresholds, dtype=np.float64), values.shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = MIDDLE * values / wanted, 1 - MIDDLE * (1 - values) / (1 - wanted)
    high = np.where(wanted < 1, high, 1.0)
    return np.where(values >= wanted, np.maximum(high, ABOVE), np.minimum(low, BELOW))


def lifted(values: Values, chosen: Values) -> Values:
    """Probabilities (N, K) with that of the label of the largest `chosen` value above 0.5 in rows without any such."""
    rows = np.flatnonzero(values.max(1, initial=0) < MIDDLE)
    values = values.copy()
    values[rows, chosen[rows].argmax(1)] = ABOVE
    return values


@dataclass(frozen=True)
class F1:
    """The F1 score of labels.

    Args:
        average: Over rows, over all cells, or over labels.
        empty: The score of a row or a label that is neither present nor chosen.
        targets: Labels that are present, (N, K).
        weights: What each row counts, (N,).
        best: The most probable label of each row, (N,), which is chosen if no other is; None to choose none then.
    """

    average: Average
    empty: float
    targets: Bools
    weights: Values
    best: NDArray[np.int64] | None = None

    def of(self, chosen: Bools) -> float:
        """The score of labels (N, K)."""
        if self.best is not None:
            chosen = chosen.copy()
            rows = np.flatnonzero(~chosen.any(1))
            chosen[rows, self.best[rows]] = True
        both = chosen & self.targets
        if self.average == "samples":
            rows_f1 = self._f1(both.sum(1), chosen.sum(1), self.targets.sum(1))
            return float(np.average(rows_f1, weights=self.weights))
        sums = [self.weights @ each for each in (both, chosen, self.targets)]
        if self.average == "micro":
            sums = [each.sum() for each in sums]
        return float(np.mean(self._f1(*sums)))

    def sweep(self, chosen: Bools, k: int, order: NDArray[np.int64]) -> Values:
        """The scores if label k is chosen for the first n rows of an order, n from 0 to N, (N + 1,)."""
        if self.average == "macro":
            return self._sweep_macro(chosen, k, order)
        others, hits = chosen.sum(1) - chosen[:, k], (chosen & self.targets).sum(1) - (chosen & self.targets)[:, k]
        off_hits, off_chosen = hits.astype(float), others.astype(float)
        if self.best is not None:
            alone = others == 0
            off_chosen[alone] = 1
            off_hits[alone] = self.targets[alone, self.best[alone]]
        on_hits, on_chosen, wanted = hits + self.targets[:, k], others + 1, self.targets.sum(1)
        if self.average == "samples":
            off = self._f1(off_hits, off_chosen, wanted) * self.weights
            on = self._f1(on_hits, on_chosen, wanted) * self.weights
            samples: Values = _running(off, on, order) / self.weights.sum()
            return samples
        pairs = ((off_hits, on_hits), (off_chosen, on_chosen))
        hit, number = (_running(off * self.weights, on * self.weights, order) for off, on in pairs)
        return self._f1(hit, number, np.full(len(order) + 1, self.weights @ wanted))

    def _sweep_macro(self, chosen: Bools, k: int, order: NDArray[np.int64]) -> Values:
        if self.best is not None:
            return self._sweep_lifted(chosen, k, order, self.best)
        counts = self.weights[order]
        hits = np.append(0, np.cumsum(counts * self.targets[order, k]))
        own = self._f1(hits, np.append(0, np.cumsum(counts)), np.full(len(hits), self.weights @ self.targets[:, k]))
        others = [self.weights @ np.delete(each, k, 1) for each in (chosen & self.targets, chosen, self.targets)]
        total: Values = (own + self._f1(*others).sum()) / chosen.shape[1]
        return total

    def _sweep_lifted(self, chosen: Bools, k: int, order: NDArray[np.int64], best: NDArray[np.int64]) -> Values:
        """Macro F1 where label k is alone: without it the best label of a row is chosen, which may be another one."""
        on, off = chosen.copy(), chosen.copy()
        on[:, k], off[:, k] = True, False
        alone = np.flatnonzero(~off.any(1))
        off[alone, best[alone]] = True
        counts, change = self.weights[:, None], (on.astype(float) - off) * self.weights[:, None]
        hits, number = (
            (start * counts).sum(0) + np.concatenate([np.zeros((1, chosen.shape[1])), np.cumsum(more[order], 0)])
            for start, more in ((off & self.targets, change * self.targets), (off, change))
        )
        found: Values = self._f1(hits, number, self.weights @ self.targets).mean(1)
        return found

    def _f1(self, hits: Values, chosen: Values, wanted: Values) -> Values:
        total = np.asarray(chosen + wanted, dtype=np.float64)
        return np.where(total > 0, 2 * hits / np.where(total > 0, total, 1), self.empty)


def f1_kinds(targets: Bools, weights: Values, best: NDArray[np.int64]) -> Iterator[F1]:
    """All definitions of F1 that are known here."""
    averages: tuple[Average, ...] = ("samples", "micro", "macro")
    for average in averages:
        for empty in (0.0, 1.0):
            for chosen in (None, best):
                yield F1(average, empty, targets, weights, chosen)


def recognised(values: Values, targets: Values, gain: Gain, weights: Values) -> F1 | None:
    """The definition of F1 that a metric has, by its values for several thresholds; None for another metric."""
    if not np.isin(targets, (0, 1)).all() or not len(values):
        return None
    tried = [MIDDLE, *np.quantile(values, (0.2, 0.6, 0.9)).tolist()]
    wanted = [gain(shifted(values, threshold)) for threshold in tried]
    if len({*wanted}) < 2:
        return None  # nothing tells one definition from another
    for kind in f1_kinds(targets > MIDDLE, weights, values.argmax(1)):
        found = (kind.of(values >= threshold) for threshold in tried)
        if all(abs(one - other) < 1e-9 for one, other in zip(found, wanted, strict=True)):
            return kind
    return None


def f1_thresholds(values: Values, kind: F1, start: Values, searched: Bools) -> Values:
    """Thresholds (K,) of a maximum of F1 by coordinate ascent: each step is the best threshold of one label.

    Args:
        values: Probabilities (N, K).
        kind: The definition.
        start: Thresholds (K,), which labels that are not searched keep.
        searched: Labels whose threshold is searched, (K,).
    """
    thresholds = start.copy()
    orders = {k: np.argsort(-values[:, k], kind="stable") for k in np.flatnonzero(searched).tolist()}
    chosen = values >= thresholds
    best = kind.of(chosen)
    for _ in range(MOST_ROUNDS):
        before = best
        for k, order in orders.items():
            cuts = midpoints(values[order, k])
            gains = np.where(np.isnan(cuts), -math.inf, kind.sweep(chosen, k, order))
            if gains.max() > best + LEAST_GAIN:
                thresholds[k] = _nearest(cuts, gains, thresholds[k])
                chosen[:, k] = values[:, k] >= thresholds[k]
                best = kind.of(chosen)
        if best <= before + LEAST_GAIN:
            break
    return thresholds


def scored_thresholds(
    values: Values, gain: Gain, start: float, searched: Bools, changed: Callable[[Values, Values], Values]
) -> Values:
    """Thresholds (K,) by coordinate ascent on a metric, of up to `TRIED` thresholds of each label.

    Args:
        values: Probabilities (N, K).
        gain: The metric of predictions; higher is better.
        start: Threshold of all labels.
        searched: Labels whose threshold is searched, (K,).
        changed: Predictions and thresholds to what is scored.
    """
    thresholds = np.full(values.shape[1], start)
    best = gain(changed(values, thresholds))
    for _ in range(3):
        before = best
        for k in np.flatnonzero(searched).tolist():
            for cut in candidates(values[:, k]):
                tried = thresholds.copy()
                tried[k] = cut
                found = gain(changed(values, tried))
                if found > best + LEAST_GAIN:
                    best, thresholds = found, tried
        if best <= before + LEAST_GAIN:
            break
    return thresholds


def global_threshold(values: Values, gain: Callable[[float], float]) -> float:
    """One threshold for all labels: the best of up to `TRIED`, then of those between its neighbours; 0.5 wins a tie."""
    best, best_gain = MIDDLE, gain(MIDDLE)
    cuts = candidates(values.ravel())
    for _ in range(2):
        gains = [gain(float(cut)) for cut in cuts]
        if gains and max(gains) > best_gain + LEAST_GAIN:
            best, best_gain = _nearest(cuts, np.array(gains), best), max(gains)
        below, above = cuts[cuts < best].max(initial=0), cuts[cuts > best].min(initial=1)
        cuts = candidates(values[(values >= below) & (values <= above)])
    return float(best)


def candidates(values: Values) -> Values:
    """Up to `TRIED` thresholds between different values, in equal parts of the rows, ascending."""
    distinct = np.unique(values)
    cuts = (distinct[1:] + distinct[:-1]) / 2
    if len(cuts) > TRIED:
        wanted = np.quantile(values, (np.arange(TRIED) + 0.5) / TRIED)
        cuts = np.unique(cuts[np.clip(np.searchsorted(cuts, wanted), 0, len(cuts) - 1)])
    found: Values = cuts
    return found


def midpoints(ordered: Values) -> Values:
    """The threshold with which the first n of N descending values are at or above it, n from 0 to N.

    NaN where the values beside it are equal, or no such threshold is in 0–1.
    """
    cuts: Values = (np.append(1.0, ordered) + np.append(ordered, 0.0)) / 2
    cuts[(np.append(1.0, ordered) == np.append(ordered, 0.0))] = math.nan
    return cuts


def kappa_cuts(values: Values, grades: NDArray[np.int64], low: int, high: int, weights: Values) -> Values:
    """Cut points (G − 1,) with the highest quadratically weighted kappa that any cut points have.

    Kappa is 1 − a / b, with a the mean squared difference of grades and b that of independent draws. Both are sums over
    rows of a function of the row's grade, as the mean and the variance of the true grades are known. So the smallest
    a / b is found by Dinkelbach's method: the smallest a − λ b for the last λ, by dynamic programming over the sorted
    predictions. It ends at the global maximum.

    Args:
        values: Predictions (N,).
        grades: True grades (N,).
        low: Lowest grade.
        high: Highest grade.
        weights: What each row counts, (N,).
    """
    distinct, place = np.unique(values, return_inverse=True)
    count = np.bincount(place, weights)
    mean_of = np.bincount(place, weights * grades)
    squares = np.bincount(place, weights * grades**2.0)
    given = np.arange(low, high + 1, dtype=np.float64)[:, None]  # (G, 1)
    errors = given**2 * count - 2 * given * mean_of + squares  # (G, distinct)
    mean, square = np.average(grades, weights=weights), np.average(grades**2.0, weights=weights)
    by_chance = (given**2 - 2 * given * mean + square) * count
    ratio, ends = 1.0, np.zeros(high - low, dtype=np.int64)
    for _ in range(MOST_ROUNDS):
        ends = _segments(errors - ratio * by_chance)
        grade = np.searchsorted(ends, np.arange(len(distinct)), side="right")
        a, b = (each[grade, np.arange(len(distinct))].sum() for each in (errors, by_chance))
        if b <= 0 or a / b >= ratio - LEAST_GAIN:
            break
        ratio = a / b
    edges = np.concatenate([[distinct[0] - 1], (distinct[1:] + distinct[:-1]) / 2, [distinct[-1] + 1]])
    cuts: Values = edges[ends]
    return cuts


def _segments(costs: Values) -> NDArray[np.int64]:
    """How many of the ordered values are below each cut, (G − 1,), at the smallest sum of costs (G, N)."""
    sums = np.concatenate([np.zeros((len(costs), 1)), np.cumsum(costs, 1)], 1)  # of the first n values
    total, starts = sums[0], list[NDArray[np.int64]]()
    for own in sums[1:]:
        before = total - own  # the values from n on have this grade
        lowest = np.minimum.accumulate(before)
        starts.append(np.maximum.accumulate(np.where(before == lowest, np.arange(len(before)), 0)))
        total = lowest + own
    ends, place = [], costs.shape[1]
    for start in reversed(starts):
        place = int(start[place])
        ends.append(place)
    return np.array(ends[::-1], dtype=np.int64)


def with_best(kind: F1, values: Values) -> F1:
    """The same definition, with the most probable label where no other is chosen."""
    return replace(kind, best=values.argmax(1))


def _running(off: Values, on: Values, order: NDArray[np.int64]) -> Values:
    """The sums over all rows if the first n rows of an order are on and the rest are off, n from 0 to N."""
    sums: Values = off.sum() + np.append(0, np.cumsum((on - off)[order]))
    return sums


def _nearest(cuts: Values, gains: Values, wanted: float) -> float:
    """Of the thresholds with the highest gain, the one nearest to another."""
    best = cuts[gains >= gains.max() - LEAST_GAIN]
    return float(best[np.abs(best - wanted).argmin()])
