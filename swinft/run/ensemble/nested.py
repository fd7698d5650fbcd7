"""Honest scores of ensembles: each fold's rows by what was fitted on the rows of the other folds.

Shapes: M members, N rows, K outputs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.target.base import Target
from swinft.run.ensemble.method import Array, Fitted, Method, Rows
from swinft.run.resamples import Units, interval
from swinft.seeding import seed_for

# Rows that a search is fitted on to see what each member adds: of 20,000 rows and five folds it would be 16,000. The
# scores are of all rows.
FEW_ROWS = 2500
Scorer = Callable[[Array, NDArray[np.int64]], float]


@dataclass(frozen=True)
class Problem:
    """What an ensemble is made of: the rows that every member predicted out of fold.

    Args:
        names: Names of the members.
        members: Their out-of-fold predictions, (M, N, K).
        targets: Targets (N, K): 1 for the class of a row; NaN where missing.
        folds: Fold of each row, (N,).
        weights: What each row counts, (N,).
        target: The kind of target.
        score: The metric of predictions (n, K) of some rows, by their numbers (n,); NaN if it is undefined.
        higher_is_better: Its direction.
        compares_order: Whether it compares the order of rows only.
        groups: Group of each row, (N,), where the folds keep groups together.
        features: Metadata of the rows, (N, F).
        outputs: Names of the K outputs.
        by_columns: Columns of the table that the metric reads.
    """

    names: list[str]
    members: Array
    targets: Array
    folds: NDArray[np.int64]
    weights: Array
    target: Target
    score: Scorer
    higher_is_better: bool
    compares_order: bool = False
    groups: NDArray[Any] | None = None
    features: Array | None = None
    outputs: Sequence[str] = ()
    by_columns: Sequence[str] = ()

    @property
    def num_folds(self) -> int:
        """Number of folds that have rows."""
        return len(np.unique(self.folds))

    def gain(self, values: Array, rows: NDArray[np.int64] | None = None) -> float:
        """The metric, higher is better; minus infinity if it is undefined."""
        score = self.score(values, np.arange(len(self.folds)) if rows is None else rows)
        return -math.inf if math.isnan(score) else score if self.higher_is_better else -score

    def score_of(self, gain: float) -> float:
        """The metric of a gain, in its own direction; NaN if it is undefined."""
        return math.nan if math.isinf(gain) else gain if self.higher_is_better else -gain

    def rows(self, numbers: NDArray[np.int64]) -> Rows:
        """Some rows, to fit on."""
        features = None if self.features is None else self.features[numbers]
        given = (self.members[:, numbers], self.targets[numbers], self.weights[numbers])
        return Rows(*given, lambda values: self.gain(values, numbers), self.target, features)

    def without(self, member: int) -> "Problem":
        """The same without one member."""
        names = [name for position, name in enumerate(self.names) if position != member]
        return replace(self, names=names, members=np.delete(self.members, member, 0))

    def refusal(self, method: Method) -> str:
        """Why a method cannot be used; empty if it can."""
        if len(self.names) < method.fewest:
            return f"it combines at least {method.fewest} members"
        if method.is_fitted and self.num_folds < 2:
            return "one fold alone is scored: nothing could be fitted on other rows than those that it is scored on"
        return method.refusal(self.members, self.target, self.compares_order)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A member, or a method with what it learned.

    Args:
        name: Its name.
        values: Honest predictions, float32 (N, K): of a method, each fold's by the fit on the other folds.
        gain: Their score, higher is better.
        in_sample: The score of the fit on all rows, on these rows; None if nothing was fitted.
        fitted: What the method learned from all rows; None for a member.
    """

    name: str
    values: NDArray[np.float32]
    gain: float
    in_sample: float | None = None
    fitted: Fitted | None = None

    @property
    def is_member(self) -> bool:
        """Whether it is a member, and no method."""
        return self.fitted is None


def member_candidates(problem: Problem) -> list[Candidate]:
    """The members."""
    found = zip(problem.names, problem.members, strict=True)
    return [Candidate(name, values.astype(np.float32), problem.gain(values)) for name, values in found]


def evaluate(problem: Problem, method: Method) -> Candidate:
    """Fits a method on all rows, and on those outside each fold."""
    every = np.arange(len(problem.folds))
    fitted = method.fit(problem.rows(every))
    whole = predicted(method, fitted, problem, every)
    in_sample = problem.gain(whole.astype(np.float64)) if method.is_fitted else None
    values = nested_values(problem, method) if method.is_fitted else whole
    return Candidate(method.name, values, problem.gain(values.astype(np.float64)), in_sample, fitted)


def nested_values(problem: Problem, method: Method, seed: int | None = None) -> NDArray[np.float32]:
    """Each fold's rows by what was fitted on the rows of the other folds, float32 (N, K).

    Args:
        problem: The rows.
        method: The method.
        seed: Of `FEW_ROWS` that are drawn of those to fit on; None to fit on all of them.
    """
    values = np.empty(problem.members.shape[1:], dtype=np.float32)
    for fold in np.unique(problem.folds).tolist():
        inside = problem.folds == fold
        rows = np.flatnonzero(~inside)
        fitted = method.fit(
            problem.rows(rows if seed is None else _some(problem, rows, seed_for("few rows", seed, fold)))
        )
        values[inside] = predicted(method, fitted, problem, np.flatnonzero(inside))
    return values


def _some(problem: Problem, rows: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Some of the rows; all of them where the metric is undefined for these."""
    if len(rows) <= FEW_ROWS:
        return rows
    drawn = np.sort(np.random.default_rng(seed).choice(rows, FEW_ROWS, replace=False))
    is_defined = problem.gain(problem.members[:, drawn].mean(0), drawn) > -math.inf
    return drawn if is_defined else rows


def predicted(method: Method, fitted: Fitted, problem: Problem, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Predictions of some rows, float32 (n, K)."""
    features = None if problem.features is None else problem.features[rows]
    return combined(method, fitted, problem.members[:, rows], features, problem.target)


def combined(
    method: Method, fitted: Fitted, members: Array, features: Array | None, target: Target
) -> NDArray[np.float32]:
    """A method's predictions of any rows, float32 (N, K), valid for the kind of target."""
    values = method.apply(fitted, members, features)
    return (target.valid(values) if method.keeps_unit else values).astype(np.float32)


def leave_one_out(problem: Problem, method: Method, chosen: Candidate, seed: int) -> list[float]:
    """How much of the nested score each member adds: the score with all less that without it, (M,).

    A search is fitted on `FEW_ROWS` of the rows outside of each fold, the same ones with all members and without one.

    Args:
        problem: The rows.
        method: The method.
        chosen: Its scores with all members.
        seed: Seed of the ensemble.

    Returns:
        NaN where the method needs more members.
    """
    if len(problem.names) <= method.fewest:
        return [math.nan] * len(problem.names)
    every = [problem.without(member) for member in range(len(problem.names))]
    if not fits_few_rows(problem, method):
        return [chosen.gain - evaluate_gain(each, method) for each in every]
    whole = evaluate_gain(problem, method, seed)
    return [whole - evaluate_gain(each, method, seed) for each in every]


def fits_few_rows(problem: Problem, method: Method) -> bool:
    """Whether a method is fitted on a part of the rows to see what each member adds."""
    counts = np.unique(problem.folds, return_counts=True)[1]
    return method.is_search and len(problem.folds) - int(counts.min()) > FEW_ROWS


def evaluate_gain(problem: Problem, method: Method, seed: int | None = None) -> float:
    """The nested score of a method, higher is better; arguments as of `nested_values`."""
    if method.is_fitted:
        return problem.gain(nested_values(problem, method, seed).astype(np.float64))
    every = np.arange(len(problem.folds))
    return problem.gain(predicted(method, method.fit(problem.rows(every)), problem, every).astype(np.float64))


def differences(
    problem: Problem, candidates: Sequence[Candidate], reference: Candidate, count: int, seed: int
) -> list[tuple[float, float] | None]:
    """Intervals that hold 95 % of the resampled differences to a reference, higher is better.

    Args:
        problem: The rows.
        candidates: What is compared.
        reference: What it is compared with.
        count: Number of resamples; 0 for no intervals.
        seed: Seed of the ensemble.

    Returns:
        The interval of each candidate; None for the reference itself, and without defined differences.
    """
    gains = resampled_gains(problem, [reference, *candidates], count, seed)
    found = zip(candidates, gains[:, 1:].T, strict=True)
    return [None if each is reference else interval(own - gains[:, 0]) for each, own in found]


def resampled_gains(problem: Problem, candidates: Sequence[Candidate], count: int, seed: int) -> Array:
    """The scores of candidates on resampled rows, or groups of rows, which are the same for all of them.

    Args:
        problem: The rows.
        candidates: C candidates.
        count: Number of resamples.
        seed: Seed of the ensemble.

    Returns:
        Higher is better, (count, C); NaN where the metric is undefined.
    """
    generator = np.random.default_rng(seed_for("resampling", seed))
    units = Units.of(problem.groups, len(problem.folds))
    every, found = np.arange(units.rows), np.empty((count, len(candidates)))
    drawn = chain.from_iterable(units.resamples(generator, units.number, count))
    for each, counts in zip(found, drawn, strict=True):
        rows = np.repeat(every, counts.astype(np.int64))
        each[:] = [problem.gain(candidate.values[rows].astype(np.float64), rows) for candidate in candidates]
    found[~np.isfinite(found)] = np.nan
    return found


def correlations(members: Array) -> Array:
    """Pearson's correlation of the members' predictions, (M, M), after subtracting the mean of each output."""
    flat = (members - members.mean(1, keepdims=True)).reshape(len(members), -1)
    norms = np.linalg.norm(flat, axis=1)
    products: Array = flat @ flat.T / np.maximum(np.outer(norms, norms), np.finfo(np.float64).tiny)
    return products
