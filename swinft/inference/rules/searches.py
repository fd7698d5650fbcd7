"""Exact searches for thresholds and cut points on sorted predictions, as pure functions.

Shapes: N rows, K labels, G grades.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]
Bools = NDArray[np.bool_]
Gain = Callable[[Values], float]

MIDDLE = 0.5
BELOW, ABOVE = (float(np.nextafter(np.float32(MIDDLE), np.float32(end))) for end in (0, 1))
TRIED = 100  # thresholds that are scored where the metric is not known in closed form
MOST_ROUNDS = 20  # of a coordinate ascent
LEAST_GAIN = 1e-12
LARGE = 10_000_000  # predictions: of more, fewer thresholds are tried
FEWER = 20


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


def global_threshold(values: Values, gains_of: Callable[[Values], Sequence[float] | Values]) -> float:
    """One threshold for all labels: the best of up to `TRIED`, then of those between its neighbours; 0.5 wins a tie.

    Args:
        values: Probabilities.
        gains_of: The metric for each of some thresholds, in ascending order.
    """
    best, best_gain = MIDDLE, gains_of(np.array([MIDDLE]))[0]
    most = TRIED if values.size < LARGE else FEWER
    cuts = candidates(values.ravel(), most)
    for _ in range(2):
        gains = gains_of(cuts) if len(cuts) else []
        if len(gains) and max(gains) > best_gain + LEAST_GAIN:
            best, best_gain = nearest(cuts, np.array(gains), best), max(gains)
        below, above = cuts[cuts < best].max(initial=0), cuts[cuts > best].min(initial=1)
        cuts = candidates(values[(values >= below) & (values <= above)], most)
    return float(best)


def candidates(values: Values, most: int = TRIED) -> Values:
    """Some thresholds between different values, in equal parts of the rows, ascending."""
    distinct = np.unique(values)
    cuts = (distinct[1:] + distinct[:-1]) / 2
    if len(cuts) > most:
        wanted = np.quantile(values, (np.arange(most) + 0.5) / most)
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


def nearest(cuts: Values, gains: Values, wanted: float) -> float:
    """Of the thresholds with the highest gain, the one nearest to another."""
    best = cuts[gains >= gains.max() - LEAST_GAIN]
    return float(best[np.abs(best - wanted).argmin()])
