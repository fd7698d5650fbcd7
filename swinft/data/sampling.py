"""Samplers: which training rows an epoch visits, in which order, as a pure function of seed and epoch.

Shapes: n training rows of a fold, K outputs.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from swinft.data.schema import Schema
from swinft.data.tables.numbers import weights
from swinft.data.tables.table import DataError, Problem, Table
from swinft.errors import InputError, listed, number_of, suggest
from swinft.ranges import POSITIVE, UNIT, check_ranges

SamplerName = Literal["balanced", "ratio"]


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """The training rows of a fold, as a sampler sees them, at positions 0 to n − 1.

    Args:
        targets: int64 (n,) for classification, float32 (n, K) otherwise, in the competition's units.
        schema: Names of the outputs and the kind of target.
        table: The training table.
        rows: Positions of the n rows in it, int64 (n,).
    """

    targets: NDArray[Any]
    schema: Schema
    table: Table
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def column(self, name: str) -> list[str]:
        """The cells of any column of the training table, n texts.

        Raises:
            InputError: There is no such column.
        """
        if name not in self.table.columns:
            raise InputError(f"{self.table.path} has no column '{name}'.{suggest(name, self.table.columns)}")
        cells = self.table.column(name)
        return [cells[row] for row in self.rows.tolist()]

    def weights(self, name: str) -> NDArray[np.float64]:
        """A column of the training table as weights: n numbers from 0, not all of them 0.

        Raises:
            InputError: There is no such column.
            DataError: A cell is no number from 0; all of them are listed, with their lines.
        """
        self.column(name)
        problems: list[Problem] = []
        found = weights(self.table.only([name]).take(self.rows), name, problems)
        if problems:
            raise DataError(problems)
        return found.astype(np.float64)

    @property
    def are_classes(self) -> bool:
        """Whether each row has one class."""
        return self.targets.ndim == 1

    @property
    def are_labels(self) -> bool:
        """Whether each row has any number of labels."""
        return self.targets.ndim == 2 and self.schema.target.are_probabilities


class Sampler(ABC):
    """Chooses the training rows that an epoch visits, and their order, before they are split among ranks.

    The result must depend only on the arguments and the sampler's settings, so that a resumed run and all ranks get the
    same order. A row may occur several times; each time it is augmented differently.
    """

    corrects_prior: bool = False
    """Whether training corrects for the class frequencies of the sampler: the loss adds the change of the log odds to
    the logits, so that predicted probabilities are for the frequencies of the table."""

    @abstractmethod
    def order(self, rows: TrainingRows, epoch: int, numbers: np.random.Generator) -> NDArray[np.int64]:
        """Positions among the n rows, in the order in which the epoch visits them.

        Args:
            rows: The rows that the fold trains on.
            epoch: From 0; with `data.loading.virtual_epochs` it counts whole epochs.
            numbers: Random generator of this seed, fold and epoch; use no other.

        Returns:
            int64 (`length(rows)`,), each from 0 to n − 1.
        """

    def length(self, rows: TrainingRows) -> int:
        """Number of rows that each epoch visits; the learning rate schedule depends on it."""
        return len(rows)


class BalancedSampler(Sampler):
    """Visits each class equally often, n rows in total: rows of rare classes repeat, others alternate.

    This is class-aware sampling: a class is chosen first, then one of its rows. For multi-label targets each label is a
    class, and the rows without labels are another one. A single number is binned, in 1 + log2 n bins of equal width.

    Args:
        power: 1 for equal frequencies, 0 for the classes' own; in between, a class with m rows has a frequency
            proportional to m ** (1 − `power`).
        correct_prior: See `swinft.Sampler.corrects_prior`.
    """

    def __init__(self, power: float = 1.0, correct_prior: bool = False) -> None:
        check_ranges("BalancedSampler", {"power": power}, {"power": UNIT})
        self.power, self.corrects_prior = power, correct_prior

    def order(self, rows: TrainingRows, epoch: int, numbers: np.random.Generator) -> NDArray[np.int64]:
        """Rows of each class at its frequency, shuffled.

        Raises:
            InputError: The target is several numbers.
        """
        members = _classes_of(rows)
        members = [members[k] for k in numbers.permutation(len(members))]  # the first ones get the remainder
        shares = np.array([float(len(each)) for each in members]) ** (1 - self.power)
        wanted = len(rows) * shares / shares.sum()
        quotas = wanted.astype(np.int64)
        largest = np.argsort(quotas - wanted, kind="stable")
        quotas[largest[: len(rows) - quotas.sum()]] += 1
        drawn = [_draw(each, quota, numbers) for each, quota in zip(members, quotas.tolist(), strict=True)]
        return numbers.permutation(np.concatenate(drawn))


def _classes_of(rows: TrainingRows) -> list[NDArray[np.int64]]:
    """The positions of each class that some row has.

    Raises:
        InputError: The target is several numbers.
    """
    targets = rows.targets
    if rows.are_labels:
        found = [np.flatnonzero(column > 0) for column in targets.T]
        return [each for each in (*found, np.flatnonzero((targets <= 0).all(1))) if len(each)]
    if not rows.are_classes:
        if targets.shape[1] > 1:
            raise InputError(
                f"BalancedSampler is for classes, labels, or one number; data.target is {targets.shape[1]} "
                f"numbers. Use swinft.WeightedSampler with a column of weights."
            )
        values = targets[:, 0]  # `target_bins` may give bins of equal counts, which are balanced already
        edges = np.linspace(values.min(), values.max(), 2 + int(math.log2(len(values))))
        targets = np.digitize(values, edges[1:-1])
    by_class = np.argsort(targets, kind="stable")  # not a pass over all rows for each class: there may be thousands
    return np.split(by_class, np.flatnonzero(np.diff(targets[by_class])) + 1)


def _draw(rows: NDArray[np.int64], number: int, numbers: np.random.Generator) -> NDArray[np.int64]:
    """Draws `number` rows, each equally often, up to a difference of one."""
    passes = [numbers.permutation(rows) for _ in range(-(-number // len(rows)))]
    return np.concatenate([*passes, rows[:0]])[:number]


class RatioSampler(Sampler):
    """Visits each positive row once, and n times as many negative rows, which are drawn again in each epoch.

    Args:
        negatives: Number of negative rows per positive row, above 0.
        positive: Classes or labels of positive rows; None for the second of two classes, or for any label.
        correct_prior: See `swinft.Sampler.corrects_prior`.
    """

    def __init__(
        self, negatives: float = 1.0, positive: str | list[str] | None = None, correct_prior: bool = False
    ) -> None:
        check_ranges("RatioSampler", {"negatives": negatives}, {"negatives": POSITIVE})
        self.negatives, self.corrects_prior = negatives, correct_prior
        self.positive = [positive] if isinstance(positive, str) else positive

    def order(self, rows: TrainingRows, epoch: int, numbers: np.random.Generator) -> NDArray[np.int64]:
        """All positive rows and the drawn negative rows, shuffled.

        Raises:
            InputError: There are no positive rows, too few negative ones, or the targets are neither classes nor
                labels.
        """
        is_positive, number = self._drawn(rows)
        negatives = numbers.choice(np.flatnonzero(~is_positive), number, replace=False)
        return numbers.permutation(np.concatenate([np.flatnonzero(is_positive), negatives]))

    def length(self, rows: TrainingRows) -> int:
        """Number of positive and drawn negative rows.

        Raises:
            InputError: As for `order`.
        """
        is_positive, number = self._drawn(rows)
        return int(is_positive.sum()) + number

    def _drawn(self, rows: TrainingRows) -> tuple[NDArray[np.bool_], int]:
        """Which rows are positive, and how many negative rows an epoch draws.

        Raises:
            InputError: There are no positive rows, or too few negative rows.
        """
        is_positive = self._is_positive(rows)
        found = int(is_positive.sum())
        number = round(self.negatives * found)
        rest = len(rows) - found
        if not 0 < number <= rest:
            raise InputError(
                f"RatioSampler: {self.negatives:g} negative rows for each of {number_of(found, 'positive row')} are "
                f"{number:,}, and there are {rest:,}. "
                + (f"Set negatives to {rest / found:.4g} or less." if found and rest else "Set `positive`.")
            )
        return is_positive, number

    def _is_positive(self, rows: TrainingRows) -> NDArray[np.bool_]:
        """Which rows are positive, bool (n,).

        Raises:
            InputError: The target has no such classes.
        """
        outputs = rows.schema.outputs
        if not (rows.are_classes or rows.are_labels):
            raise InputError(f"RatioSampler is for classes and labels, not for {rows.schema.kind} targets.")
        names = self.positive
        if names is None and rows.are_classes and len(outputs) > 2:
            raise InputError(f"RatioSampler: there are {len(outputs)} classes. Set `positive` to some of them.")
        if names is None:
            names = outputs[1:] if rows.are_classes else outputs
        if unknown := [name for name in names if name not in outputs]:
            raise InputError(f"RatioSampler: positive names {listed(unknown)}.{suggest(unknown[0], outputs)}")
        places = [outputs.index(name) for name in names]
        is_one = np.isin(rows.targets, places) if rows.are_classes else rows.targets[:, places] > 0
        return np.asarray(is_one.reshape(len(rows), -1).any(1))


class WeightedSampler(Sampler):
    """Visits rows in proportion to a column of weights: a row of weight 2 twice as often as one of weight 1.

    An epoch visits n rows. The expected number of visits of a row is rounded up or down at random (systematic
    sampling), so that rows of equal weights are visited once each.

    Args:
        column: A column of numbers from 0; rows of weight 0 are never visited.
        correct_prior: See `swinft.Sampler.corrects_prior`.
    """

    def __init__(self, column: str, correct_prior: bool = False) -> None:
        self.column, self.corrects_prior = column, correct_prior

    def order(self, rows: TrainingRows, epoch: int, numbers: np.random.Generator) -> NDArray[np.int64]:
        """Rows in proportion to their weights, shuffled."""
        shuffled = numbers.permutation(len(rows))
        ends = np.cumsum(rows.weights(self.column)[shuffled])
        places = (numbers.random() + np.arange(len(rows))) / len(rows)
        places = np.minimum(places, np.nextafter(1.0, 0.0))  # below the last end, which is 1
        return numbers.permutation(shuffled[np.searchsorted(ends / ends[-1], places, side="right")])


def make_sampler(given: SamplerName | Sampler | None) -> Sampler | None:
    """The sampler of a name, or a given sampler."""
    made = {"balanced": BalancedSampler, "ratio": RatioSampler}
    return made[given]() if isinstance(given, str) else given


def sampler_problems(given: Any) -> list[str]:
    """Problems of `data.loading.sampler`; at most one sentence."""
    names = get_args(SamplerName)
    if isinstance(given, Sampler | None) or given in names:
        return []
    hint = suggest(given, names) if isinstance(given, str) else f" Give a swinft.Sampler, {', '.join(names)}, or null."
    return [f"data.loading.sampler is {given!r}.{hint}"]
