"""A table between two steps: cells as text, and where each row comes from."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path

from swinft.data.tables.table import Problem
from swinft.errors import number_of, suggest

RECORDS = 2**40  # a row's place: number of its file, from 1, times this, plus the line or record


@dataclass(frozen=True)
class Frame:
    """N rows of text between two steps; the lists are never changed.

    Args:
        columns: The columns.
        places: Where each row comes from, as `Context.place` gives it; N.
    """

    columns: Mapping[str, list[str]]
    places: list[int]

    def __len__(self) -> int:
        return len(self.places)

    def take(self, rows: Sequence[int]) -> "Frame":
        """The frame of some rows; a row may be taken several times."""
        columns = {name: [cells[row] for row in rows] for name, cells in self.columns.items()}
        return Frame(columns, [self.places[row] for row in rows])

    def only(self, names: Iterable[str]) -> "Frame":
        """The frame of some columns."""
        return Frame({name: self.columns[name] for name in names}, self.places)

    def with_columns(self, columns: Mapping[str, list[str]]) -> "Frame":
        """The frame with further columns; one of the same name is replaced, in its position."""
        return Frame({**self.columns, **columns}, self.places)

    def keys(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        """The cells of some columns, row by row."""
        return list(zip(*(self.columns[name] for name in names), strict=True)) if names else [()] * len(self)


@dataclass(frozen=True)
class Context:
    """What steps need besides the table, and where they report.

    Args:
        root: Folder of the data.
        encoding: Encoding of CSVs.
        follow_links: Whether links may lead out of a folder, `data.loading.follow_links`.
        where: The step, for messages: `data.train: step 2, join`.
        id_column: The id, which names rows in messages once a step has made it.
        files: The files that rows come from.
        problems: Errors are appended.
        notes: Notes are appended, one line for each step.
        details: What the current step says of itself.
    """

    root: Path
    encoding: str = "utf-8"
    follow_links: bool = False
    where: str = ""
    id_column: str | None = None
    files: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)

    def inside(self, where: str) -> "Context":
        """The context of another step."""
        return replace(self, where=where, details=[])

    def path(self, given: str) -> str:
        """A path of the config, which is relative to the folder of the data."""
        return os.path.join(self.root, given)

    def places(self, file: str, records: Iterable[int]) -> list[int]:
        """The places of rows of a file.

        Args:
            file: The file.
            records: The line or the number of each row in it, from 1.
        """
        self.files.append(file)
        start = len(self.files) * RECORDS
        return [start + record for record in records]

    def fail(
        self,
        message: str,
        fix: str,
        file: str | None = None,
        line: int | None = None,
        column: str | None = None,
        value: str | None = None,
        is_missing: bool = False,
    ) -> None:
        """Appends a problem that is not of a row of the table."""
        where, told = (self.where, message) if file is None else (file, f"{self.where}: {message}")
        self.problems.append(Problem(where, told, fix, line, column=column, value=value, is_missing=is_missing))

    def fail_row(self, frame: Frame, row: int, message: str, fix: str, column: str | None = None) -> None:
        """Appends a problem of one row, or of one of its cells."""
        file, record = self.origin(frame.places[row])
        value = frame.columns[column][row] if column else None
        ids = frame.columns.get(self.id_column or "")
        told = f"{self.where}: {message}"
        self.problems.append(Problem(file, told, fix, record, ids[row] if ids else None, column, value))

    def origin(self, place: int) -> tuple[str, int | None]:
        """The file of a place, and the line or record in it."""
        number, record = divmod(place, RECORDS)
        return (self.files[number - 1], record) if number else (self.where, None)

    def named(self, frame: Frame, row: int) -> str:
        """`file:line` of a row."""
        file, record = self.origin(frame.places[row])
        return f"{file}:{record}"

    def has_columns(self, frame: Frame, names: Iterable[str]) -> bool:
        """Whether the frame has all of these columns; a missing one is a problem."""
        missing = [name for name in dict.fromkeys(names) if name not in frame.columns]
        for name in missing:
            self.fail("there is no such column", f"Correct the name.{suggest(name, frame.columns)}", column=name)
        return not missing

    def matching(self, frame: Frame, patterns: Sequence[str]) -> list[str]:
        """The columns that patterns such as `tbp_lv_*` match, in the table's order; one without match is a problem."""
        for pattern in lost_patterns(patterns, frame.columns):
            what = "no column matches it" if is_pattern(pattern) else "there is no such column"
            self.fail(what, f"Correct it.{suggest(pattern, frame.columns)}", column=pattern)
        return matched_columns(patterns, frame.columns)

    def is_free(self, frame: Frame, names: Iterable[str], fix: str) -> bool:
        """Whether the frame lacks all of these columns; one that it has is a problem."""
        taken = [name for name in names if name in frame.columns]
        for name in taken:
            self.fail("the table already has a column of this name", fix, column=name)
        return not taken


def is_pattern(text: str) -> bool:
    """Whether a text is a pattern, in which `*`, `?` and `[` have a meaning."""
    return any(mark in text for mark in "*?[")


def matched_columns(patterns: Sequence[str], names: Iterable[str]) -> list[str]:
    """The names that are one of the patterns, or match one; upper and lower case differ."""
    known = list(names)
    exact = set(patterns) & set(known)
    open_ones = [pattern for pattern in patterns if is_pattern(pattern) and pattern not in exact]
    return [name for name in known if name in exact or any(fnmatchcase(name, each) for each in open_ones)]


def lost_patterns(patterns: Sequence[str], names: Iterable[str]) -> list[str]:
    """The patterns that match none of the names."""
    known = list(names)
    return [pattern for pattern in dict.fromkeys(patterns) if not matched_columns([pattern], known)]


def described(frame: Frame) -> str:
    """`1,000 rows, 5 columns`."""
    return f"{number_of(len(frame), 'row')}, {number_of(len(frame.columns), 'column')}"
