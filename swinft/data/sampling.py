"""Samplers: which training rows an epoch visits, in which order, as a pure function of seed and epoch.

Shapes: n training rows of a fold, K outputs.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.schema import Schema
from swinft.data.tables.table import Table
from swinft.errors import InputError, suggest
from swinft.ranges import is_whole


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


class Sampler(ABC):
    """Chooses the training rows that an epoch visits, and their order, before they are split among ranks.

    The result must depend only on the arguments and the sampler's settings, so that a resumed run and all ranks get the
    same order. A row may occur several times; each time it is augmented differently.
    """

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
    """Visits each class equally often, n rows in total: rows of rare classes repeat, others alternate."""

    def order(self, rows: TrainingRows, epoch: int, numbers: np.random.Generator) -> NDArray[np.int64]:
        """Equally many rows of each class, shuffled.

        Raises:
            InputError: The target has no classes.
        """
        if rows.targets.dtype.kind != "i":
            raise InputError(f"BalancedSampler is for rows of one class each, not for {rows.schema.kind} targets.")
        classes = numbers.permutation(np.unique(rows.targets))  # the first ones get the remainder
        quotas = len(rows) // len(classes) + (np.arange(len(classes)) < len(rows) % len(classes))
        drawn = [_draw(np.flatnonzero(rows.targets == name), quotas[k], numbers) for k, name in enumerate(classes)]
        return numbers.permutation(np.concatenate(drawn))


def _draw(rows: NDArray[np.int64], number: int, numbers: np.random.Generator) -> NDArray[np.int64]:
    """Draws `number` rows, each equally often, up to a difference of one."""
    passes = [numbers.permutation(rows) for _ in range(-(-number // len(rows)))]
    return np.concatenate([*passes, rows[:0]])[:number]


@dataclass(frozen=True)
class SampledOrder:
    """The checked order of a custom sampler for a fold's rows.

    Args:
        sampler: The custom sampler.
        rows: The rows that the fold trains on.
        seed: Seed of the order.
    """

    sampler: Sampler
    rows: TrainingRows
    seed: int

    @cached_property
    def length(self) -> int:
        """Number of rows that each epoch visits.

        Raises:
            InputError: The sampler's length is not a whole number from 1.
        """
        length = self.sampler.length(self.rows)
        if not is_whole(length) or length < 1:
            raise InputError(f"{self._name}.length returned {length!r}; it must return a whole number from 1.")
        return int(length)

    def visit(self, epoch: int) -> NDArray[np.int64]:
        """The rows of the training table that an epoch visits, in order.

        Raises:
            InputError: The sampler's order is not `length` positions of training rows.
        """
        order = np.asarray(self.sampler.order(self.rows, epoch, np.random.default_rng([self.seed, epoch])))
        if order.dtype.kind not in "iu" or order.shape != (self.length,):
            raise InputError(
                f"{self._name}.order returned {order.dtype} of shape {order.shape}; it must return {self.length:,} "
                f"whole numbers, the value of its length."
            )
        if order.min() < 0 or order.max() >= len(self.rows):
            raise InputError(
                f"{self._name}.order returned positions from {order.min()} to {order.max()}; there are "
                f"{len(self.rows):,} training rows, 0 to {len(self.rows) - 1}."
            )
        return self.rows.rows[order]

    def check(self) -> None:
        """Checks the first epoch, and that a second call returns the same order.

        Raises:
            InputError: The order is not valid, or differs in the second call.
        """
        if not np.array_equal(self.visit(0), self.visit(0)):
            raise InputError(
                f"{self._name}.order returned two different orders for one epoch. It must use only the generator that "
                f"it is given, and store no state, or a resumed run would continue differently."
            )

    @property
    def _name(self) -> str:
        return f"data.loading.sampler: {type(self.sampler).__name__}"


def cumcount(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Number of earlier occurrences of each entry, int64, as in pandas."""
    by_value = np.argsort(order, kind="stable")
    starts = np.flatnonzero(np.diff(order[by_value], prepend=-1))
    found = np.empty_like(order)
    found[by_value] = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return found
