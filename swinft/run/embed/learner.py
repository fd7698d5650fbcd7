"""A model with its inputs and its answer: embeddings and metadata in, valid predictions out.

Shapes: N rows, D dimensions, F metadata features, K outputs.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from swinft.data.schema import Schema
from swinft.errors import InputError
from swinft.run.embed.inputs import Array, Arrays, Metadata
from swinft.run.embed.model import Learnt, Model


@dataclass(frozen=True)
class Targets:
    """Targets of rows of a fit.

    Args:
        values: (N, K): 1 for the class of a row, NaN where missing.
        weights: What each row counts, (N,).
    """

    values: Array
    weights: Array

    def take(self, rows: NDArray[np.int64]) -> "Targets":
        """Some of the rows."""
        return replace(self, values=self.values[rows], weights=self.weights[rows])


@dataclass(frozen=True)
class Learner:
    """A model with its inputs and its answer.

    Args:
        model: The model.
        schema: The outputs.
        fits_grades: Whether it fits the number of a grade, as the metric measures the distance between grades.
        metadata: How metadata is read; None without it.
    """

    model: Model
    schema: Schema
    fits_grades: bool = False
    metadata: Metadata | None = None

    def __post_init__(self) -> None:
        if reason := self.model.refusal(self.schema.base, self.metadata is not None):
            raise InputError(f"--fit {self.model.name}: {reason}.")

    def fit(self, values: NDArray[np.float32], features: NDArray[np.float32] | None, targets: Targets) -> Arrays:
        """What is learned from embeddings (N, D), metadata (N, F) and targets of some rows."""
        scaling, wanted = self.model.scaling, targets.values
        learned = scaling.learn(values)
        if self.metadata is not None:
            assert features is not None
            learned |= self.metadata.learn(features)
        if self._reads_grades:
            grades = self.schema.grades
            assert grades is not None
            wanted = (wanted @ grades)[:, None]
        elif not self.schema.base.are_probabilities:
            learned["range"] = np.stack([np.nanmin(wanted, 0), np.nanmax(wanted, 0)])
        inputs = self._inputs(learned, values, features)
        return learned | self.model.fit(inputs, Learnt(wanted, targets.weights, self.schema.base))

    def predict(
        self, learned: Arrays, values: NDArray[np.float32], features: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """Predictions float32 (N, K) of any rows, valid for the kind of target; numbers in the range of the fit's."""
        found = self.model.apply(learned, self._inputs(learned, values, features))
        if self._reads_grades:
            found = self._shares(found[:, 0])
        elif "range" in learned:
            found = np.clip(found, *learned["range"])
        valid: NDArray[np.float32] = self.schema.base.valid(found).astype(np.float32)
        return valid

    @property
    def _reads_grades(self) -> bool:
        return self.fits_grades and self.model.reads_grades

    def _inputs(self, learned: Arrays, values: NDArray[np.float32], features: NDArray[np.float32] | None) -> Array:
        inputs = self.model.scaling.apply(learned, values)
        if self.metadata is None:
            return inputs
        assert features is not None
        return np.concatenate([inputs, self.metadata.apply(learned, features)], 1)

    def _shares(self, numbers: Array) -> Array:
        """Probabilities of the two grades next to each number, whose mean is the number."""
        grades = np.asarray(self.schema.grades, dtype=np.float64)
        order = np.argsort(grades)
        places = np.interp(numbers, grades[order], np.arange(len(grades), dtype=np.float64))
        shares = np.clip(1 - np.abs(places[:, None] - np.arange(len(grades))), 0, 1)
        found = np.empty_like(shares)
        found[:, order] = shares
        return np.asarray(found)
