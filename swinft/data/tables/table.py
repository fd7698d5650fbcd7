"""Reads a CSV as a checked table, and reports all problems at once, with file, line, id and column.

All cells are text, without type inference: ids like `007`, `1e5` and `NA` are unchanged. Blanks around cells are
stripped (`swinft.data.tables.text.strip`).
"""

import csv
import hashlib
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from swinft.data.tables.csv_lines import UnreadableError, read_bytes, rows_of
from swinft.data.tables.packed import ColumnReader, compact
from swinft.data.tables.text import HOW_TWINS_DIFFER, normal, strip, twins
from swinft.errors import InputError, number_of, suggest

SHOWN = 20  # problems printed in full; the rest are counted
SHOWN_PER_KIND = 5  # so that 9,912 missing images do not hide one wrong column
LONGEST_SHOWN = 100  # characters of a cell in a message
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Problem:
    """A problem with the data, and its fix.

    Args:
        file: The file.
        message: The problem, without values, so that problems of one kind can be counted.
        fix: The fix, as a sentence.
        line: Line of the file.
        id: Id of the row.
        column: Name of the column.
        value: Content of the cell, or the path that was searched.
        is_missing: A file is missing: downloading the data would help.
    """

    file: str
    message: str
    fix: str
    line: int | None = None
    id: str | None = None
    column: str | None = None
    value: str | None = None
    is_missing: bool = False

    def __str__(self) -> str:
        location = f"{self.file}:{self.line}" if self.line is not None else self.file
        named = [("id", self.id), ("column", self.column), ("value", self.value)]
        details = ", ".join(f"{name} {_shortened(text)}" for name, text in named if text is not None)
        return f"{location}: {details + ': ' if details else ''}{self.message}. {self.fix}"


class DataError(InputError):
    """The data is wrong.

    Args:
        problems: All problems; the message shows up to 20, at most 5 of one kind, counts the rest, and names a file
            that lists all.
        download: How to get the data and where it goes; shown if files are missing.
    """

    def __init__(self, problems: Sequence[Problem], download: str | None = None) -> None:
        self.problems = list(problems)
        seen: Counter[tuple[str, str, str | None]] = Counter()
        shown: list[Problem] = []
        for problem in self.problems:
            kind = (problem.file, problem.message, problem.column)
            seen[kind] += 1
            if seen[kind] <= SHOWN_PER_KIND and len(shown) < SHOWN:
                shown.append(problem)
        rest = Counter(f"{problem.file}: {problem.message}" for problem in self.problems)
        rest.subtract(f"{problem.file}: {problem.message}" for problem in shown)
        counts = [f"and {count:,} more: {kind}" for kind, count in rest.items() if count]
        title = f"{number_of(len(self.problems), 'problem')} with the data:"
        message = "\n  ".join([title, *map(str, shown), *counts[:SHOWN]])
        if counts and (listed := _write_list(self.problems)):
            message += f"\nAll of them are listed in {listed}"
        if download and any(problem.is_missing for problem in self.problems):
            message += f"\nTo get the data:\n{download.rstrip()}"
        super().__init__(message, self.problems)


def _shortened(text: str) -> str:
    if len(text) <= LONGEST_SHOWN:
        return repr(text)
    return f"{text[: LONGEST_SHOWN - 20]!r}… ({len(text):,} characters)"


def _write_list(problems: Sequence[Problem]) -> str | None:
    """Writes all problems as a CSV to the temporary folder; None if that is not possible."""
    names = [field.name for field in fields(Problem)]
    try:
        handle, path = tempfile.mkstemp(prefix="swinft-problems-", suffix=".csv")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(names)
            writer.writerows([getattr(problem, name) for name in names] for problem in problems)
    except OSError:
        return None
    return path


@dataclass(frozen=True)
class Table:
    """A checked CSV.

    Args:
        path: The file.
        columns: All columns as text, without blanks around the cells.
        lines: Line of the file on which each row starts, int (N,).
        id_column: Name of the id column.
        notes: Notes, one line each.
        header: The column names as in the file, with blanks, to write files with the same header.
        more_paths: Further files, where the rows of several tables follow one another.
        file_of_row: The file of each row, int (N,): 0 for `path`, then `more_paths`; None where there is one.
        sha256: SHA-256 of a table that steps have made, as CSV; None for a file.
        parts: Names of the tables that were joined, in order.
        part_of_row: Which of these each row is of, int (N,); None where none were joined.
        read: SHA-256 of each file as it was read, by its path.
    """

    path: Path
    columns: Mapping[str, list[str]]
    lines: NDArray[np.int64]
    id_column: str
    notes: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    more_paths: tuple[Path, ...] = ()
    file_of_row: NDArray[np.int64] | None = None
    sha256: str | None = None
    parts: tuple[Path, ...] = ()
    part_of_row: NDArray[np.int64] | None = None
    read: Mapping[Path, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def ids(self) -> list[str]:
        """The ids, in file order."""
        return self.columns[self.id_column]

    def column(self, name: str) -> list[str]:
        """A column as text."""
        return self.columns[name]

    def frame(self, rows: Sequence[int]) -> pd.DataFrame:
        """All columns of some rows as text; the index of the frame starts at 0."""
        return pd.DataFrame({name: [cells[row] for row in rows] for name, cells in self.columns.items()}, dtype=object)

    def names(self, name: str) -> list[str]:
        """A column of names (classes, labels, groups or categories), normalised."""
        return [normal(cell) for cell in self.columns[name]]

    def take(self, rows: NDArray[np.int64]) -> "Table":
        """The table of some rows."""
        if len(rows) == len(self) and (rows == np.arange(len(self))).all():
            return self
        chosen = rows.tolist()
        cells = ((name, [column[row] for row in chosen]) for name, column in self.columns.items())
        columns = compact(cells, (len(self.columns), len(chosen)), [self.id_column])
        files, parts = (None if each is None else each[rows] for each in (self.file_of_row, self.part_of_row))
        return replace(self, columns=columns, lines=self.lines[rows], file_of_row=files, part_of_row=parts)

    def only(self, names: Iterable[str]) -> "Table":
        """The table with the ids and some columns."""
        return replace(self, columns={name: self.columns[name] for name in dict.fromkeys((self.id_column, *names))})

    def file(self, row: int) -> Path:
        """The file of a row."""
        return self.path if self.file_of_row is None else (self.path, *self.more_paths)[self.file_of_row[row]]

    def problem(self, row: int, message: str, fix: str, column: str | None = None) -> Problem:
        """A problem with one row, or with one of its cells."""
        value = self.columns[column][row] if column else None
        return Problem(str(self.file(row)), message, fix, int(self.lines[row]), self.ids[row], column, value)


def joined(tables: Sequence[Table]) -> Table:
    """The rows of several tables as one with the first one's columns; a cell of a column that a table lacks is empty.

    Args:
        tables: At least one.
    """
    first = tables[0]
    rows = sum(map(len, tables))
    cells = ((name, [cell for t in tables for cell in t.columns.get(name, [""] * len(t))]) for name in first.columns)
    columns = compact(cells, (len(first.columns), rows), [first.id_column])
    files = [path for table in tables for path in (table.path, *table.more_paths)]
    starts = np.cumsum([0, *(1 + len(table.more_paths) for table in tables)]).tolist()
    own = [np.zeros(len(table), np.int64) if table.file_of_row is None else table.file_of_row for table in tables]
    return replace(
        first,
        columns=columns,
        lines=np.concatenate([table.lines for table in tables]),
        notes=tuple(note for table in tables for note in table.notes),
        more_paths=tuple(files[1:]),
        file_of_row=np.concatenate([start + each for start, each in zip(starts, own, strict=False)]),
        parts=tuple(table.path for table in tables),
        part_of_row=np.repeat(np.arange(len(tables)), [len(table) for table in tables]),
        read={path: sha256 for table in tables for path, sha256 in table.read.items()},
    )


def read_table(
    path: Path,
    id_column: str,
    required: Mapping[str, str],
    problems: list[Problem],
    encoding: str = "utf-8",
    id_setting: str = "data.id",
    given: bytes | None = None,
) -> Table | None:
    """Reads a CSV after checking its structure.

    Args:
        path: A CSV with a header; other delimiters, gzip, bz2, xz and zip are found by content, with a note.
        id_column: A required column with unique values.
        required: Other required columns, each with the config key that names it.
        problems: Errors are appended.
        encoding: Encoding of the text.
        id_setting: The config key that names the id column.
        given: The content, if it is in memory; `path` then only names it.

    Returns:
        The table of the rows with the right number of fields, or None if columns are missing.
    """
    settings = {id_column: id_setting, **required}
    odd: list[Problem] = []
    try:
        content = read_bytes(path) if given is None else given
        rows, notes = rows_of(content, path, settings, encoding)
        written, _ = next(rows)
        cells, lines = ColumnReader(len(written)), list[int]()
        for row, line in rows:
            if len(row) == len(written):
                cells.add(row)
                lines.append(line)
            else:
                message = f"the row has {number_of(len(row), 'field')}, the header {len(written)}"
                fix = "Put quotes around fields that contain a comma, or complete the row."
                odd.append(Problem(str(path), message, fix, line))
    except UnreadableError as error:
        problems.append(Problem(str(path), error.message, error.fix, error.line, is_missing=error.is_missing))
        return None
    header = [normal(name) for name in written]
    if not check_header(path, header, settings, problems, line=1):
        return None
    problems += odd
    columns = cells.columns(header, [id_column])
    stripped = dict(zip(header, cells.stripped, strict=True))
    notes = [*_notes(path, written, notes), *_strip_notes(path, stripped, settings)]
    notes += twin_notes(path, columns[id_column])
    known = {path: hashlib.sha256(content).hexdigest()} if given is None else {}
    starts = np.array(lines, dtype=np.int64)
    table = Table(path, columns, starts, id_column, tuple(notes), tuple(written), read=known)
    if not lines and not odd:
        problems.append(Problem(str(path), "there is a header but no row", "Give a file with rows."))
    problems += id_problems(table)
    return table


def check_header(
    path: Path,
    header: Sequence[str],
    required: Mapping[str, str],
    problems: list[Problem],
    line: int | None = None,
) -> bool:
    """Appends problems of the header; returns whether the rows can be read.

    Args:
        path: The file, or what names the table.
        header: The names of all columns.
        required: Required columns, each with the config key that names it.
        problems: Errors are appended.
        line: The header's line.
    """
    doubled = [name for name, count in Counter(header).items() if count > 1 and name in required]
    missing = [name for name in required if name not in header]
    for name in doubled:
        problems.append(Problem(str(path), "the header names the column twice", "Rename one.", line, column=name))
    for name in missing:
        fix = f"Change {required[name]}.{suggest(name, filter(None, header))}"
        problems.append(Problem(str(path), "there is no such column", fix, line, column=name))
    return not doubled and not missing


def _notes(path: Path, written: Sequence[str], notes: Sequence[str]) -> list[str]:
    """Notes on unusual but harmless structure of a table, from the header as it is written, and on how it was read."""
    notes = [f"{path}: {note}." for note in notes]
    odd = [name for name in written if name != strip(name)]
    notes += [f"{path}: the header's '{name}' is read without its blanks." for name in odd[:SHOWN_PER_KIND]]
    unnamed = [str(position) for position, name in enumerate(map(normal, written), start=1) if not name]
    if len(unnamed) == 1:
        notes.append(f"{path}: column {unnamed[0]} has no name (a saved index?) and is not used.")
    elif unnamed:
        notes.append(f"{path}: columns {', '.join(unnamed[:10])} have no name and are not used.")
    return notes


def _strip_notes(path: Path, stripped: Mapping[str, int], used: Mapping[str, str]) -> list[str]:
    """A note on used columns with blanks around cells, by how many cells of each column have some."""
    found = ", ".join(f"'{name}' {stripped[name]:,}" for name in used if stripped[name])
    return [f"{path}: blanks around cells are stripped: {found}."] if found else []


def twin_notes(path: Path, ids: list[str]) -> list[str]:
    """A note on ids that are easily confused: different rows, but one file name on some file systems."""
    found = [" and ".join(f"'{spelling}'" for spelling in spellings) for spellings in twins(ids)]
    if not found:
        return []
    more = f" and {len(found) - SHOWN_PER_KIND:,} more" if len(found) > SHOWN_PER_KIND else ""
    pairs = "; ".join(found[:SHOWN_PER_KIND])
    how = f"{path}: ids that differ only by {HOW_TWINS_DIFFER}, and are equal on some file systems"
    return [f"{how}: {pairs}{more}."]


def id_problems(table: Table) -> list[Problem]:
    """Ids that are empty, duplicated, or contain control characters."""
    problems: list[Problem] = []
    first: dict[str, int] = {}
    for row, id in enumerate(table.ids):
        if not id:
            problems.append(table.problem(row, "the id is empty", "Give every row an id."))
        elif CONTROL.search(id):
            problems.append(table.problem(row, "the id contains a control character", "Remove it."))
        elif id in first:
            fix = (
                f"Line {table.lines[first[id]]} has it too: keep one of them. Rows of one id are not averaged: for "
                "several images of one object set data.id to a column with unique values, and data.folds.group to "
                "this one."
            )
            problems.append(table.problem(row, "the id is duplicated", fix))
        first.setdefault(id, row)
    return problems
