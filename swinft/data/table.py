"""A CSV becomes a checked table: every problem is named by file, line, id and column, and all of them at once.

Everything is text here, and nothing is guessed: ids like `007`, `1e5` and `NA` stay what they are.
"""

import csv
import io
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from swinft.errors import InputError, suggest

SHOWN = 20  # problems printed in full; the rest are counted
SHOWN_PER_KIND = 5  # so that 9,912 missing images do not hide the one wrong column
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
OTHER_DELIMITERS = {";": "semicolons", "\t": "tabs", "|": "bars"}
# First bytes of what people rename to .csv, and what to do about it.
NOT_A_CSV = {
    b"\x1f\x8b": ("gzip-compressed", "Unpack it with gunzip."),
    b"PK\x03\x04": ("a zip archive or an Excel file", "Unzip it, or save the sheet as CSV."),
    b"\xff\xfe": ("UTF-16", "Save it as UTF-8, or set data.encoding to utf-16."),
    b"\xfe\xff": ("UTF-16", "Save it as UTF-8, or set data.encoding to utf-16."),
    b"version https://git-lfs": ("a git-lfs pointer", "Run `git lfs pull`."),
    b"<!doctype": ("a web page", "Download the file again, signed in."),
    b"<html": ("a web page", "Download the file again, signed in."),
}


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
        details = ", ".join(f"{name} {text!r}" for name, text in named if text is not None)
        return f"{place}: {details + ': ' if details else ''}{self.message}. {self.fix}"


class DataError(InputError):
    """The data is wrong.

    Args:
        problems: All of them; the message shows up to 20, at most 5 of one kind, and counts the rest.
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
        title = f"{len(self.problems):,} problem{'s' if len(self.problems) > 1 else ''} with the data:"
        message = "\n  ".join([title, *map(str, shown), *counts[:SHOWN]])
        if download and any(problem.is_missing for problem in self.problems):
            message += f"\nTo get the data:\n{download.rstrip()}"
        super().__init__(message)


@dataclass(frozen=True)
class Table:
    """A checked CSV.

    Args:
        path: The file.
        frame: All columns as text.
        lines: Line of the file on which each row starts, int (N,).
        id_column: Name of the id column.
        notes: What is worth knowing but no error, one line each.
    """

    path: Path
    frame: pd.DataFrame
    lines: NDArray[np.int64]
    id_column: str
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.frame)

    @property
    def ids(self) -> list[str]:
        """The ids, in the file's order."""
        return self.column(self.id_column)

    def column(self, name: str) -> list[str]:
        """A column as text."""
        return [str(cell) for cell in self.frame[name]]

    def take(self, rows: NDArray[np.int64]) -> "Table":
        """The table of some rows."""
        return replace(self, frame=self.frame.iloc[rows].reset_index(drop=True), lines=self.lines[rows])

    def problem(self, row: int, message: str, fix: str, column: str | None = None) -> Problem:
        """A problem with one row, or with one of its cells."""
        value = str(self.frame[column].iloc[row]) if column else None
        id = str(self.frame[self.id_column].iloc[row])
        return Problem(str(self.path), message, fix, int(self.lines[row]), id, column, value)


def read_table(
    path: Path, id_column: str, required: Mapping[str, str], problems: list[Problem], encoding: str = "utf-8"
) -> Table | None:
    """Reads a CSV after checking its structure, which pandas would bend into shape without a word.

    Args:
        path: A CSV with a header.
        id_column: Must be there; its values must be unique.
        required: Other columns that must be there, each with the setting that names it.
        problems: Whatever is wrong is appended.
        encoding: Of the text.

    Returns:
        The table of the rows with the right number of fields, or None where the columns are not there.
    """
    rows = _parse(path, problems, encoding)
    if rows is None:
        return None
    header = [name.strip() for name in rows[0][1]]
    if not _check_header(path, header, {id_column: "data.id", **required}, problems):
        return None
    body = [(line, cells) for line, cells in rows[1:] if len(cells) == len(header)]
    for line, cells in rows[1:]:
        if len(cells) != len(header):
            message = f"the row has {len(cells)} fields, the header {len(header)}"
            fix = "Put quotes around fields that hold a comma, or complete the row."
            problems.append(Problem(str(path), message, fix, line))
    frame = pd.DataFrame([cells for _, cells in body], columns=header, dtype=str)
    lines = np.array([line for line, _ in body], dtype=np.int64)
    table = Table(path, frame, lines, id_column, tuple(_notes(path, rows[0][1], frame[id_column].tolist())))
    if len(rows) == 1:
        problems.append(Problem(str(path), "there is a header but no row", "Give a file with rows."))
    problems += _id_problems(table)
    return table


def _read_text(path: Path, problems: list[Problem], encoding: str) -> str | None:
    """The file's text; None where there is no such file or it is no text."""
    if not path.is_file():
        near = [str(sibling) for sibling in path.parent.glob("*.csv")] if path.parent.is_dir() else []
        fix = f"A relative path starts at data.root, that at {Path.cwd()}.{suggest(str(path), near) if near else ''}"
        problems.append(Problem(str(path), "there is no such file", fix, is_missing=True))
        return None
    content = path.read_bytes()
    for start, (what, fix) in NOT_A_CSV.items():
        if what.lower() not in encoding.lower() and content[: len(start)].lower() == start.lower():
            problems.append(Problem(str(path), f"the file is {what}, not a CSV", fix))
            return None
    try:
        text = content.decode("utf-8-sig" if encoding == "utf-8" else encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        fix = "Save it as UTF-8, or set data.encoding; such bytes are most often cp1252 (Windows-1252) or latin-1."
        problems.append(Problem(str(path), f"byte {error.start:,} is not {encoding.upper()}", fix, line))
        return None
    if "\0" in text[:1000]:
        problems.append(Problem(str(path), "the text is full of NUL characters", "Save it as UTF-8; it may be UTF-16."))
        return None
    return text


def _parse(path: Path, problems: list[Problem], encoding: str) -> list[tuple[int, list[str]]] | None:
    """Lines and cells of a CSV without blank lines; None where it cannot be read."""
    text = _read_text(path, problems, encoding)
    if text is None:
        return None
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows, start = [], 1
    try:
        for cells in reader:
            if cells:
                rows.append((start, cells))
            start = reader.line_num + 1
    except csv.Error as error:
        fix = "A quote that opens a field must close it, before a comma or the line's end."
        problems.append(Problem(str(path), f"the CSV is broken: {error}", fix, start))
        return None
    if not rows:
        problems.append(Problem(str(path), "the file is empty", "Give a file with a header and rows."))
        return None
    if rows[0][1][0].startswith("sep="):
        problems.append(Problem(str(path), "Excel's `sep=` stands where the header should", "Delete the line.", 1))
        return None
    return rows


def _check_header(path: Path, header: list[str], required: Mapping[str, str], problems: list[Problem]) -> bool:
    """Appends what is wrong with the header; says whether the rows can be read all the same."""
    line = 1
    missing = [name for name in required if name not in header]
    other = next((mark for mark in OTHER_DELIMITERS if mark in header[0]), "")
    if missing and len(header) == 1 and other:
        message = f"the fields are separated by {OTHER_DELIMITERS[other]}"
        problems.append(Problem(str(path), message, "Save the file with commas.", line))
        return False
    doubled = [name for name, count in Counter(header).items() if count > 1]
    for name in doubled:
        problems.append(Problem(str(path), "the header names the column twice", "Rename one.", line, column=name))
    for name in missing:
        fix = f"Change {required[name]}.{suggest(name, header)}"
        problems.append(Problem(str(path), "there is no such column", fix, line, column=name))
    return not doubled and not missing


def _notes(path: Path, header: list[str], ids: list[str]) -> list[str]:
    """What is odd about a table but harms nothing."""
    notes = [f"{path}: the header's '{name}' is read without its blanks." for name in header if name != name.strip()]
    unnamed = [position for position, name in enumerate(header, start=1) if not name.strip()]
    notes += [f"{path}: column {position} has no name (a saved index?) and is not used." for position in unnamed]
    first: dict[str, str] = {}
    twins = [(first.setdefault(unicodedata.normalize("NFC", id).casefold(), id), id) for id in ids]
    pairs = sorted({f"'{one}' and '{other}'" for one, other in twins if one != other})
    if pairs:
        notes.append(f"{path}: ids that some file systems take for one: {'; '.join(pairs[:SHOWN_PER_KIND])}.")
    return notes


def _id_problems(table: Table) -> list[Problem]:
    """Ids that are empty, doubled, or hold characters that no file name and no submission survives."""
    problems: list[Problem] = []
    first: dict[str, int] = {}
    for row, id in enumerate(table.ids):
        if not id.strip():
            problems.append(table.problem(row, "the id is empty", "Give every row an id."))
        elif CONTROL.search(id):
            problems.append(table.problem(row, "the id holds a control character", "Remove it."))
        elif id in first:
            fix = f"Line {table.lines[first[id]]} has it too: keep one of them, or set data.id to another column."
            problems.append(table.problem(row, "the id is there twice", fix))
        first.setdefault(id, row)
    return problems
