"""Which training rows an epoch visits, and in which order: a pure function of the seed and the epoch.

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
    """The rows that a fold trains on, as a sampler sees them; position k is the k-th of these n.

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
    """Which training rows an epoch visits, and in which order; shared out among processes afterwards.

    What it gives depends on its arguments and its own settings alone, so that a resumed run, and every process of a
    run, sees the same. A row may come several times: each time it is augmented in another way.
    """

    @abstractmethod
    def order(self, rows: TrainingRows, epoch: int, numbers: np.random.Generator) -> NDArray[np.int64]:
        """Positions among the n rows, in the order in which the epoch visits them.

        Args:
            rows: The rows that the fold trains on.
            epoch: From 0; with `data.loading.virtual_epochs` it counts the whole ones.
            numbers: Random numbers of this seed, fold and epoch: the only ones to draw from.

        Returns:
            int64 (`length(rows)`,), each from 0 to n − 1.
        """

    def length(self, rows: TrainingRows) -> int:
        """How many rows every epoch visits; the schedule is planned over it."""
        return len(rows)


class BalancedSampler(Sampler):
    """Every class equally often, in as many rows as there are: rows of rare classes repeat, others take turns."""

    def order(self, rows: TrainingRows, epoch: int, numbers: np.random.Generator) -> NDArray[np.int64]:
        """Equally many rows of each class, shuffled.

        Raises:
            InputError: The target has no classes.
        """
        if rows.targets.dtype.kind != "i":
            raise InputError(f"BalancedSampler is for rows of one class each, not for {rows.schema.kind} targets.")
        classes = numbers.permutation(np.unique(rows.targets))  # those that come first get what does not divide
        quotas = len(rows) // len(classes) + (np.arange(len(classes)) < len(rows) % len(classes))
        drawn = [_draw(np.flatnonzero(rows.targets == name), quotas[k], numbers) for k, name in enumerate(classes)]
        return numbers.permutation(np.concatenate(drawn))


def _draw(rows: NDArray[np.int64], number: int, numbers: np.random.Generator) -> NDArray[np.int64]:
    """So many of some rows, each as often as any other, give or take one."""
    passes = [numbers.permutation(rows) for _ in range(-(-number // len(rows)))]
    return np.concatenate([*passes, rows[:0]])[:number]


@dataclass(frozen=True)
class SampledOrder:
    """The order that a sampler gives to a fold's rows; what it gives is checked.

    Args:
        sampler: The user's.
        rows: The rows that the fold trains on.
        seed: Of the order.
    """

    sampler: Sampler
    rows: TrainingRows
    seed: int

    @cached_property
    def length(self) -> int:
        """How many rows every epoch visits.

        Raises:
            InputError: The sampler says something else than a whole number from 1.
        """
        length = self.sampler.length(self.rows)
        if not is_whole(length) or length < 1:
            raise InputError(f"{self._name}.length gives {length!r}; it must give a whole number from 1.")
        return int(length)

    def visit(self, epoch: int) -> NDArray[np.int64]:
        """The rows of the training table that an epoch visits, in order.

        Raises:
            InputError: The sampler gives something else than so many positions of training rows.
        """
        order = np.asarray(self.sampler.order(self.rows, epoch, np.random.default_rng([self.seed, epoch])))
        if order.dtype.kind not in "iu" or order.shape != (self.length,):
            raise InputError(
                f"{self._name}.order gives {order.dtype} of shape {order.shape}; it must give {self.length:,} whole "
                f"numbers, as its length says."
            )
        if order.min() < 0 or order.max() >= len(self.rows):
            raise InputError(
                f"{self._name}.order gives positions from {order.min()} to {order.max()}; there are {len(self.rows):,} "
                f"training rows, which are 0 to {len(self.rows) - 1}."
            )
        return self.rows.rows[order]

    def check(self) -> None:
        """Asks twice for the first epoch.

        Raises:
            InputError: The sampler gives what it must not give, or something else the second time.
        """
        if not np.array_equal(self.visit(0), self.visit(0)):
            raise InputError(
                f"{self._name}.order gives two orders for one epoch. It must draw from the generator that it is given, "
                f"and keep nothing, or a resumed run would not go on as it began."
            )

    @property
    def _name(self) -> str:
        return f"data.loading.sampler: {type(self.sampler).__name__}"


def cumcount(order: NDArray[np.int64]) -> NDArray[np.int64]:
    """How often each entry has come before in an order, int64 as the order."""
    places = np.argsort(order, kind="stable")
    starts = np.flatnonzero(np.diff(order[places], prepend=-1))
    found = np.empty_like(order)
    found[places] = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return found
