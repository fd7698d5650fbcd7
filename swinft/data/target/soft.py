"""Soft targets of classification: a column for each class, with probabilities, votes or 0 and 1.

Shapes: N rows, K outputs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.tables.table import Problem
from swinft.data.target.base import Target, TargetCells
from swinft.data.target.classification import Classification, ordered_classes
from swinft.errors import number_of
from swinft.printing import visible

ROUNDING = 0.02  # a sum of probabilities that were rounded to two digits may differ from 1 by so much
SHOWN = 3  # classes in a caption


class SoftClassification(Classification):
    """Soft targets of K classes: float32 (N, K), rows of sum 1; predictions are probabilities.

    Cells are numbers of 0 or more. Each row is divided by its sum.
    """

    is_soft = True

    def check_columns(self, columns: list[str], delimiter: str | None) -> None:
        """Any columns; a delimiter is refused elsewhere."""

    def outputs(self, cells: TargetCells, class_order: Sequence[str] | None) -> list[str]:
        """The columns, or all of them in the order given."""
        return list(cells.columns) if class_order is None else ordered_classes(list(cells.columns), class_order)

    def encode(
        self, cells: TargetCells, outputs: Sequence[str], problems: list[Problem], notes: list[str] | None = None
    ) -> NDArray[Any]:
        """Soft targets float32 (N, K); NaN in rows with a cell that is no number."""
        table = cells.table
        values = self.numbers(cells, problems, notes)[:, [cells.columns.index(name) for name in outputs]]
        for row, k in np.argwhere(values < 0).tolist():
            problems.append(table.problem(row, "the number is negative", "Write 0 or more.", outputs[k]))
        sums = values.sum(1, dtype=np.float64)
        for row in np.flatnonzero(sums == 0).tolist():
            fix = "Give the row a class; or leave its cells empty, and set data.columns.on_missing_target to skip."
            problems.append(table.problem(row, f"the classes {', '.join(outputs)} are all 0", fix))
        odd = np.isfinite(sums) & (np.abs(sums - 1) > ROUNDING)
        if notes is not None and odd.any():
            rows = number_of(int(odd.sum()), "row")
            notes.append(
                f"{table.path}: columns {', '.join(map(visible, outputs))}: the sums of {rows} go from "
                f"{sums[odd].min():g} to {sums[odd].max():g}; each row is divided by its sum, as votes are. Where a "
                f"row may have several classes, set data.target_kind to multilabel."
            )
        soft: NDArray[np.float32] = (values / np.where(sums > 0, sums, 1)[:, None]).astype(np.float32)
        return soft

    def hardened(self, predictions: NDArray[np.float32]) -> NDArray[Any]:
        """1 for the likeliest class and 0 for the others, float32 (N, K)."""
        found: NDArray[np.float32] = np.eye(predictions.shape[1], dtype=np.float32)[predictions.argmax(1)]
        return found

    def encode_answers(self, cells: TargetCells, outputs: Sequence[str], problems: list[Problem]) -> NDArray[Any]:
        """The same."""
        return self.encode(cells, outputs, problems)

    def training_problems(self, cells: TargetCells, targets: NDArray[Any], outputs: Sequence[str]) -> list[Problem]:
        """Classes that are 0 in all rows."""
        message, fix = "all rows are 0", "Remove the column from data.target."
        never = np.flatnonzero((np.nan_to_num(targets) == 0).all(0)).tolist()
        return [Problem(str(cells.table.path), message, fix, column=outputs[k]) for k in never]

    def size_problems(
        self,
        cells: TargetCells,
        targets: NDArray[Any],
        outputs: Sequence[str],
        groups: Sequence[str] | None,
        num_folds: int,
    ) -> list[Problem]:
        """No class that is the most probable one in as many rows as there are folds; others may be rare."""
        most = int(np.bincount(self.strata(targets) + 1)[1:].max(initial=0))
        if most >= num_folds:
            return []
        message = f"no class is the most probable one in {num_folds} rows, the number of folds"
        return [Problem(str(cells.table.path), message, "Lower data.folds.num.", column=", ".join(cells.columns))]

    def unknown_answers(self, cells: TargetCells, outputs: Sequence[str], problems: list[Problem]) -> list[str]:
        """None: the columns are the classes."""
        return []

    def prior(self, targets: NDArray[Any], num_outputs: int) -> list[float]:
        """Mean of each class."""
        return Target.prior(self, targets, num_outputs)

    def counts(self, targets: NDArray[Any], num_outputs: int) -> list[float]:
        """Sum of each class over the rows."""
        sums: Any = np.nansum(targets, 0, dtype=np.float64).round(1)
        return [int(count) if count.is_integer() else count for count in sums.tolist()]

    def strata(self, targets: NDArray[Any]) -> NDArray[Any]:
        """The class of the largest value, int64 (N,); −1 in rows without targets."""
        classes: NDArray[np.int64] = np.nan_to_num(targets).argmax(1)
        return np.where(np.isnan(targets).any(1), -1, classes)

    def notes(self, targets: NDArray[Any], outputs: Sequence[str]) -> list[str]:
        """Notes about the classes of the largest values."""
        return super().notes(self.strata(targets), outputs)

    def captions(self, targets: NDArray[Any], outputs: Sequence[str]) -> list[str]:
        """The most probable classes of each row."""
        lines = []
        for row in targets:
            order = [k for k in np.argsort(-row, kind="stable")[:SHOWN] if row[k] > 0]
            lines.append(", ".join(f"{visible(outputs[k])} {row[k]:.2f}".replace(" 1.00", "") for k in order) or "–")
        return lines

    def row_errors(self, values: NDArray[np.float32], targets: NDArray[Any]) -> NDArray[np.float64]:
        """Half the sum of the absolute differences: the total variation distance."""
        errors: NDArray[np.float64] = np.abs(values.astype(np.float64) - targets).sum(1) / 2
        return errors

    def error_columns(
        self, values: NDArray[np.float32], targets: NDArray[Any], outputs: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        """The true and predicted classes, and both probabilities of each class."""
        return {
            **super().error_columns(values, self.strata(targets), outputs),
            **Target.error_columns(self, values, targets, outputs),
        }
