"""Multi-label targets: 0/1 columns, or delimited labels in one column.

Shapes: N rows, K outputs.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.tables.table import DataError, Problem, Table
from swinft.data.tables.text import TextRules, counted
from swinft.data.target.base import Target, TargetCells, twin_problems, unknown_names
from swinft.data.target.names import LIST_FIX, PRINTED_LIST, in_order, label_tokens
from swinft.errors import InputError, listed, number_of
from swinft.printing import visible
from swinft.system.limits import format_bytes, total_memory

COMMON_DELIMITERS = (",", ";", "|", "/", "\t", " ")


class Multilabel(Target):
    """Any of K labels: targets 0 or 1, float32 (N, K); predictions are probabilities."""

    kind = "multilabel"
    formats = ("probabilities", "labels", "top_k")
    takes_delimiter = True

    def check_columns(self, columns: list[str], delimiter: str | None) -> None:
        """Several 0/1 columns, or one of labels with a delimiter.

        Raises:
            InputError: There is one column and no delimiter of labels.
        """
        if delimiter is None and len(columns) == 1:
            raise InputError(
                f"data.target names one column, '{columns[0]}'. For a string of labels set "
                f"data.columns.label_delimiter (' ' or '|'); for 0/1 columns name them all."
            )

    def outputs(self, cells: TargetCells, class_order: Sequence[str] | None) -> list[str]:
        """The columns, or the labels in the cells, sorted by number if all are numbers, else by name."""
        if cells.delimiter is None:
            return cells.columns
        tokens = [label_tokens(cell, cells.delimiter, cells.rules) for cell in set(cells.table.names(cells.columns[0]))]
        return in_order({token for found in tokens for token in found} - {""})

    def encode(
        self, cells: TargetCells, outputs: Sequence[str], problems: list[Problem], notes: list[str] | None = None
    ) -> NDArray[Any]:
        """0 or 1, float32 (N, K).

        Raises:
            DataError: The labels of all rows do not fit into the memory.
        """
        if cells.delimiter is not None:
            return _label_rows(cells, cells.delimiter, outputs, problems, notes)
        values = self.numbers(cells, problems, notes)
        for k, name in enumerate(cells.columns):
            problems += _label_problems(cells.table, name, values[:, k])
        return values

    def confidence(self, predictions: NDArray[np.float32]) -> NDArray[np.float32] | None:
        """The probability of what is said of the least certain label: that it is there, or that it is not."""
        found: NDArray[np.float32] = np.maximum(predictions, 1 - predictions).min(1)
        return found

    def hardened(self, predictions: NDArray[np.float32]) -> NDArray[Any]:
        """0 or 1, float32 (N, K)."""
        return (predictions >= 0.5).astype(np.float32)

    def encode_answers(self, cells: TargetCells, outputs: Sequence[str], problems: list[Problem]) -> NDArray[Any]:
        """0 or 1; each label must be known from the training table."""
        if cells.delimiter is not None:
            found = enumerate(cells.table.names(cells.columns[0]))
            names = [(row, word) for row, cell in found for word in label_tokens(cell, cells.delimiter, cells.rules)]
            problems += unknown_names(names, cells, outputs)
        return self.encode(cells, outputs, problems)

    def counts(self, targets: NDArray[Any], num_outputs: int) -> list[float]:
        """Rows with each label; the sum if labels are fractions."""
        sums: NDArray[np.float64] = np.nansum(targets, 0, dtype=np.float64)
        return [int(count) if count.is_integer() else count for count in sums.tolist()]

    def notes(self, targets: NDArray[Any], outputs: Sequence[str]) -> list[str]:
        """Labels of no row, or of all rows that are not missing: nothing can be learnt of them."""
        lowest, highest = np.fmin.reduce(targets), np.fmax.reduce(targets)
        never = [visible(name) for name, most in zip(outputs, highest, strict=True) if most == 0]
        always = [visible(name) for name, least in zip(outputs, lowest, strict=True) if least == 1]
        found = {"no row has": never, "every row has": always}
        return [f"{what} {listed(names)}: there is nothing to learn." for what, names in found.items() if names]

    def captions(self, targets: NDArray[Any], outputs: Sequence[str]) -> list[str]:
        """Each row's labels; with a question mark those that are missing."""
        names = [visible(name) for name in outputs]
        return [
            ", ".join(f"{name}?" if np.isnan(on) else name for name, on in zip(names, row, strict=True) if on) or "–"
            for row in targets
        ]

    def prediction_text(self, prediction: NDArray[np.float32], outputs: Sequence[str]) -> str:
        """The labels with a probability of at least 0.5."""
        names = map(visible, outputs)
        likely = [f"{name} {value:.2f}" for name, value in zip(names, prediction, strict=True) if value >= 0.5]
        return ", ".join(likely) or "none"


def _label_rows(
    where: TargetCells, delimiter: str, outputs: Sequence[str], problems: list[Problem], notes: list[str] | None
) -> NDArray[np.float32]:
    table, column, rules = where.table, where.columns[0], where.rules
    index = {name: k for k, name in enumerate(outputs)}
    if (size := 4 * len(table) * len(outputs)) > total_memory():
        message = f"the labels of {len(table):,} rows, {len(outputs):,} different ones, would take {format_bytes(size)}"
        fix = f"This machine has {format_bytes(total_memory())}: leave rare labels out, or use fewer rows."
        raise DataError([Problem(str(table.path), message, fix, column=column)])
    values = np.zeros((len(table), len(outputs)), dtype=np.float32)
    cells = table.names(column)
    used: Counter[str] = Counter()
    for row, cell in enumerate(cells):
        tokens = label_tokens(cell, delimiter, rules)
        used.update(tokens)
        if reason := _token_problem(cell, tokens, delimiter, rules):
            problems.append(table.problem(row, *reason, column))
        values[row, [index[token] for token in tokens if token in index]] = 1
    problems += twin_problems(table, column, used, rules)
    problems += _delimiter_problems(table, column, [cell for cell in cells if not rules.is_missing(cell)], delimiter)
    if notes is not None and (words := rules.missing(cells)):
        notes.append(
            f"{table.path}: column '{column}': {number_of(words.total(), 'row has', 'rows have')} no label: "
            f"{counted(words)}."
        )
    if notes is not None and len(table) > 1 and not any(delimiter in cell for cell in cells):
        notes.append(f"{table.path}: column '{column}': no cell contains data.columns.label_delimiter {delimiter!r}.")
    if not outputs:
        problems.append(Problem(str(table.path), "no row has a label", "Name the column of labels.", column=column))
    return values


def _token_problem(cell: str, tokens: list[str], delimiter: str, rules: TextRules) -> tuple[str, str] | None:
    """The problem with the labels of a cell, and its fix."""
    if PRINTED_LIST.fullmatch(cell):
        return "the cell is a printed list", LIST_FIX
    if "" in tokens or len(set(tokens)) < len(tokens):
        return "a label is empty or repeated", f"Write each label once, one {delimiter!r} between two."
    if any(map(rules.is_missing, tokens)):
        fix = "Remove it, or, if it is a label, remove it from data.columns.missing_words."
        return "a word for a missing value is among the labels", fix
    if mark := next((token[-1] for token in tokens if len(token) > 1 and token[-1] in ",;|"), ""):
        return f"a label ends in {mark!r}", f"Set data.columns.label_delimiter to {mark!r}, or remove the sign."
    return None


def _delimiter_problems(table: Table, column: str, cells: list[str], delimiter: str) -> list[Problem]:
    """A problem if no cell contains the delimiter, and most contain another common one."""
    if any(delimiter in cell for cell in cells):
        return []
    for mark in COMMON_DELIMITERS:
        count = sum(mark in cell for cell in cells)
        if 2 * count > len(cells):
            message = (
                f"no cell contains data.columns.label_delimiter {delimiter!r}, and {count:,} of {len(cells):,} contain "
                f"{mark!r}"
            )
            fix = (
                f"Set data.columns.label_delimiter to {mark!r}; rows of one label each are target_kind classification."
            )
            return [Problem(str(table.path), message, fix, column=column)]
    return []


def _label_problems(table: Table, column: str, values: NDArray[np.float32]) -> list[Problem]:
    """Numbers that are not labels: one problem for a column of fractions, one per cell otherwise."""
    bad = np.flatnonzero(~np.isin(values, (0, 1)) & np.isfinite(values))
    if len(bad) and ((values[bad] > 0) & (values[bad] < 1)).all():
        message = number_of(len(bad), "label is a fraction between 0 and 1", "labels are fractions between 0 and 1")
        fix = (
            "For fractions that sum to 1 in each row set data.target_kind to classification; for others to regression, "
            "and the head to RegressionHead with loss: bce, low: 0 and high: 1; for labels write 0 or 1."
        )
        first = table.problem(int(bad[0]), message, fix, column)
        return [first]
    return [table.problem(int(row), "a label must be 0 or 1", "Write 0 or 1.", column) for row in bad]
