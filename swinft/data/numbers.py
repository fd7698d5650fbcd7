"""Cells become numbers; what is none is named, and columns of True and False are read as 1 and 0.

Shapes: N rows.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from swinft.data.schema import NUMBER
from swinft.data.table import Problem, Table
from swinft.data.text import FALSE, TEXT_RULES, TRUE, TextRules, counted

LARGEST = float(np.finfo(np.float32).max)
GROUPED = re.compile(r"[+-]?\d[\d.]*([,'’\s]|\.\d+\.)[\d.,'’\s]*")  # `1,5`, `1 234`, `1.234.567`
# Which cells may be no number: none; words for a missing value; any.
Gaps = Literal["none", "missing", "any"]


def numbers(
    table: Table,
    columns: Sequence[str],
    problems: list[Problem],
    rules: TextRules = TEXT_RULES,
    gaps: Gaps = "none",
    notes: list[str] | None = None,
) -> NDArray[np.float32]:
    """Columns of cells as numbers.

    Args:
        table: N rows.
        columns: Names of the columns.
        problems: Text, infinities, and what `gaps` does not allow are appended.
        rules: Which words mean a missing value.
        gaps: Which cells become NaN instead of a problem.
        notes: Columns of True and False, and cells that become NaN, are appended with counts.

    Returns:
        float32 (N, columns).
    """
    values = np.full((len(table), len(columns)), np.nan, dtype=np.float32)
    for k, name in enumerate(columns):
        cells = table.column(name)
        counts = Counter(cells)
        of_cell = _numbers_of(counts, rules)
        values[:, k] = [of_cell.get(cell, np.nan) for cell in cells]
        others = {cell for cell in counts if cell not in of_cell}
        filled = {cell for cell in others if gaps == "any" or (gaps == "missing" and rules.is_missing(cell))}
        if others - filled:
            _report(table, name, others - filled, rules, problems)
        if notes is not None:
            notes += _notes(table, name, Counter({cell: counts[cell] for cell in filled}), set(of_cell))
    return values


def number(cell: str) -> float | None:
    """The cell as a number of 32 bits; None where it is none, or infinite."""
    return value if NUMBER.fullmatch(cell) and abs(value := float(cell)) <= LARGEST else None


def _numbers_of(cells: Counter[str], rules: TextRules) -> dict[str, float]:
    """The number of each cell that is one; of words like True and No where the column holds nothing else."""
    found = {cell: value for cell in cells if (value := number(cell)) is not None}
    words = {cell: float(cell.casefold() in TRUE) for cell in cells if cell.casefold() in TRUE | FALSE}
    rest = [cell for cell in cells if cell not in found and cell not in words and not rules.is_missing(cell)]
    return found if rest or set(found.values()) - {0.0, 1.0} else {**found, **words}


def _notes(table: Table, name: str, filled: Counter[str], read: set[str]) -> list[str]:
    words = sorted(cell for cell in read if cell.casefold() in TRUE | FALSE)
    notes = [f"{table.path}: column '{name}': {', '.join(words)} are read as 1 and 0."] if words else []
    if filled:
        count = f"{filled.total():,} cells without a number are filled with the training rows' mean"
        notes.append(f"{table.path}: column '{name}': {count}: {counted(filled)}.")
    return notes


def _report(table: Table, name: str, bad: set[str], rules: TextRules, problems: list[Problem]) -> None:
    reasons = {cell: _reason(cell, rules) for cell in bad}
    for row, cell in enumerate(table.column(name)):
        if cell in reasons:
            problems.append(table.problem(row, *reasons[cell], name))


def _reason(cell: str, rules: TextRules) -> tuple[str, str]:
    """Why a cell is no number, and the edit."""
    fix = "Write a number like -1234.5, or remove the row."
    if not cell:
        return "the cell is empty", fix
    if rules.is_missing(cell):
        return "the cell is no finite number but a word for a missing value", fix
    if GROUPED.fullmatch(cell):
        message = "the number holds a decimal comma or signs between its thousands"
        return message, "Write it like 1234.5; pandas.read_csv(…, decimal=',', thousands='.') reads such files."
    return "the cell is no finite number", fix
