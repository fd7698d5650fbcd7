"""The interface of all kinds of target, and functions that they share.

Shapes: N rows, K outputs.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from swinft.data.tables.numbers import numbers
from swinft.data.tables.table import Problem, Table
from swinft.data.tables.text import HOW_TWINS_DIFFER, TEXT_RULES, TextRules, counted, twins
from swinft.errors import number_of, suggest


@dataclass(frozen=True)
class TargetCells:
    """The cells of a target.

    Args:
        table: The table.
        columns: Its target columns.
        delimiter: Delimiter between the labels of one cell; None for one value per cell.
        rules: Which words mean a missing value, and whether two spellings are two names.
    """

    table: Table
    columns: list[str]
    delimiter: str | None = None
    rules: TextRules = TEXT_RULES


class Target:
    """A kind of target: converts cells to arrays, and describes targets and predictions.

    A custom kind derives from `Classification`, `Regression` or `Multilabel`, with its heads, metrics and submission
    formats, and overrides how cells are read.
    """

    kind: ClassVar[str]
    """Its name in `data.target_kind`."""

    formats: ClassVar[tuple[str, ...]]
    """The values of `submission.format` that support its predictions."""

    are_classes: ClassVar[bool] = False
    """Whether targets are class indices int64 (N,); else they are float32 (N, K)."""

    is_soft: ClassVar[bool] = False
    """Whether targets of classes are soft, float32 (N, K), and not indices."""

    are_maps: ClassVar[bool] = False
    """Whether targets and predictions are masks, (K, H, W) in a batch; those of the table are their coverage (N, K)."""

    takes_delimiter: ClassVar[bool] = False
    """Whether a cell may contain several labels."""

    are_probabilities: ClassVar[bool] = True
    """Whether predictions are probabilities, in 0–1."""

    def check_columns(self, columns: list[str], delimiter: str | None) -> None:
        """Checks that the columns can hold such a target.

        Raises:
            InputError: There are too many or too few columns, or a delimiter is missing.
        """

    def table_columns(self, columns: Sequence[str]) -> list[str]:
        """The columns that a table of training rows must have, of a target with these columns."""
        return list(columns)

    def outputs(self, cells: TargetCells, class_order: Sequence[str] | None) -> list[str]:
        """Names of the K outputs, from the training table.

        Raises:
            InputError: `class_order` does not name the table's classes.
        """
        return cells.columns

    def encode(
        self, cells: TargetCells, outputs: Sequence[str], problems: list[Problem], notes: list[str] | None = None
    ) -> NDArray[Any]:
        """Encodes targets of the training table: int64 (N,) for classes, else float32 (N, K).

        Args:
            cells: The cells.
            outputs: Names of the K outputs.
            problems: Errors are appended.
            notes: Columns of True and False, and cells that mean no label, are appended with counts.
        """
        raise NotImplementedError

    def encode_answers(self, cells: TargetCells, outputs: Sequence[str], problems: list[Problem]) -> NDArray[Any]:
        """Encodes targets of a labelled test table; classes and labels must be known from the training table."""
        return self.encode(cells, outputs, problems)

    def numbers(self, cells: TargetCells, problems: list[Problem], notes: list[str] | None = None) -> NDArray[Any]:
        """The cells as numbers float32 (N, columns), NaN if invalid.

        Args:
            cells: The cells.
            problems: Cells that are not numbers are appended.
            notes: Columns of True and False are appended.
        """
        way_out = "set data.columns.on_missing_target to skip"
        return numbers(cells.table, cells.columns, problems, cells.rules, "none", notes, way_out=way_out)

    def training_problems(self, cells: TargetCells, targets: NDArray[Any], outputs: Sequence[str]) -> list[Problem]:
        """Problems of the training targets as a whole."""
        return []

    def size_problems(
        self,
        cells: TargetCells,
        targets: NDArray[Any],
        outputs: Sequence[str],
        groups: Sequence[str] | None,
        num_folds: int,
    ) -> list[Problem]:
        """Classes that are too rare for the folds; `targets` as `encode` gave them, `groups` of the same N rows."""
        return []

    def unknown_answers(self, cells: TargetCells, outputs: Sequence[str], problems: list[Problem]) -> list[str]:
        """Appends classes of the rows to predict that the training rows do not have; returns notes on them."""
        return []

    def ranges(self, targets: NDArray[Any]) -> list[list[float]]:
        """Smallest and largest training target of each output, (K, 2); empty if predictions have a fixed range."""
        return []

    def prior(self, targets: NDArray[Any], num_outputs: int) -> list[float]:
        """Mean prediction of each output over the training rows that have it."""
        mean: Any = np.nanmean if np.isnan(targets).any() else np.mean
        return [float(value) for value in mean(targets, axis=0, dtype=np.float64)]

    def confidence(self, predictions: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """The probability of what predictions (N, K) say of each row, (N,); None for numbers, which have none."""
        return None

    def hardened(self, predictions: NDArray[np.float32]) -> NDArray[Any]:
        """Predictions (N, K) as targets like those of `encode`: the likeliest class, labels 0 or 1; numbers as is."""
        return predictions

    def strata(self, targets: NDArray[Any]) -> NDArray[Any]:
        """Targets for stratification and samplers: classes int64 (N,), or the targets unchanged."""
        return targets

    def counts(self, targets: NDArray[Any], num_outputs: int) -> list[float]:
        """A statistic of each output for some rows: rows per class, positive rows per label, or the mean."""
        raise NotImplementedError

    def summary(self, targets: NDArray[Any], outputs: Sequence[str]) -> dict[str, Any]:
        """Statistics of each output for all rows."""
        return dict(zip(outputs, self.counts(targets, len(outputs)), strict=True))

    def notes(self, targets: NDArray[Any], outputs: Sequence[str]) -> list[str]:
        """Notes on the training targets, one line each."""
        return []

    def captions(self, targets: NDArray[Any], outputs: Sequence[str]) -> list[str]:
        """Readable targets of some rows."""
        raise NotImplementedError

    def prediction_text(self, prediction: NDArray[np.float32], outputs: Sequence[str]) -> str:
        """A prediction (K,) as short text."""
        raise NotImplementedError

    def valid(self, values: NDArray[Any]) -> NDArray[Any]:
        """The nearest allowed predictions (N, K): probabilities are clipped to 0–1, and those of classes sum to 1."""
        return np.clip(values, 0, 1) if self.are_probabilities else values

    def row_errors(self, values: NDArray[np.float32], targets: NDArray[Any]) -> NDArray[np.float64]:
        """The error of each row, (N,); larger is worse."""
        errors: NDArray[np.float64] = np.nan_to_num(np.abs(values.astype(np.float64) - targets)).max(1)
        return errors

    def error_columns(
        self, values: NDArray[np.float32], targets: NDArray[Any], outputs: Sequence[str]
    ) -> dict[str, NDArray[Any]]:
        """Truth and prediction of each row, by the columns of `errors.csv`."""
        truth = {f"true {name}": targets[:, k] for k, name in enumerate(outputs)}
        return truth | {f"predicted {name}": values[:, k] for k, name in enumerate(outputs)}


def unknown_names(names: Sequence[tuple[int, str]], cells: TargetCells, outputs: Sequence[str]) -> list[Problem]:
    """A problem for each (row, name) whose name is not in the training table."""
    problems, known, hints = [], set(outputs), dict[str, str]()
    for row, name in names:
        if name and not cells.rules.is_missing(name) and name not in known:
            if name not in hints:  # slow: it compares the name with every other one
                hints[name] = suggest(name, outputs)
            fix = f"Write one of the training table's.{hints[name]}"
            problems.append(cells.table.problem(row, f"the training table has no {name!r}", fix, cells.columns[0]))
    return problems


def missing_targets(table: Table, columns: Sequence[str], rules: TextRules) -> NDArray[np.bool_]:
    """Rows with a word for a missing value in one of the columns, bool (N,)."""
    cells = [[rules.is_missing(cell) for cell in table.names(name)] for name in columns]
    missing: NDArray[np.bool_] = np.logical_or.reduce(np.array(cells, dtype=bool))
    return missing


def missing_notes(table: Table, columns: Sequence[str], rules: TextRules) -> list[str]:
    """One line per column with cells that mean a missing target."""
    found = {name: rules.missing(table.names(name)) for name in columns}
    fix = "if one of these is a value, remove it from data.columns.missing_words"
    return [
        f"{table.path}: column '{name}': {number_of(words.total(), 'cell is', 'cells are')} read as missing: "
        f"{counted(words)}" + (f"; {fix}." if set(words) - {""} else ".")
        for name, words in found.items()
        if words
    ]


def twin_problems(table: Table, column: str, counts: Counter[str], rules: TextRules) -> list[Problem]:
    """Problems for names in a column that are two spellings of one name.

    Args:
        table: The table.
        column: The column.
        counts: The names, each with its number of rows.
        rules: Whether two spellings are two names.
    """
    if rules.twins == "distinct":
        return []
    problems = []
    for spellings in twins(sorted(counts)):
        named = " and ".join(map(repr, spellings))
        rows = ", ".join(f"{counts[name]:,}" for name in spellings)
        message = f"{named} differ only by {HOW_TWINS_DIFFER}"
        fix = f"Use one spelling ({rows} rows), or, if these are two names, set data.columns.twins to distinct."
        problems.append(Problem(str(table.path), message, fix, column=column))
    return problems
