"""Parses numeric columns, reports invalid cells, and reads True and False as 1 and 0.

Shapes: N rows.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from swinft.data.tables.table import Problem, Table
from swinft.data.tables.text import FALSE, TEXT_RULES, TRUE, TextRules, counted
from swinft.errors import number_of

LARGEST = float(np.finfo(np.float32).max)
LARGEST_ERROR = 1e-3  # of rounding to float32, as a fraction of the range of a column
# Numbers that `float` accepts, except `1_000`, `nan` and `inf`.
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
GROUPED = re.compile(r"[+-]?\d[\d.]*([,'’\s]|\.\d+\.)[\d.,'’\s]*")  # `1,5`, `1 234`, `1.234.567`
# Which cells may be something else than a number: none; words for a missing value; any.
Gaps = Literal["none", "missing", "any"]


def numbers(
    table: Table,
    columns: Sequence[str],
    problems: list[Problem],
    rules: TextRules = TEXT_RULES,
    gaps: Gaps = "none",
    notes: list[str] | None = None,
    booleans: Collection[str] | None = None,
    way_out: str = "remove the row",
) -> NDArray[np.float32]:
    """Parses columns as numbers.

    Args:
        table: N rows.
        columns: Names of the columns.
        problems: Text, infinities and cells that `gaps` does not allow are appended.
        rules: Which words mean a missing value.
        gaps: Which cells become NaN instead of a problem.
        notes: Columns of True and False, and cells that become NaN, are appended with counts.
        booleans: Columns in which True and False are numbers; None for columns that contain nothing else.
        way_out: An alternative fix for a missing number.

    Returns:
        float32 (N, columns).
    """
    values = np.full((len(table), len(columns)), np.nan, dtype=np.float32)
    for k, name in enumerate(columns):
        cells = table.column(name)
        if (plain := plain_numbers(cells)) is not None:
            values[:, k] = plain
            continue
        counts = Counter(cells)
        of_cell = {cell: value for cell in counts if (value := number(cell)) is not None}
        if is_boolean(counts, rules) if booleans is None else name in booleans:
            of_cell |= {cell: float(cell.casefold() in TRUE) for cell in counts if cell.casefold() in TRUE | FALSE}
        values[:, k] = [of_cell.get(cell, np.nan) for cell in cells]
        others = {cell for cell in counts if cell not in of_cell}
        filled = {cell for cell in others if gaps == "any" or (gaps == "missing" and rules.is_missing(cell))}
        if others - filled:
            reasons = {cell: _reason(cell, rules, way_out) for cell in others - filled}
            rows = [(row, cell) for row, cell in enumerate(cells) if cell in reasons]
            problems += [table.problem(row, *reasons[cell], name) for row, cell in rows]
        if notes is not None:
            notes += _notes(table, name, Counter({cell: counts[cell] for cell in filled}), set(of_cell))
    return values


def weights(table: Table, column: str, problems: list[Problem], rules: TextRules = TEXT_RULES) -> NDArray[np.float32]:
    """A column of weights.

    Args:
        table: N rows.
        column: Its name.
        problems: What is no number from 0 is appended, and that all of them are 0.
        rules: Which words mean a missing value.

    Returns:
        float32 (N,).
    """
    before = len(problems)
    found = numbers(table, [column], problems, rules, booleans=())[:, 0]
    for row in np.flatnonzero(found < 0).tolist():
        problems.append(table.problem(row, "the weight is negative", "Write a number from 0.", column))
    if len(problems) == before and len(found) and not found.any():
        fix = "Give some rows a weight above 0, or name another column."
        problems.append(Problem(str(table.path), "all weights are 0: nothing would be learnt", fix, column=column))
    return found


def precision_problems(table: Table, columns: Sequence[str]) -> list[Problem]:
    """Columns of a training table whose numbers differ too little for their size to be told apart as float32.

    Args:
        table: The table.
        columns: Columns of numbers; other cells do not count.
    """
    problems = []
    for name in columns:
        values = plain_numbers(table.column(name))
        if values is None:
            values = np.array([float(cell) for cell in set(table.column(name)) if number(cell) is not None])
        spread = np.ptp(values) if len(values) else 0.0
        error = np.abs(values - values.astype(np.float32)).max(initial=0.0)
        if spread and error > LARGEST_ERROR * spread:
            lowest, highest = values.min(), values.max()
            message = (
                f"the numbers go from {lowest:.17g} to {highest:.17g}, and as float32, in which networks compute, they "
                f"are wrong by up to {error:.3g}"
            )
            fix = f"Subtract a number from each, such as {lowest:.17g}, or use another unit."
            problems.append(Problem(str(table.path), message, fix, column=name))
    return problems


def are_numbers(cells: Iterable[str]) -> bool:
    """Whether all cells are numbers."""
    return all(map(NUMBER.fullmatch, cells))


def plain_numbers(cells: Sequence[str]) -> NDArray[np.float64] | None:
    """The cells as numbers, float64 (N,), where all of them are; else None. Faster than `number` of each."""
    try:
        values = np.fromiter(map(float, cells), np.float64, len(cells))
    except ValueError:
        return None
    is_plain = (np.abs(values) <= LARGEST).all() and not any("_" in cell for cell in cells)
    return values if is_plain else None


def number(cell: str) -> float | None:
    """The cell as a float32 number; None if it is not a finite one."""
    return value if NUMBER.fullmatch(cell) and abs(value := float(cell)) <= LARGEST else None


def is_boolean(cells: Iterable[str], rules: TextRules) -> bool:
    """Whether all cells that are not missing are 0, 1, or words like True and No."""
    has_any = False
    for cell in cells:
        if not rules.is_missing(cell):
            has_any = True
            if cell.casefold() not in TRUE | FALSE and number(cell) not in (0.0, 1.0):
                return False
    return has_any


def _notes(table: Table, name: str, filled: Counter[str], read: set[str]) -> list[str]:
    words = sorted(cell for cell in read if cell.casefold() in TRUE | FALSE)
    notes = [f"{table.path}: column '{name}': {', '.join(words)} are read as 1 and 0."] if words else []
    if filled:
        count = number_of(filled.total(), "cell without a number is", "cells without a number are")
        notes.append(f"{table.path}: column '{name}': {count} filled with the training rows' mean: {counted(filled)}.")
    return notes


def _reason(cell: str, rules: TextRules, way_out: str) -> tuple[str, str]:
    """Why a cell is not a number, and the fix."""
    fix = f"Write a number like -1234.5, or {way_out}."
    if not cell:
        return "the cell is empty", fix
    if rules.is_missing(cell):
        return "the cell is not a finite number but a word for a missing value", fix
    if GROUPED.fullmatch(cell):
        message = "the number contains a decimal comma or thousands separators"
        return message, "Write it like 1234.5; pandas.read_csv(…, decimal=',', thousands='.') reads such files."
    return "the cell is not a finite number", "Write a number like -1234.5, without a unit, or remove the row."
