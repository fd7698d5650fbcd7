"""The step `group`: one row of all rows with equal cells."""

import math
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from swinft.data.tables.numbers import number
from swinft.data.tables.steps.cells import cell_text
from swinft.data.tables.steps.frame import Context, Frame
from swinft.data.tables.steps.rows import varying_columns
from swinft.data.tables.steps.step import BuiltinStep, name, pairs, texts
from swinft.errors import InputError, listed, number_of

Compute = Callable[[list[str]], str | None]
# From cells that are numbers, at least one, to a cell; the largest and the smallest number keep their digits.
NUMBERS: dict[str, Compute] = {
    "max": lambda cells: max(cells, key=Decimal),
    "min": lambda cells: min(cells, key=Decimal),
    "sum": lambda cells: cell_text(math.fsum(map(float, cells))),
    "mean": lambda cells: cell_text(math.fsum(map(float, cells)) / len(cells)),
}


class GroupStep(BuiltinStep):
    """Makes one row of all rows that are equal in some columns; columns that are not named are left out.

    Args:
        by: The columns.
        first: Columns whose cell is that of the first row; a note says if the others differ.
        join: Columns whose cells are joined, each with the text between them: `{label: " "}`; empty cells are left out.
        max: Columns of numbers; empty cells are left out, and so for the next three.
        min: Columns of numbers.
        mean: Columns of numbers.
        sum: Columns of numbers.
        count: A new column for the number of rows.
    """

    word = "group"

    def __init__(
        self,
        by: Any,
        first: Any = None,
        join: Any = None,
        max: Any = None,
        min: Any = None,
        mean: Any = None,
        sum: Any = None,
        count: Any = None,
    ) -> None:
        self.by, self.first = texts("by", by), [] if first is None else texts("first", first)
        self.join = {} if join is None else pairs("join", join, "{label: ' '}")
        given = {"max": max, "min": min, "mean": mean, "sum": sum}
        self.numbers = {key: texts(key, each) for key, each in given.items() if each is not None}
        self.count = None if count is None else name("count", count)
        made = [*self.by, *self.first, *self.join, *(each for some in self.numbers.values() for each in some)]
        made += [self.count] if self.count else []
        if doubled := sorted({each for each in made if made.count(each) > 1}):
            raise InputError(f"the column '{doubled[0]}' is named twice; copy it by `format` first.")

    def run(self, frame: Frame, context: Context) -> Frame:
        """One row of each group, in the order of their first rows."""
        numeric = {each: key for key, some in self.numbers.items() for each in some}
        if not context.has_columns(frame, [*self.by, *self.first, *self.join, *numeric]):
            return frame
        groups: dict[tuple[str, ...], list[int]] = {}
        for row, key in enumerate(frame.keys(self.by)):
            groups.setdefault(key, []).append(row)
        found = frame.only([*self.by, *self.first]).take([rows[0] for rows in groups.values()])
        if varying := varying_columns(frame.only([*self.by, *self.first]), self.by):
            context.details.append(f"rows of one group differ in {listed(varying, 5)}; the first one counts")
        made: dict[str, list[str]] = {}
        for column, between in self.join.items():
            cells = frame.columns[column]
            made[column] = [between.join(cells[row] for row in rows if cells[row]) for rows in groups.values()]
        for column, how in numeric.items():
            made[column] = _computed(frame, column, NUMBERS[how], list(groups.values()), context)
        if self.count:
            made[self.count] = [str(len(rows)) for rows in groups.values()]
        dropped = [each for each in frame.columns if each not in {**found.columns, **made}]
        if dropped:
            context.details.append(f"without {listed(dropped, 5)}")
        return found.with_columns(made)


def _computed(frame: Frame, column: str, compute: Compute, groups: list[list[int]], context: Context) -> list[str]:
    """A number for each group of rows; empty if all its cells are."""
    cells, before = frame.columns[column], len(context.problems)
    for row, cell in enumerate(cells):
        if cell and number(cell) is None:
            context.fail_row(frame, row, "the cell is no number", "Correct it, or empty it by `map`.", column)
    if len(context.problems) > before:
        return [""] * len(groups)
    found = []
    for rows in groups:
        known = [cells[row] for row in rows if cells[row]]
        found.append((compute(known) or "") if known else "")
    empty = sum(not cell for cell in found)
    if empty:
        context.details.append(f"'{column}' is empty in {number_of(empty, 'group')}")
    return found
