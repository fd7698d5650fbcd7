"""A CSV becomes a checked table: every problem is named by file, line, id and column, and all of them at once.

Everything is text here, and nothing is guessed: ids like `007`, `1e5` and `NA` stay what they are. Blanks around cells
are left out (`swinft.data.tables.text.strip`).
"""

import csv
import os
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from swinft.data.tables.csv_lines import Lines, UnreadableError, read_lines
from swinft.data.tables.text import HOW_TWINS_DIFFER, normal, strip, twins
from swinft.errors import InputError, number_of, suggest

SHOWN = 20  # problems printed in full; the rest are counted
SHOWN_PER_KIND = 5  # so that 9,912 missing images do not hide the one wrong column
LONGEST_SHOWN = 100  # characters of a cell in a message
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with the data, and the edit that mends it.

    Args:
        file: Where it is.
        message: What is wrong, without the values, so that problems of one kind can be counted.
        fix: The edit that mends it, as a sentence.
        line: Line of the file.
        id: Id of the row.
        column: Name of the column.
        value: Content of the cell, or the path that was looked for.
        is_missing: A file is not there: getting the data would mend it.
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
        place = f"{self.file}:{self.line}" if self.line is not None else self.file
        named = [("id", self.id), ("column", self.column), ("value", self.value)]
        details = ", ".join(f"{name} {_shortened(text)}" for name, text in named if text is not None)
        return f"{place}: {details + ': ' if details else ''}{self.message}. {self.fix}"


class DataError(InputError):
    """The data is wrong.

    Args:
        problems: All of them; the message shows up to 20, at most 5 of one kind, counts the rest, and names a file that
            lists all.
        download: What to run to get the data and where it goes; said where files are missing.
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
        super().__init__(message)


def _shortened(text: str) -> str:
    if len(text) <= LONGEST_SHOWN:
        return repr(text)
    return f"{text[: LONGEST_SHOWN - 20]!r}… ({len(text):,} characters)"


def _write_list(problems: Sequence[Problem]) -> str | None:
    """Writes all problems as a CSV into the folder for temporary files; None where nothing can be written there."""
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
        notes: What is worth knowing but no error, one line each.
        header: The names as the file has them, blanks included: what is written in its likeness has the same.
    """

    path: Path
    columns: Mapping[str, list[str]]
    lines: NDArray[np.int64]
    id_column: str
    notes: tuple[str, ...] = ()
    header: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def ids(self) -> list[str]:
        """The ids, in the file's order."""
        return self.columns[self.id_column]

    def column(self, name: str) -> list[str]:
        """A column as text."""
        return self.columns[name]

    def frame(self, rows: Sequence[int]) -> pd.DataFrame:
        """All columns of some rows, by their numbers, as text; the frame's own index counts from 0."""
        return pd.DataFrame({name: [cells[row] for row in rows] for name, cells in self.columns.items()}, dtype=object)

    def names(self, name: str) -> list[str]:
        """A column of names: classes, labels, groups or categories, in their normal form."""
        return [normal(cell) for cell in self.columns[name]]

    def take(self, rows: NDArray[np.int64]) -> "Table":
        """The table of some rows."""
        chosen = rows.tolist()
        columns = {name: [cells[row] for row in chosen] for name, cells in self.columns.items()}
        return replace(self, columns=columns, lines=self.lines[rows])

    def problem(self, row: int, message: str, fix: str, column: str | None = None) -> Problem:
        """A problem with one row, or with one of its cells."""
        value = self.columns[column][row] if column else None
        return Problem(str(self.path), message, fix, int(self.lines[row]), self.ids[row], column, value)


def read_table(
    path: Path,
    id_column: str,
    required: Mapping[str, str],
    problems: list[Problem],
    encoding: str = "utf-8",
    id_setting: str = "data.id",
) -> Table | None:
    """Reads a CSV after checking its structure.

    Args:
        path: A CSV with a header; other delimiters, gzip, bz2, xz and zip are found by content, with a note.
        id_column: Must be there; its values must be unique.
        required: Other columns that must be there, each with the setting that names it.
        problems: Whatever is wrong is appended.
        encoding: Of the text.
        id_setting: The setting that names the id column.

    Returns:
        The table of the rows with the right number of fields, or None where the columns are not there.
    """
    settings = {id_column: id_setting, **required}
    try:
        read = read_lines(path, settings, encoding)
    except UnreadableError as error:
        problems.append(Problem(str(path), error.message, error.fix, error.line, is_missing=error.is_missing))
        return None
    header = [normal(name) for name in read.header]
    if not _check_header(path, header, settings, problems):
        return None
    whole = [len(cells) == len(header) for cells in read.cells]
    for cells, line in zip(read.cells, read.lines, strict=True):
        if len(cells) != len(header):
            message = f"the row has {number_of(len(cells), 'field')}, the header {len(header)}"
            fix = "Put quotes around fields that hold a comma, or complete the row."
            problems.append(Problem(str(path), message, fix, line))
    raw = list(zip(*(cells for cells, good in zip(read.cells, whole, strict=True) if good), strict=True))
    raw = raw or [()] * len(header)
    columns = {name: [strip(cell) for cell in cells] for name, cells in zip(header, raw, strict=True) if name}
    lines = np.array([line for line, good in zip(read.lines, whole, strict=True) if good], dtype=np.int64)
    stripped = dict(zip(header, raw, strict=True))
    notes = [*_notes(path, read, header), *_strip_notes(path, stripped, columns, settings)]
    notes += _twin_notes(path, columns[id_column])
    table = Table(path, columns, lines, id_column, tuple(notes), tuple(read.header))
    if not read.cells:
        problems.append(Problem(str(path), "there is a header but no row", "Give a file with rows."))
    problems += _id_problems(table)
    return table


def _check_header(path: Path, header: list[str], required: Mapping[str, str], problems: list[Problem]) -> bool:
    """Appends what is wrong with the header; says whether the rows can be read all the same."""
    doubled = [name for name, count in Counter(header).items() if count > 1 and name in required]
    missing = [name for name in required if name not in header]
    for name in doubled:
        problems.append(Problem(str(path), "the header names the column twice", "Rename one.", 1, column=name))
    for name in missing:
        fix = f"Change {required[name]}.{suggest(name, filter(None, header))}"
        problems.append(Problem(str(path), "there is no such column", fix, 1, column=name))
    return not doubled and not missing


def _notes(path: Path, read: Lines, header: list[str]) -> list[str]:
    """What is odd about a table's structure but harms nothing."""
    notes = [f"{path}: {note}." for note in read.notes]
    odd = [name for name in read.header if name != strip(name)]
    notes += [f"{path}: the header's '{name}' is read without its blanks." for name in odd[:SHOWN_PER_KIND]]
    unnamed = [str(position) for position, name in enumerate(header, start=1) if not name]
    if len(unnamed) == 1:
        notes.append(f"{path}: column {unnamed[0]} has no name (a saved index?) and is not used.")
    elif unnamed:
        notes.append(f"{path}: columns {', '.join(unnamed[:10])} have no name and are not used.")
    return notes


def _strip_notes(
    path: Path, raw: Mapping[str, Sequence[str]], columns: Mapping[str, list[str]], used: Mapping[str, str]
) -> list[str]:
    """One line on the cells of used columns that had blanks around them."""
    counts = {name: sum(map(str.__ne__, raw[name], columns[name])) for name in used}
    found = ", ".join(f"'{name}' {count:,}" for name, count in counts.items() if count)
    return [f"{path}: blanks around cells are left out: {found}."] if found else []


def _twin_notes(path: Path, ids: list[str]) -> list[str]:
    """One line on ids that are hard to tell apart: they are different rows, and one file on some file systems."""
    found = [" and ".join(f"'{spelling}'" for spelling in spellings) for spellings in twins(ids)]
    if not found:
        return []
    more = f" and {len(found) - SHOWN_PER_KIND:,} more" if len(found) > SHOWN_PER_KIND else ""
    pairs = "; ".join(found[:SHOWN_PER_KIND])
    how = f"{path}: ids that differ only by {HOW_TWINS_DIFFER}, and that some file systems take for one"
    return [f"{how}: {pairs}{more}."]


def _id_problems(table: Table) -> list[Problem]:
    """Ids that are empty, doubled, or hold characters that no file name and no submission survives."""
    problems: list[Problem] = []
    first: dict[str, int] = {}
    for row, id in enumerate(table.ids):
        if not id:
            problems.append(table.problem(row, "the id is empty", "Give every row an id."))
        elif CONTROL.search(id):
            problems.append(table.problem(row, "the id holds a control character", "Remove it."))
        elif id in first:
            fix = (
                f"Line {table.lines[first[id]]} has it too: keep one of them. Rows of one id are not averaged: for "
                "several images of one thing set data.id to a column that tells them apart, and data.folds.group to "
                "this one."
            )
            problems.append(table.problem(row, "the id is there twice", fix))
        first.setdefault(id, row)
    return problems
