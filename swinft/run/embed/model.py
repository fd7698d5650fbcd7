"""The interface of models on embeddings, and the rows that they are fitted on; what they learn are plain arrays.

Shapes: N rows, I inputs, K outputs.
"""

from dataclasses import dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from swinft.data.target.base import Target
from swinft.ranges import check_whole
from swinft.run.embed.inputs import Array, Arrays, Scaling

CHUNK = 4096  # rows whose similarities to all others are in memory at once


@dataclass(frozen=True)
class Learnt:
    """Rows that a model is fitted on.

    Args:
        targets: Targets (N, K): 1 for the class of a row, NaN where missing; a grade is one number (N, 1).
        weights: What each row counts, (N,).
        target: The kind of target.
    """

    targets: Array
    weights: Array
    target: Target


@dataclass(frozen=True)
class Model:
    """A model. Its fields are its arguments; `scaling` is how its inputs are made of embeddings.

    Args:
        normalize: As of `Scaling`.
        standardize: As of `Scaling`.
        pca: As of `Scaling`.
    """

    name: ClassVar[str]
    reads_grades: ClassVar[bool] = False
    """Whether it fits the number of a grade where the metric measures the distance between grades."""

    normalize: bool = False
    standardize: bool = True
    pca: int | None = None

    def __post_init__(self) -> None:
        if self.pca is not None:
            check_whole(self.name, "pca", self.pca)

    @property
    def scaling(self) -> Scaling:
        """How its inputs are made."""
        return Scaling(self.normalize, self.standardize, self.pca)

    @property
    def arguments(self) -> dict[str, Any]:
        """Its arguments by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def refusal(self, target: Target, has_metadata: bool) -> str:
        """Why it cannot be fitted for a kind of target; empty if it can."""
        return ""

    def fit(self, inputs: Array, rows: Learnt) -> Arrays:
        """What it learns from the inputs (N, I) of some rows."""
        raise NotImplementedError

    def apply(self, learned: Arrays, inputs: Array) -> Array:
        """Predictions (N, K) of any rows; they may need `Target.valid`."""
        raise NotImplementedError


def short(values: Array) -> NDArray[np.float32]:
    """Rows that are stored: embeddings have no more digits."""
    return values.astype(np.float32)
