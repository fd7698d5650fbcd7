"""What out-of-fold predictions say of scores on other rows: how the score of a private leaderboard will differ.

The out-of-fold score and the private score are of two samples of rows, and both are random. Their difference is
simulated: of each pair of resamples, one as large as all rows and one as large as the private split, both drawn from
the out-of-fold rows, the scores differ as the private score will differ from the out-of-fold score. The prediction is
the out-of-fold score plus these differences.

Resamples of few effective rows, such as 30 of a rare class, vary too little, as their own variance is an estimate: the
differences are stretched as Student's t is wider than the normal distribution. The degrees of freedom are those of the
variance of the rows' influences on the score, by their kurtosis.

Shapes: R resamples, M runs, N rows, U units (rows or groups of rows).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.run.compare.counted import Array, Counted
from swinft.run.resamples import Units

LEVEL = 0.9  # of the intervals of private scores
MOST_CELLS = 2**22  # of rows and classes, from which on rarity is computed class by class
MOST_UNITS = 1000  # whose influence is measured
LEAST_FREEDOM, MOST_FREEDOM = 2.0, 1e6


@dataclass(frozen=True)
class Outlook:
    """Scores of runs on resamples; gains are positive where a run is better.

    Args:
        observed: The runs' scores on all rows, (M,).
        whole: Their scores on resamples as large as all rows, (R, M); NaN where the metric is undefined.
        private: Their scores on resamples as large as the private split, (R, M).
        influences: What a unit more changes in each score, (u, M), of some units.
        weights: How many units each of these stands for, (u,).
        units: The number of units U.
        higher_is_better: Direction of the metric.
    """

    observed: Array
    whole: Array
    private: Array
    influences: Array
    weights: Array
    units: int
    higher_is_better: bool

    def scores(self, run: int) -> Array:
        """Simulated private scores of a run; those that are undefined are left out."""
        return self._predicted(np.eye(len(self.observed))[run])

    def gains(self, run: int, reference: int) -> Array:
        """Simulated private gains of a run over another one."""
        return self._predicted(self.difference(run, reference))

    def whole_gains(self, run: int, reference: int) -> Array:
        """Gains of a run over another one on resamples as large as all rows."""
        pair = [run, reference]
        found: Array = self.whole[:, pair] @ self.difference(run, reference)[pair]
        return found[np.isfinite(found)]

    def gain(self, run: int, reference: int) -> float:
        """The observed gain of a run over another one."""
        pair = [run, reference]
        return float(self.observed[pair] @ self.difference(run, reference)[pair])

    def best(self) -> Array:
        """How often each run is the best one of the simulated private splits, (M,)."""
        sign = 1 if self.higher_is_better else -1
        found = sign * (self.observed + self.private - self.whole)
        found = found[np.isfinite(found).all(1)]
        is_best = found == found.max(1, keepdims=True)
        shares: Array = (
            (is_best / is_best.sum(1, keepdims=True)).mean(0) if len(found) else np.full(len(found.T), np.nan)
        )
        return shares

    def difference(self, run: int, reference: int) -> Array:
        """The factors of the scores in the gain of a run over another one, (M,); all 0 for a run and itself."""
        places = np.eye(len(self.observed))
        found: Array = (places[run] - places[reference]) * (1 if self.higher_is_better else -1)
        return found

    def _predicted(self, factors: Array) -> Array:
        """Simulated values of a linear combination of the runs' private scores."""
        used = factors != 0  # an undefined score of another run does not matter
        change = (self.private - self.whole)[:, used] @ factors[used]
        change = change[np.isfinite(change)]
        if not len(change):
            return np.zeros(0)
        stretched: Array = change.mean() + self.stretch(factors) * (change - change.mean())
        return float(self.observed[used] @ factors[used]) + stretched

    def stretch(self, factors: Array) -> float:
        """How much wider Student's t is than the normal distribution, at the level of the intervals."""
        from scipy.special import ndtri, stdtrit

        used = factors != 0
        freedom = freedom_of(self.influences[:, used] @ factors[used], self.weights, self.units)
        quantile = (1 + LEVEL) / 2
        return float(stdtrit(freedom, quantile) / ndtri(quantile))


def freedom_of(influences: Array, weights: Array, units: int) -> float:
    """Degrees of freedom of a variance that is estimated by the mean square of influences, by Satterthwaite.

    Args:
        influences: Those of some units, (u,).
        weights: How many units each stands for, (u,).
        units: The number of all units.
    """
    known = np.isfinite(influences)
    found, counts = influences[known], weights[known]
    if not len(found):
        return LEAST_FREEDOM
    found = found - np.average(found, weights=counts)
    square = float(np.average(found**2, weights=counts))
    if square == 0:
        return MOST_FREEDOM
    kurtosis = float(np.average(found**4, weights=counts)) / square**2
    return min(MOST_FREEDOM, max(LEAST_FREEDOM, 2 * units / max(kurtosis - 1, 1e-6)))


def simulate(
    counted: Sequence[Counted],
    units: Units,
    private_rows: int,
    count: int,
    generator: np.random.Generator,
    higher_is_better: bool,
    rarity: Array | None = None,
    most_units: int = MOST_UNITS,
) -> Outlook:
    """Scores runs on resamples, which are the same for all of them.

    Args:
        counted: Of each run, the scores of resamples.
        units: What is drawn.
        private_rows: Rows of the private split.
        count: The number of resamples R.
        generator: Draws them.
        higher_is_better: Direction of the metric.
        rarity: How rare the target of each row is, (N,); None for unknown.
        most_units: How many units' influences are measured.
    """
    every = np.ones((1, units.rows))

    def scored(size: int) -> Array:
        blocks = units.resamples(generator, size, count)
        return np.concatenate([np.stack([each(block) for each in counted], 1) for block in blocks])

    chosen, weights = some_units(units, rarity, most_units, generator)
    return Outlook(
        observed=np.array([each(every)[0] for each in counted]),
        whole=scored(units.number),
        private=scored(units.size_of(private_rows)),
        influences=influences(counted, units, chosen),
        weights=weights,
        units=units.number,
        higher_is_better=higher_is_better,
    )


def rarity_of(targets: NDArray[Any]) -> Array:
    """How rare the target of each row is, (N,): its largest distance from the mean of a column, in deviations.

    Args:
        targets: Class indices (N,), or numbers or labels (N, K), NaN where missing.
    """
    if targets.ndim == 1 and len(targets) * (int(targets.max()) + 1) > MOST_CELLS:
        share = np.bincount(targets) / len(targets)
        spread = np.sqrt(share * (1 - share))
        spread = np.where(spread > 0, spread, 1)
        others = np.sort(np.append(share / spread, 0.0))[-2:]  # what the largest classes add to rows of any other
        by_class = np.maximum((1 - share) / spread, np.where(share / spread < others[-1], others[-1], others[0]))
        return np.asarray(by_class[targets])
    columns = np.eye(int(targets.max()) + 1)[targets] if targets.ndim == 1 else targets.astype(np.float64)
    columns = np.where(np.isnan(columns), np.nanmean(columns, 0), columns)
    spread = columns.std(0)
    found: Array = (np.abs(columns - columns.mean(0)) / np.where(spread > 0, spread, 1)).max(1)
    return found


def some_units(
    units: Units, rarity: Array | None, most: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], Array]:
    """Units whose influence is measured, (u,), and how many each stands for.

    The rarest ones are all among them, as a few may have most of the influence; of the others a random part.
    """
    number = units.number
    if number <= most:
        return np.arange(number), np.ones(number)
    rare = np.zeros(number)
    if rarity is not None:
        np.maximum.at(rare, np.arange(units.rows) if units.of_row is None else units.of_row, rarity)
    order = np.argsort(-rare, kind="stable")
    first = most // 2 if rarity is not None else 0
    others = generator.choice(order[first:], most - first, replace=False)
    weights = np.concatenate([np.ones(first), np.full(most - first, (number - first) / (most - first))])
    return np.concatenate([order[:first], others]), weights


def influences(counted: Sequence[Counted], units: Units, chosen: NDArray[np.int64]) -> Array:
    """What one unit more changes in each score, (u, M)."""
    of_row = np.arange(units.rows) if units.of_row is None else units.of_row
    base = np.array([each(np.ones((1, units.rows)))[0] for each in counted])
    at_once = max(1, 2_000_000 // units.rows)
    parts = []
    for start in range(0, len(chosen), at_once):
        counts = 1.0 + (chosen[start : start + at_once, None] == of_row[None])
        parts.append(np.stack([each(counts) for each in counted], 1) - base)
    return np.concatenate(parts)


def medal_chances(scores: Array, medals: Mapping[str, float], higher_is_better: bool) -> dict[str, float]:
    """The share of scores that reach each medal and no better one, and `any`.

    Args:
        scores: Simulated private scores.
        medals: The score from which each medal is won, the best medal first.
        higher_is_better: Direction of the metric.
    """
    found, taken = dict[str, float](), np.zeros(len(scores), dtype=bool)
    for name, threshold in medals.items():
        reached: NDArray[Any] = scores >= threshold if higher_is_better else scores <= threshold
        found[name] = float((reached & ~taken).mean()) if len(scores) else float("nan")
        taken |= reached
    return found | {"any": float(taken.mean()) if len(scores) else float("nan")}
