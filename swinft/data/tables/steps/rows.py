"""Steps that choose or multiply rows: where, explode, unique, concat."""

from collections.abc import Sequence
from typing import Any

from swinft.data.tables.steps.columns import compiled
from swinft.data.tables.steps.frame import Context, Frame
from swinft.data.tables.steps.sequence import MakeSteps, StepList
from swinft.data.tables.steps.step import BuiltinStep, name, text, texts
from swinft.data.tables.text import normal, strip
from swinft.errors import InputError, number_of, suggest


class WhereStep(BuiltinStep):
    """Keeps the rows whose cell in a column fulfils one condition.

    Args:
        column: The column.
        is_: Cells that are kept.
        is_not: Cells that are left out.
        is_empty: Whether empty cells are kept, or all others.
        matches: A regular expression that is searched in each cell.
    """

    word = "where"

    def __init__(
        self, column: Any, is_: Any = None, is_not: Any = None, is_empty: Any = None, matches: Any = None
    ) -> None:
        self.column, self.is_empty = name("column", column), is_empty
        given = {"is": is_, "is_not": is_not, "is_empty": is_empty, "matches": matches}
        if sum(each is not None for each in given.values()) != 1:
            raise InputError(f"it needs exactly one of {', '.join(given)}.")
        if is_empty is not None and not isinstance(is_empty, bool):
            raise InputError(f"is_empty is {is_empty!r}; write true or false.")
        self.pattern = None if matches is None else compiled("matches", matches)
        self.is_not = is_not is not None
        values = is_not if self.is_not else is_
        self.values = (
            [] if values is None else [normal(each) for each in texts("is_not" if self.is_not else "is", values)]
        )

    def run(self, frame: Frame, context: Context) -> Frame:
        """Some of the rows."""
        if not context.has_columns(frame, [self.column]):
            return frame
        cells = [normal(cell) for cell in frame.columns[self.column]]
        if self.is_empty is not None:
            kept = [row for row, cell in enumerate(cells) if (not cell) == self.is_empty]
        elif self.pattern is not None:
            kept = [row for row, cell in enumerate(cells) if self.pattern.search(cell)]
        else:
            kept = [row for row, cell in enumerate(cells) if (cell in self.values) != self.is_not]
        present = set(cells)
        for value in self.values:
            if value not in present:
                context.details.append(f"no cell of '{self.column}' is {value!r}.{suggest(value, present)}".rstrip("."))
        if not kept and len(frame):
            context.fail("it keeps no row", f"Correct it.{suggest('', sorted(present)[:10])}", column=self.column)
        context.details.append(f"{number_of(len(frame) - len(kept), 'row')} left out")
        return frame.take(kept)


class ExplodeStep(BuiltinStep):
    """Makes one row of each part of a cell.

    Args:
        column: The column.
        delimiter: Text between the parts; a blank is any blanks.
    """

    word = "explode"

    def __init__(self, column: Any, delimiter: Any = " ") -> None:
        self.column, self.delimiter = name("column", column), text("delimiter", delimiter)
        if not self.delimiter:
            raise InputError("delimiter is empty; write the text between the parts.")

    def run(self, frame: Frame, context: Context) -> Frame:
        """The rows, each once for every part; a row with an empty cell once."""
        if not context.has_columns(frame, [self.column]):
            return frame
        by = None if self.delimiter == " " else self.delimiter
        parts = [[each for piece in cell.split(by) if (each := strip(piece))] for cell in frame.columns[self.column]]
        empty = sum(not each for each in parts)
        if empty:
            context.details.append(f"{number_of(empty, 'row')} with an empty cell")
        rows = [row for row, each in enumerate(parts) for _ in each or [""]]
        cells = [part for each in parts for part in each or [""]]
        return frame.take(rows).with_columns({self.column: cells})


class UniqueStep(BuiltinStep):
    """Keeps the first of the rows that are equal in some columns.

    Args:
        columns: Names, or patterns.
    """

    word = "unique"

    def __init__(self, columns: Any) -> None:
        self.columns = texts("columns", columns)

    def run(self, frame: Frame, context: Context) -> Frame:
        """Some of the rows; other columns in which the rows differ are named."""
        names = context.matching(frame, self.columns)
        if not names:
            return frame
        first: dict[tuple[str, ...], int] = {}
        for row, key in enumerate(frame.keys(names)):
            first.setdefault(key, row)
        left_out = len(frame) - len(first)
        context.details.append(f"{number_of(left_out, 'row')} left out")
        found = frame.take(list(first.values()))
        if left_out and (varying := varying_columns(frame, names)):
            context.details.append(f"they differ in {', '.join(varying[:5])}{' …' * (len(varying) > 5)}")
        return found


def varying_columns(frame: Frame, by: Sequence[str]) -> list[str]:
    """The columns whose cells differ among rows that are equal in others."""
    keys, found = frame.keys(by), []
    for each in frame.columns:
        first: dict[tuple[str, ...], str] = {}
        if each not in by and any(
            first.setdefault(key, cell) != cell for key, cell in zip(keys, frame.columns[each], strict=True)
        ):
            found.append(each)
    return found


class ConcatStep(BuiltinStep):
    """Puts the rows of several tables one after the other, behind those of the table so far.

    Args:
        tables: Lists of steps, or paths of CSVs.
    """

    word, position = "concat", "any"

    def __init__(self, tables: Any) -> None:
        if isinstance(tables, str) or not isinstance(tables, Sequence) or not tables:
            raise InputError(f"it is {tables!r}; write a list of tables, each a list of steps.")
        self.given, self.tables = list(tables), list[StepList]()

    def nest(self, key: str, make: MakeSteps) -> None:
        """The tables as steps."""
        self.tables = [make(f"{key}: table {number}", each) for number, each in enumerate(self.given, start=1)]

    def run(self, frame: Frame, context: Context) -> Frame:
        """All rows; a cell of a column that a table lacks is empty."""
        made = [each.run(context) for each in self.tables]
        if any(each is None for each in made):
            return frame
        parts = [*([frame] if frame.columns else []), *(each for each in made if each is not None)]
        names = list(dict.fromkeys(name for part in parts for name in part.columns))
        for each in names:
            lacking = sum(len(part) for part in parts if each not in part.columns)
            if lacking:
                context.details.append(f"'{each}' is empty in {number_of(lacking, 'row')}")
        columns = {
            each: [cell for part in parts for cell in part.columns.get(each, [""] * len(part))] for each in names
        }
        return Frame(columns, [place for part in parts for place in part.places])
