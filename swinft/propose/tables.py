"""What the tables of a folder hold: columns, distinct values, blanks and types, from a bounded number of cells."""

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from swinft.data.tables.csv_lines import UnreadableError, read_lines
from swinft.data.tables.numbers import are_numbers
from swinft.data.tables.steps.make import read_table
from swinft.data.tables.table import DataError
from swinft.data.tables.text import MISSING_WORDS, normal, strip

MOST_CELLS = 3_000_000  # of a table that are kept
WHOLE_BYTES = 2**25  # a file up to this size is read by the reader of the run
MOST_JSON = 2**31  # bytes of a JSON file, which is read whole
COCO = (b'"images"', b'"annotations"')
BLOCK = 64  # rows that are kept together: rows of one image often follow each other
FULLY_COUNTED = 8  # columns whose distinct values are counted in every row
WHOLE = re.compile(r"[+-]?[0-9]+(\.0*)?")
RUN_LENGTHS = re.compile(r"[0-9]+ [0-9]+( [0-9]+ [0-9]+)*")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Args:
        name: Its name.
        cells: Its cells in the rows that were kept.
        total: Distinct values in all rows; None where they were counted in the kept rows only.
    """

    name: str
    cells: Sequence[str]
    total: int | None = None

    @cached_property
    def filled(self) -> list[str]:
        """The cells that are not missing."""
        return [cell for cell in self.cells if cell.casefold() not in MISSING_WORDS]

    @cached_property
    def values(self) -> dict[str, int]:
        """Distinct cells that are not missing, each with its count, in the order of the rows."""
        found: dict[str, int] = {}
        for cell in self.filled:
            found[cell] = found.get(cell, 0) + 1
        return found

    @property
    def num_blank(self) -> int:
        """Missing cells."""
        return len(self.cells) - len(self.filled)

    @cached_property
    def is_number(self) -> bool:
        """Whether every cell that is not missing is a number; ids with leading zeros are not."""
        return bool(self.values) and are_numbers(self.values) and not self.has_zeros

    @cached_property
    def has_zeros(self) -> bool:
        """Whether a whole number starts with a zero, as ids do."""
        return any(len(cell) > 1 and cell[0] == "0" and cell.isdigit() for cell in self.values)

    @cached_property
    def is_whole(self) -> bool:
        """Whether every cell that is not missing is a whole number."""
        return self.is_number and all(WHOLE.fullmatch(cell) for cell in self.values)

    @cached_property
    def is_flag(self) -> bool:
        """Whether the cells are 0 and 1, or True and False."""
        return bool(self.values) and {_flag(cell) for cell in self.values} <= {"0", "1"}

    @cached_property
    def are_run_lengths(self) -> bool:
        """Whether the cells are run lengths of masks, like `1 3 10 5`."""
        return bool(self.values) and all(RUN_LENGTHS.fullmatch(cell) for cell in list(self.values)[:200])

    @cached_property
    def numbers(self) -> list[float]:
        """The cells that are not missing as numbers."""
        return [float(cell) for cell in self.filled] if self.is_number else []

    @property
    def num_distinct(self) -> int:
        """Distinct values."""
        return len(self.values) if self.total is None else self.total


def _flag(cell: str) -> str:
    lower = cell.lower()
    return {"true": "1", "false": "0"}.get(lower, lower[:-2] if lower.endswith(".0") else lower)


@dataclass(frozen=True)
class TableFacts:
    """A table, or what steps make of files and tables.

    Args:
        path: Its file, relative to the root.
        columns: The columns by name; those without a name are left out.
        num_rows: Number of rows.
        is_whole: Whether all rows were kept.
        encoding: Encoding of the text.
        steps: How a run makes it of what was downloaded; empty for the CSV itself.
        notes: What is unusual, one line each.
        unnamed: Whether it has columns without a name.
    """

    path: str
    columns: dict[str, Column]
    num_rows: int
    is_whole: bool = True
    encoding: str = "utf-8"
    steps: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    unnamed: bool = False

    @property
    def stem(self) -> str:
        """The file's name in lower case, without suffixes."""
        return os.path.basename(self.path).lower().split(".")[0]

    @property
    def made_by(self) -> tuple[dict[str, Any], ...]:
        """The steps that make it; of a CSV, that which reads it."""
        return self.steps or ({"csv": self.path},)

    def after(self, cells: dict[str, list[str]], num_rows: int, *steps: dict[str, Any]) -> "TableFacts":
        """What more steps make of it.

        Args:
            cells: The kept cells by column.
            num_rows: Number of rows.
            steps: The steps; none where the table is read as it is.
        """
        steps = (*self.made_by, *steps) if steps else self.steps
        return made(self.path, cells, num_rows, is_whole=self.is_whole, encoding=self.encoding, steps=steps)

    def all_cells(self) -> dict[str, list[str]]:
        """The kept cells by column."""
        return {name: [*column.cells] for name, column in self.columns.items()}

    def column(self, name: str) -> list[str]:
        """The kept cells of a column."""
        return list(self.columns[name].cells)

    def is_unique(self, name: str) -> bool:
        """Whether no value of a column is there twice, and none is missing."""
        column = self.columns[name]
        if column.num_blank or not column.cells:
            return False
        return len(column.values) == len(column.cells) and column.total in (None, self.num_rows)

    @property
    def num_kept(self) -> int:
        """Rows that were kept."""
        return len(next(iter(self.columns.values())).cells) if self.columns else 0

    def row(self, place: int) -> dict[str, str]:
        """One of the kept rows."""
        return {name: column.cells[place] for name, column in self.columns.items()}


def made(path: str, cells: dict[str, list[str]], num_rows: int, **facts: Any) -> TableFacts:
    """A table of columns of text."""
    return TableFacts(path, {name: Column(name, column) for name, column in cells.items()}, num_rows, **facts)


def read_facts(root: Path, path: str, problems: list[str]) -> TableFacts | None:
    """Reads a table.

    Args:
        root: Folder of the data.
        path: A CSV, relative to the folder.
        problems: Why it cannot be read is appended.
    """
    whole = root / path
    if whole.suffix.lower() == ".json":
        return _json(root, path, problems)
    if whole.suffix.lower() in (".txt", ".list") and not _looks_like_csv(whole):
        return None
    error: UnreadableError | None = None
    for encoding in ("utf-8", "cp1252", "utf-16"):
        try:
            return _read(whole, path, encoding)
        except UnreadableError as raised:
            error = error or raised
        except (UnicodeDecodeError, csv.Error, OSError) as raised:
            error = error or UnreadableError(str(raised), "")
    problems.append(f"{path}: {error.message if error else 'it cannot be read'}")
    return None


def _read(whole: Path, path: str, encoding: str) -> TableFacts:
    is_long = whole.stat().st_size > WHOLE_BYTES and whole.suffix.lower() in (".csv", ".tsv")
    if not is_long:
        lines = read_lines(whole, _header(whole, encoding), encoding)
        return _facts(path, lines.header, iter(lines.cells), encoding, tuple(lines.notes))
    with open(whole, encoding="utf-8-sig" if encoding == "utf-8" else encoding, newline="") as file:
        start = file.readline()
        mark = max(",;\t|", key=start.count)
        csv.field_size_limit(2**31 - 1)
        header = next(csv.reader(io.StringIO(start, newline=""), delimiter=mark))
        return _facts(path, header, csv.reader(file, delimiter=mark), encoding, ())


def _header(whole: Path, encoding: str) -> list[str]:
    """The names in the first line, by the delimiter that it has most often; none for a compressed file."""
    with open(whole, "rb") as file:
        start = file.read(2**20)
    try:
        line = start.decode("utf-8-sig" if encoding == "utf-8" else encoding, "replace").lstrip("\r\n").splitlines()[0]
    except IndexError:
        return []
    mark = max(",;\t|", key=line.count)
    return [normal(name) for name in next(csv.reader([line], delimiter=mark, skipinitialspace=True), [])]


def _facts(
    path: str, header: Sequence[str], rows: Iterator[list[str]], encoding: str, notes: tuple[str, ...]
) -> TableFacts:
    """The facts of a table, from its rows in a single pass."""
    names = [normal(name) for name in header]
    most = max(2_000, MOST_CELLS // max(1, len(names)))
    first = [row for row in islice(rows, 1000) if len(row) == len(names)]
    counted = [k for k in range(len(names)) if len({row[k] for row in first}) > 0.98 * len(first)][:FULLY_COUNTED]
    seen: list[set[str]] = [{row[k] for row in first} for k in counted]
    kept, number, stride = list(first), len(first), 1
    for row in rows:
        if len(row) != len(names):
            continue
        for values, k in zip(seen, counted, strict=True):
            values.add(row[k])
        if (number // BLOCK) % stride == 0:
            kept.append(row)
            if len(kept) > most:  # every other block is dropped, so that the kept ones stay evenly spread
                stride *= 2
                kept = [row for place in range(0, len(kept), 2 * BLOCK) for row in kept[place : place + BLOCK]]
        number += 1
    exact = {k: len(values) for k, values in zip(counted, seen, strict=True)} if stride > 1 else {}
    columns = {
        name: Column(name, [strip(row[k]) for row in kept], exact.get(k)) for k, name in enumerate(names) if name
    }
    return TableFacts(path, columns, number, stride == 1, encoding, (), notes, "" in names)


def _looks_like_csv(path: Path) -> bool:
    """Whether the lines of a text file have the same number of fields, two or more, separated by commas or tabs."""
    try:
        with open(path, encoding="utf-8") as file:
            lines = [line for line in islice(file, 20) if line.strip()]
    except (OSError, UnicodeDecodeError):
        return False
    return len(lines) > 1 and any(
        lines[0].count(mark) > 0 and len({line.count(mark) for line in lines}) == 1 for mark in ",\t;|"
    )


def _is_coco(path: Path) -> bool:
    content = path.read_bytes()
    return all(key in content for key in COCO)


def _json(root: Path, path: str, problems: list[str]) -> TableFacts | None:
    """Records of a JSON file, or the annotations of a COCO file, as a run reads them; None for other JSON."""
    whole = root / path
    try:
        with open(whole, "rb") as file:
            is_list = file.read(1000).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
    except OSError as error:
        problems.append(f"{path}: it cannot be read: {error.strerror}")
        return None
    if (size := whole.stat().st_size) > MOST_JSON:
        problems.append(f"{path}: {size / 2**30:.1f} GB of JSON, too large to look at; the steps json and coco read it")
        return None
    if not is_list and not _is_coco(whole):
        return None
    word = "json" if is_list else "coco"
    steps = ({word: path},)
    try:
        table = read_table(steps, root)
    except DataError as error:
        problems.append(f"{path}: {error.problems[0].message.removeprefix(f'the table: step 1, {word}: ')}")
        return None
    cells = {str(name): table[name].tolist() for name in table}
    return made(path, {name: column for name, column in cells.items() if any(column)}, len(table), steps=steps)
