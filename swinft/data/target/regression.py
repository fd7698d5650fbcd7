"""Regression: one or more numbers per row.

Shapes: N rows, K outputs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.tables.numbers import precision_problems
from swinft.data.tables.table import Problem
from swinft.data.target.base import Target, TargetCells
from swinft.printing import format_number, visible


class Regression(Target):
    """K numbers: targets and predictions float (N, K), in the competition's units."""

    kind = "regression"
    formats = ("number", "integer")
    are_probabilities = False

    def encode(
        self, cells: TargetCells, outputs: Sequence[str], problems: list[Problem], notes: list[str] | None = None
    ) -> NDArray[Any]:
        """Numbers float32 (N, K), NaN if invalid."""
        return self.numbers(cells, problems, notes)

    def training_problems(self, cells: TargetCells, targets: NDArray[Any], outputs: Sequence[str]) -> list[Problem]:
        """Constant outputs, and those whose numbers float32 does not tell apart."""
        is_own = type(self).encode is Regression.encode  # a custom kind may make other numbers of the cells
        blurred = precision_problems(cells.table, outputs) if is_own else []
        if blurred:
            return blurred
        message, fix = "all rows have the same number", "There is nothing to learn; name another column."
        same = np.flatnonzero(np.fmin.reduce(targets) == np.fmax.reduce(targets)).tolist()
        return [Problem(str(cells.table.path), message, fix, column=outputs[k]) for k in same]

    def ranges(self, targets: NDArray[Any]) -> list[list[float]]:
        """Smallest and largest number of each column."""
        found: list[list[float]] = np.stack([np.fmin.reduce(targets), np.fmax.reduce(targets)], axis=1).tolist()
        return found

    def counts(self, targets: NDArray[Any], num_outputs: int) -> list[float]:
        """Mean of each column."""
        found: list[float] = (np.nanmean if np.isnan(targets).any() else np.mean)(targets, axis=0).tolist()
        return found

    def summary(self, targets: NDArray[Any], outputs: Sequence[str]) -> dict[str, Any]:
        """Smallest, mean and largest number of each column."""
        known = {name: column[~np.isnan(column)] for name, column in zip(outputs, targets.T, strict=True)}
        return {
            name: {"min": float(column.min()), "mean": float(column.mean()), "max": float(column.max())}
            for name, column in known.items()
        }

    def captions(self, targets: NDArray[Any], outputs: Sequence[str]) -> list[str]:
        """A line per column; a missing number is a question mark."""
        names = [visible(name) for name in outputs]
        return [
            "\n".join(
                f"{name} {'?' if np.isnan(value) else format_number(value)}"
                for name, value in zip(names, row, strict=True)
            )
            for row in targets
        ]

    def prediction_text(self, prediction: NDArray[np.float32], outputs: Sequence[str]) -> str:
        """The number; of several each with its name."""
        texts = [format_number(float(value)) for value in prediction]
        if len(texts) == 1:
            return texts[0]
        return ", ".join(f"{visible(name)} {text}" for name, text in zip(outputs, texts, strict=True))

    def row_errors(self, values: NDArray[np.float32], targets: NDArray[Any]) -> NDArray[np.float64]:
        """The largest absolute difference, in units of each column's standard deviation."""
        differences = np.nan_to_num(np.abs(values.astype(np.float64) - targets))
        errors: NDArray[np.float64] = (differences / (np.nanstd(targets, 0) + 1e-12)).max(1)
        return errors
