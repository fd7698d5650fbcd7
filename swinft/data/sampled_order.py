"""The checked order of a sampler for a fold's rows, and how it changes the class frequencies.

Shapes: n training rows of a fold, K outputs.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from swinft.data.sampling import Sampler, TrainingRows
from swinft.errors import InputError, listed
from swinft.ranges import is_whole

MIN_CHANGE = 0.01  # smaller changes of a class frequency are not reported


@dataclass(frozen=True)
class SampledOrder:
    """The checked order of a sampler for a fold's rows.

    Args:
        sampler: The sampler.
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
        return self.rows.rows[self._positions(epoch)]

    def _positions(self, epoch: int) -> NDArray[np.int64]:
        """Raises as `visit`."""
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
        return order.astype(np.int64)

    @cached_property
    def shares(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Frequency of each class or label among the rows and in the first epoch, (K,) each; empty for numbers.

        Raises:
            InputError: The sampler's order is of another length or type, or names a position that is not there.
        """
        targets, names = self.rows.targets, self.rows.schema.outputs
        if not (self.rows.are_classes or self.rows.are_labels):
            return np.empty(0), np.empty(0)
        visited = self._positions(0)
        if self.rows.are_classes:
            return _shares(targets, len(names)), _shares(targets[visited], len(names))
        columns = [column.astype(np.float64) for column in targets.T]
        own, drawn = (np.array([np.nanmean(each[rows]) for each in columns]) for rows in (slice(None), visited))
        return own, drawn

    def prior_shift(self) -> NDArray[np.float32] | None:
        """Change of the log odds of each output by the sampler, (K,), for the loss to correct; None if it does not.

        Raises:
            InputError: The first epoch has no row of a class, or the target is not classes or labels.
        """
        if not self.sampler.corrects_prior:
            return None
        own, drawn = self.shares
        if not len(own):
            raise InputError(f"{self._name}: correct_prior is for classes and labels; remove it.")
        is_open = (own > 0) & (self.rows.are_classes | (own < 1))
        never = is_open & ~((drawn > 0) & (self.rows.are_classes | (drawn < 1)))
        if never.any():
            names = [self.rows.schema.outputs[k] for k in np.flatnonzero(never)]
            raise InputError(
                f"{self._name}: correct_prior needs rows of every class in an epoch, and with and without every label; "
                f"not so for {listed(names)}."
            )
        own, drawn = np.where(is_open, own, 0.5), np.where(is_open, drawn, 0.5)
        shift = np.log(drawn) - np.log(own)
        if not self.rows.are_classes:
            shift -= np.log1p(-drawn) - np.log1p(-own)
        return shift.astype(np.float32)

    def notes(self) -> list[str]:
        """A line if the sampler changes the class frequencies, on which predicted probabilities depend."""
        own, drawn = self.shares
        if not len(own) or np.abs(drawn - own).max() < MIN_CHANGE:
            return []
        most = int(np.abs(np.log(np.maximum(drawn, 1e-9)) - np.log(np.maximum(own, 1e-9))).argmax())
        name = self.rows.schema.outputs[most]
        said = f"{self._name}: '{name}' is {own[most]:.2%} of the training rows and {drawn[most]:.2%} of an epoch; "
        if self.sampler.corrects_prior:
            return [f"{said}the loss corrects for this (correct_prior)."]
        return [
            f"{said}predicted probabilities are for the frequencies of the epoch; correct_prior: true corrects this."
        ]

    def check(self) -> None:
        """Checks the first epoch, that a second call returns the same order, and the correction of class frequencies.

        Raises:
            InputError: The order is not valid, or differs in the second call; or the correction is impossible.
        """
        self.prior_shift()
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


def _shares(classes: NDArray[np.int64], num_classes: int) -> NDArray[np.float64]:
    """Frequency of each class among the rows that have one, (K,)."""
    counts = np.bincount(classes[classes >= 0], minlength=num_classes)
    found: NDArray[np.float64] = counts / counts.sum()
    return found
