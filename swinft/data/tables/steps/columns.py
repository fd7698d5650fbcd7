"""Steps that change columns: rename, keep, drop, format, extract, map, number."""

import re
from collections import Counter
from typing import Any

from swinft.data.image_paths import FIELD
from swinft.data.tables.steps.frame import Context, Frame
from swinft.data.tables.steps.step import BuiltinStep, name, pairs, text, texts
from swinft.data.tables.text import counted, normal, strip
from swinft.errors import InputError, number_of, suggest
from swinft.ranges import is_whole


class RenameStep(BuiltinStep):
    """Renames columns.

    Args:
        names: The new name of each column.
    """

    word, takes_mapping = "rename", True

    def __init__(self, names: Any) -> None:
        self.names = pairs("it", names, "{old: new}")
        new = list(self.names.values())
        if doubled := [each for each in new if new.count(each) > 1 or not each.strip()]:
            raise InputError(f"it gives the name '{doubled[0]}' to two columns, or to none.")

    def run(self, frame: Frame, context: Context) -> Frame:
        """The same rows under other names."""
        others = frame.only(each for each in frame.columns if each not in self.names)
        if not context.has_columns(frame, self.names):
            return frame
        context.is_free(others, self.names.values(), "Rename or drop that one first, or choose another name.")
        return Frame({self.names.get(each, each): cells for each, cells in frame.columns.items()}, frame.places)


class KeepStep(BuiltinStep):
    """Keeps some columns, in the table's order.

    Args:
        columns: Names, or patterns such as `tbp_lv_*`.
    """

    word = "keep"

    def __init__(self, columns: Any) -> None:
        self.columns = texts("columns", columns)

    def run(self, frame: Frame, context: Context) -> Frame:
        """The same rows with fewer columns."""
        return frame.only(context.matching(frame, self.columns))


class DropStep(KeepStep):
    """Drops some columns.

    Args:
        columns: Names, or patterns such as `tbp_lv_*`.
    """

    word = "drop"

    def run(self, frame: Frame, context: Context) -> Frame:
        """The same rows with fewer columns."""
        dropped = set(context.matching(frame, self.columns))
        return frame.only(each for each in frame.columns if each not in dropped)


class FormatStep(BuiltinStep):
    """Makes columns from the cells of others; a column of the same name is replaced.

    Args:
        columns: The text of each new column, with columns in braces: `{row_id: "{study_id}_{level}"}`; `{id:03d}` pads
            a whole number with zeros.
    """

    word, takes_mapping = "format", True

    def __init__(self, columns: Any) -> None:
        self.columns = pairs("it", columns, "{new: '{a}_{b}'}")
        for each, template in self.columns.items():
            name("the name of a new column", each)
            if "{" in (rest := FIELD.sub("", template)) or "}" in rest:
                raise InputError(f"'{each}': '{template}' has a brace without its other one, or an empty pair.")

    def run(self, frame: Frame, context: Context) -> Frame:
        """The same rows with further columns, all made from the table before the step."""
        found = {}
        for each, template in self.columns.items():
            parts = FIELD.split(template)  # text, name, width, text, …
            if context.has_columns(frame, parts[1::3]):
                columns = [[part] * len(frame) for part in parts[::3]]
                for number, (column, width) in enumerate(zip(parts[1::3], parts[2::3], strict=True)):
                    cells = frame.columns[column]
                    columns.insert(2 * number + 1, _padded(frame, column, int(width), context) if width else cells)
                found[each] = [strip("".join(row)) for row in zip(*columns, strict=True)]
                empty = sum(not all(row) for row in frame.keys(parts[1::3]))
                if empty:
                    context.details.append(f"'{each}': {number_of(empty, 'row')} with an empty cell in it")
        return frame.with_columns(found)


def _padded(frame: Frame, column: str, width: int, context: Context) -> list[str]:
    """A column of whole numbers with leading zeros."""
    cells = frame.columns[column]
    for row, cell in enumerate(cells):
        if not (cell.isascii() and cell.isdigit()):
            fix = "Write a whole number like 7, or leave the width out of the template."
            context.fail_row(frame, row, f"the template pads whole numbers to {width} digits", fix, column)
    return [cell.zfill(width) for cell in cells]


class ExtractStep(BuiltinStep):
    """Makes columns from parts of the cells of one; a column of the same name is replaced.

    Args:
        column: The column.
        pattern: A regular expression that is searched in each cell; its named groups are the new columns:
            `(?P<patient>[0-9]+)_`.
        default: What new columns contain where it is not found; null for an error.
    """

    word = "extract"

    def __init__(self, column: Any, pattern: Any, default: Any = None) -> None:
        self.column, self.default = name("column", column), None if default is None else text("default", default)
        self.pattern = compiled("pattern", pattern)
        if not self.pattern.groupindex:
            raise InputError(f"pattern '{pattern}' has no named group: write (?P<name>…) for a column 'name'.")

    def run(self, frame: Frame, context: Context) -> Frame:
        """The same rows with further columns."""
        if not context.has_columns(frame, [self.column]):
            return frame
        matches = [self.pattern.search(cell) for cell in frame.columns[self.column]]
        missing = [row for row, match in enumerate(matches) if match is None]
        if self.default is None:
            fix = "Correct the pattern, or give a `default` for such cells."
            for row in missing:
                context.fail_row(frame, row, f"'{self.pattern.pattern}' is not found", fix, self.column)
        elif missing:
            context.details.append(f"{number_of(len(missing), 'cell')} without a match: {self.default!r}")
        return frame.with_columns(
            {
                group: [(self.default or "") if each is None else strip(each[group] or "") for each in matches]
                for group in self.pattern.groupindex
            }
        )


class MapStep(BuiltinStep):
    """Replaces the cells of a column by others.

    Args:
        column: The column.
        values: What each cell becomes; the key '' is for empty cells.
        default: What other cells become: `error`, `keep` for themselves, or a text; '' for empty.
        to: A new column for the result; null to replace the column.
    """

    word = "map"

    def __init__(self, column: Any, values: Any, default: Any = "error", to: Any = None) -> None:
        self.column, self.default = name("column", column), text("default", default)
        self.values = {normal(key): value for key, value in pairs("values", values, "{cat: '0', dog: '1'}").items()}
        self.to = self.column if to is None else name("to", to)

    def run(self, frame: Frame, context: Context) -> Frame:
        """The same rows with other cells."""
        if not context.has_columns(frame, [self.column]):
            return frame
        keys = [normal(cell) for cell in frame.columns[self.column]]
        others = Counter(key for key in keys if key not in self.values)
        if self.default == "error":
            for row, key in enumerate(keys):
                if key in others:
                    fix = f"Add it to `values`, or set `default`.{suggest(key, self.values)}"
                    context.fail_row(frame, row, "`values` does not have this cell", fix, self.column)
        elif others:
            kept = "kept" if self.default == "keep" else f"{self.default!r}"
            context.details.append(f"{number_of(others.total(), 'cell')} by default, {kept}: {counted(others)}")
        if unused := sorted(set(self.values).difference(keys)):
            context.details.append(f"no cell is {', '.join(map(repr, unused[:5]))}")
        pairs_ = zip(keys, frame.columns[self.column], strict=True)
        cells = [self.values.get(key, cell if self.default == "keep" else self.default) for key, cell in pairs_]
        return frame.with_columns({self.to: [strip(cell) for cell in cells]})


class NumberStep(BuiltinStep):
    """Numbers the rows in a new column.

    Args:
        column: The new column.
        start: Number of the first row.
    """

    word = "number"

    def __init__(self, column: Any, start: Any = 1) -> None:
        self.column, self.start = name("column", column), start
        if not is_whole(start):
            raise InputError(f"start is {start!r}; write a whole number.")

    def run(self, frame: Frame, context: Context) -> Frame:
        """The same rows, with the new column first."""
        if not context.is_free(frame, [self.column], "Choose another name."):
            return frame
        numbers = [str(self.start + row) for row in range(len(frame))]
        return Frame({self.column: numbers, **frame.columns}, frame.places)


def compiled(key: str, given: Any) -> re.Pattern[str]:
    """An argument that is a regular expression.

    Raises:
        InputError: It is not.
    """
    try:
        return re.compile(name(key, given))
    except re.error as error:
        raise InputError(f"{key} '{given}' is not a regular expression: {error}.") from error
