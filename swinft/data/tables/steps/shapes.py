"""Steps that combine tables or change their shape: join, pivot, melt."""

from typing import Any

from swinft.data.tables.steps.frame import Context, Frame
from swinft.data.tables.steps.sequence import MakeSteps, StepList
from swinft.data.tables.steps.step import BuiltinStep, name, pairs, texts, word
from swinft.data.tables.text import normal
from swinft.errors import InputError, listed, number_of

Key = tuple[str, ...]


class JoinStep(BuiltinStep):
    """Adds columns of another table, whose rows are found by equal cells.

    Args:
        table: The other table: steps, or the path of a CSV. It has each key once.
        on: The columns of the key: a name, a list, or a mapping where the other table names them otherwise.
        columns: Columns of the other table that are added, as names or patterns; null for all.
        how: A row without partner is an `error`; with `left` its new cells are empty; with `inner` it is left out.
    """

    word = "join"

    def __init__(self, table: Any, on: Any, columns: Any = None, how: Any = "error") -> None:
        self.given, self.how = table, word("how", how, ("error", "left", "inner"))
        is_mapping = not isinstance(on, str | list | tuple)
        self.on = pairs("on", on, "{left: right}") if is_mapping else {each: each for each in texts("on", on)}
        self.columns = None if columns is None else texts("columns", columns)
        self.table: StepList | None = None

    def nest(self, key: str, make: MakeSteps) -> None:
        """The other table as steps."""
        self.table = make(f"{key}: table", self.given)

    def run(self, frame: Frame, context: Context) -> Frame:
        """The rows with further columns; never more rows."""
        assert self.table is not None
        other = self.table.run(context)
        right = context.inside(f"{context.where}: table")
        if other is None or not (context.has_columns(frame, self.on) & right.has_columns(other, self.on.values())):
            return frame
        keys = set(self.on.values())
        added = [each for each in other.columns if each not in keys]
        if self.columns is not None:
            added = right.matching(other, self.columns)
        fix = "Name the columns to add in `columns`, or rename or drop that one first."
        if not context.is_free(frame, (each for each in added if self.on.get(each) != each), fix):
            return frame
        added = [each for each in added if each not in frame.columns]
        row_of = self._rows_by_key(other, context)
        wanted = [_normal(key) for key in frame.keys(list(self.on))]
        partners = [row_of.get(key) for key in wanted]
        self._report(frame, wanted, partners, row_of, context)
        if self.how == "inner":
            kept = [row for row, partner in enumerate(partners) if partner is not None]
            frame, partners = frame.take(kept), [partners[row] for row in kept]
        return frame.with_columns(
            {each: ["" if row is None else other.columns[each][row] for row in partners] for each in added}
        )

    def _rows_by_key(self, other: Frame, context: Context) -> dict[Key, int]:
        """The row of each key; a key that two rows have is a problem."""
        row_of: dict[Key, int] = {}
        names = list(self.on.values())
        for row, key in enumerate(map(_normal, other.keys(names))):
            if (first := row_of.setdefault(key, row)) != row:
                message = f"the other table has the key {_shown(key)} twice, so that rows would be multiplied"
                before = context.named(other, first)
                fix = f"{before} has it too: make it unique by `unique` or `group`, or join `on` more columns."
                context.fail_row(other, row, message, fix)
        return row_of

    def _report(
        self, frame: Frame, wanted: list[Key], partners: list[int | None], row_of: dict[Key, int], context: Context
    ) -> None:
        """Rows without a partner: problems, or a count."""
        lonely = [row for row, partner in enumerate(partners) if partner is None]
        first = next(iter(self.on))
        if self.how == "error":
            fix = "Restore it there, or set `how` to left for empty cells, or to inner to leave the row out."
            for row in lonely:
                message = "the other table has no such row"
                context.fail_row(frame, row, message, fix, first if len(self.on) == 1 else None)
        elif lonely:
            done = "left out" if self.how == "inner" else "with empty cells"
            context.details.append(f"{number_of(len(lonely), 'row')} without a partner, {done}")
        if frame.places and len(lonely) == len(partners) and self.how != "error":
            shown = f"such as {_shown(wanted[0])}, and there {listed(map(_shown, list(row_of)[:1]))}"
            context.fail(f"no row has a partner: keys are here {shown}", "Correct `on`, or the keys before the join.")
        unused = len(row_of) - len(set(wanted) & set(row_of))
        if unused:
            context.details.append(f"{number_of(unused, 'row')} of the other table unused")


def _normal(key: Key) -> Key:
    return tuple(map(normal, key))


def _shown(key: Key) -> str:
    return ", ".join(map(repr, key))


class PivotStep(BuiltinStep):
    """Makes one row of several: cells of one column become columns (long to wide).

    Args:
        index: The columns that the rows of one new row share.
        columns: The column whose cells are the names of the new columns.
        values: The column whose cells fill them.
    """

    word = "pivot"

    def __init__(self, index: Any, columns: Any, values: Any) -> None:
        self.index, self.columns, self.values = texts("index", index), name("columns", columns), name("values", values)
        if len({*self.index, self.columns, self.values}) < len(self.index) + 2:
            raise InputError("index, columns and values must be different columns.")

    def run(self, frame: Frame, context: Context) -> Frame:
        """One row for each combination of cells in `index`."""
        if not context.has_columns(frame, [*self.index, self.columns, self.values]):
            return frame
        first_of: dict[Key, int] = {}
        row_of: dict[tuple[Key, str], int] = {}
        names: dict[str, None] = {}
        for row, key in enumerate(frame.keys(self.index)):
            new = normal(frame.columns[self.columns][row])
            names[new] = None
            first_of.setdefault(key, row)
            if not new:
                context.fail_row(frame, row, "the name of a new column is empty", "Fill the cell.", self.columns)
            elif (first := row_of.setdefault((key, new), row)) != row:
                fix = f"{context.named(frame, first)} has another one: remove one, or add columns to `index`."
                context.fail_row(frame, row, f"there are two values of '{new}' for {_shown(key)}", fix, self.values)
        found = frame.only(self.index).take(list(first_of.values()))
        if not context.is_free(found, names, "Rename that column first."):
            return frame
        values = frame.columns[self.values]
        made = {
            each: [values[row_of[key, each]] if (key, each) in row_of else "" for key in first_of] for each in names
        }
        empty = sum(not cell for cells in made.values() for cell in cells)
        if empty:
            context.details.append(f"{number_of(empty, 'new cell')} empty")
        dropped = [each for each in frame.columns if each not in (*self.index, self.columns, self.values)]
        if dropped:
            context.details.append(f"without {listed(dropped, 5)}, which `index` does not name")
        return found.with_columns(made)


class MeltStep(BuiltinStep):
    """Makes several rows of one: a row for each of some columns (wide to long).

    Args:
        id: The columns that each new row keeps.
        columns: The columns that become rows, as names or patterns; null for all others.
        name: A new column for their names.
        value: A new column for their cells.
    """

    word = "melt"

    def __init__(self, id: Any, columns: Any = None, name: Any = "name", value: Any = "value") -> None:
        self.id, self.columns = texts("id", id), None if columns is None else texts("columns", columns)
        self.new = [texts("name", name)[0], texts("value", value)[0]]
        if len({*self.new, *self.id}) < len(self.id) + 2:
            raise InputError("id, name and value must be different columns.")

    def run(self, frame: Frame, context: Context) -> Frame:
        """The rows, each once for every column, in the table's order of columns."""
        others = [each for each in frame.columns if each not in self.id]
        if not context.has_columns(frame, self.id):
            return frame
        chosen = others if self.columns is None else context.matching(frame.only(others), self.columns)
        if not chosen:
            context.fail("no column becomes rows", "Name them in `columns`.")
            return frame
        rows = [row for row in range(len(frame)) for _ in chosen]
        found = frame.only(self.id).take(rows)
        cells = [cell for row in zip(*(frame.columns[each] for each in chosen), strict=True) for cell in row]
        dropped = [each for each in others if each not in chosen]
        if dropped:
            context.details.append(f"without {listed(dropped, 5)}")
        return found.with_columns(dict(zip(self.new, (chosen * len(frame), cells), strict=True)))
