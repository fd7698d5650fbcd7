"""Fills in a path template like `train/{Id}.jpg` for every row, and checks that each image exists."""

import os
import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

from swinft.class_spec import errors_of
from swinft.data.tables.table import CONTROL, Problem, Table
from swinft.errors import InputError, listed, number_of

# Text in braces is a column: names may contain blanks and dots, which `str.format` does not support.
# `{id:03d}` pads with zeros to three digits.
FIELD = re.compile(r"\{([^{}]+?)(?::0([1-9][0-9]?)d?)?\}")
AS_FLOAT = re.compile(r"(?<=[0-9])\.0+(?![0-9])")  # `7.0` of a whole number
WILDCARDS = {"*": ".*", "?": "."}
ABSOLUTE = " The cell is an absolute path, perhaps from another machine: keep only the part after the images' folder."
LOST_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")


class Flaw(NamedTuple):
    """Why an existing image must not be read; `message` contains no names, so that flaws can be counted."""

    message: str
    fix: str


class Lister(Protocol):
    """The part of the interface of `sources.source.Source` that the path check needs."""

    def names(self, folder: str) -> Collection[str] | None:
        """The images of a folder; None if it does not exist."""

    def missing(self, folder: str) -> str:
        """What to do about a missing folder."""

    def flaw(self, reference: str, inside: str) -> Flaw | None:
        """Why an existing image must not be read."""


def fields(template: str) -> list[str]:
    """The columns that a template names."""
    return [name for name, _ in FIELD.findall(template)]


def image_paths(
    source: Lister, table: Table, template: str, root: Path, problems: list[Problem], notes: list[str] | None = None
) -> list[str]:
    """The image path of every row.

    The template comes from the user and may point anywhere. The cells come from the data and must not leave the folder
    that the template names before its first column.

    Args:
        source: Lists the existing images.
        table: Has the columns of the template.
        template: A path with columns in braces, relative to `root`.
        root: Folder of the data.
        problems: Cells that leave the folder and missing images are appended; a missing folder is one problem.
        notes: Paths that were read differently than written are appended.

    Returns:
        N paths.
    """
    search = Search(source, table, template, root)
    paths = [search.path(row, filled, problems) for row, filled in enumerate(_fill(template, table, problems))]
    search.conclude(problems, notes)
    return paths


class Search:
    """Finds the images of a table; arguments as in `image_paths`."""

    def __init__(self, source: Lister, table: Table, template: str, root: Path) -> None:
        self.source, self.table, self.template, self.root = source, table, template, str(root)
        self.inside = os.path.join(root, os.path.dirname(template.partition("{")[0]))
        self.absolute = os.path.abspath(self.inside)
        self.folders: dict[str, _Folder] = {}
        self.notes: Counter[str] = Counter()
        self.without_folder: dict[tuple[str, str], list[tuple[int, str]]] = {}  # rows and paths, by missing folder

    def conclude(self, problems: list[Problem], notes: list[str] | None) -> None:
        """Appends what is known once all rows have been looked for: folders that are not there, and notes."""
        problems += self.missing_folders()
        if notes is not None:
            notes += [f"{self.table.path}: {count:,} {what}" for what, count in self.notes.items()]

    def matches(self, row: int, parts: Sequence[str], problems: list[Problem]) -> list[str]:
        """The files of one row by wildcards, in natural order; none where there is no such file or folder.

        Args:
            row: Its position.
            parts: Text of the template, in which `*` and `?` are wildcards, and cells, in which they are not, in turn.
            problems: Whatever is wrong is appended.
        """
        filled = "".join(parts)
        path = os.path.join(self.root, filled)
        folder, name = self._split(path)
        if CONTROL.search(filled) or self._leaves(path, filled):
            problems.append(self._outside(row, filled))
            return []
        pattern, prefix = _name_pattern(parts, len(filled) - len(name))
        found = [each for each in folder.starting_with(prefix) if re.fullmatch(pattern, each, re.DOTALL)]
        paths = [os.path.join(folder.path, each) for each in sorted(found, key=natural)]
        flaws = [(each, flaw) for each in paths if (flaw := self.source.flaw(each, self.inside))]
        problems += [_problem(self.table, row, each, *flaw) for each, flaw in flaws]
        return paths

    def _outside(self, row: int, filled: str) -> Problem:
        fix = f"Image files must lie in {self.inside}.{ABSOLUTE if _is_absolute(filled) else ''}"
        return _problem(self.table, row, filled, "the path leaves the images' folder", fix)

    def path(self, row: int, filled: str, problems: list[Problem], may_lack: bool = False) -> str:
        """The file of one row; whatever is wrong with it is appended.

        Args:
            row: Its position.
            filled: The template with the row's cells.
            problems: Whatever is wrong is appended.
            may_lack: A file that is not there is no problem, and the path is empty.
        """
        path = os.path.join(self.root, filled)
        folder, name = self._split(path)
        if "\\" in filled and not self._leaves(path, filled) and name not in folder.names:  # as Windows writes paths
            filled = filled.replace("\\", "/")
            path = os.path.join(self.root, filled)
            folder, name = self._split(path)
            self.notes["paths contain back-slashes, which are read as /."] += 1
        if CONTROL.search(filled) or self._leaves(path, filled):
            problems.append(self._outside(row, filled))
        elif may_lack and (not folder.is_there or folder.find(name) is None):
            return ""
        elif not folder.is_there:
            self.without_folder.setdefault(folder.missing, []).append((row, path))
        elif (found := folder.find(name)) is None:
            fix = folder.hint(name, fields(self.template)[-1])
            problems.append(_problem(self.table, row, path, "the image file is missing", fix, is_missing=True))
        else:
            if found != name:
                self.notes["file names are written in another form of Unicode than in the table."] += 1
                path = os.path.join(folder.path, found)
            if flaw := self.source.flaw(path, self.inside):
                problems.append(_problem(self.table, row, path, *flaw))
        return path

    def missing_folders(self) -> list[Problem]:
        """One problem for each missing folder, with its first row."""
        problems = []
        for (state, fix), rows in self.without_folder.items():
            row, path = rows[0]
            message = f"the folder of {number_of(len(rows), 'image')} {state}"
            fix += ABSOLUTE if _is_absolute(path.removeprefix(self.inside).lstrip("/")) else self._elsewhere(row)
            problems.append(_problem(self.table, row, path, message, fix, is_missing=True))
        return problems

    def _elsewhere(self, row: int) -> str:
        """A hint if a cell alone is the path of an existing image."""
        for name in fields(self.template):
            path = os.path.join(self.root, self.table.column(name)[row].replace("\\", "/"))
            folder, last = self._split(path)
            if is_within(os.path.abspath(path), os.path.abspath(self.root)) and last in folder.names:
                return f" {path} exists: should the template be '{{{name}}}'?"
        return ""

    def _split(self, path: str) -> tuple["_Folder", str]:
        parent, name = os.path.split(path)
        if parent not in self.folders:
            self.folders[parent] = _Folder(self.source, parent)
        return self.folders[parent], name

    def _leaves(self, path: str, filled: str) -> bool:
        """Whether a path leads out of the images' folder, without following links."""
        if not os.path.isabs(filled) and ".." not in filled:
            return False
        return not is_within(os.path.abspath(path), self.absolute)


class _Folder:
    """The images of a folder, listed once."""

    def __init__(self, source: Lister, path: str) -> None:
        self.source, self.path = source, path

    @cached_property
    def _listed(self) -> tuple[Collection[str] | None, tuple[str, str]]:
        """The names, or why there are none; only for folders that cells may name."""
        what = f"data.loading.source: {type(self.source).__name__}.names"
        try:
            with errors_of(f"{what} fails for {self.path}"):
                names = self.source.names(self.path)
        except InputError as error:
            return None, ("cannot be read", str(error))
        # Not of others: to list an HDF5 file takes seconds.
        if isinstance(names, list | set) and not all(isinstance(name, str) for name in names):
            raise InputError(f"{what} returns {listed([repr(name) for name in names])}; it must return names, as text.")
        return names, ("is missing", "" if names is not None else self.source.missing(self.path))

    @property
    def is_there(self) -> bool:
        return self._listed[0] is not None

    @property
    def names(self) -> Collection[str]:
        return () if self._listed[0] is None else self._listed[0]  # without a look at how many there are

    @property
    def missing(self) -> tuple[str, str]:
        """Whether the folder is missing or damaged, and the fix."""
        return self._listed[1]

    @cached_property
    def _sorted(self) -> list[str]:
        return sorted(self.names)

    def starting_with(self, prefix: str) -> Iterator[str]:
        """The names that start with a text."""
        for place in range(bisect_left(self._sorted, prefix), len(self._sorted)):
            if not self._sorted[place].startswith(prefix):
                return
            yield self._sorted[place]

    @cached_property
    def example(self) -> str:
        """A sentence on the folder's content."""
        if not self.names:
            return "The folder is empty."
        return f"{self.path} has {number_of(len(self.names), 'file')}, such as '{min(self.names)}'."

    @cached_property
    def _composed(self) -> dict[str, str]:
        return {unicodedata.normalize("NFC", name): name for name in self.names}

    @cached_property
    def _near(self) -> dict[str, str]:
        near = {_key(Path(name).stem): name for name in self.names}
        return near | {_key(name): name for name in self.names}

    def find(self, name: str) -> str | None:
        """The image of that name, in any Unicode form; None if there is none."""
        if name in self.names:
            return name
        return None if name.isascii() else self._composed.get(unicodedata.normalize("NFC", name))

    def hint(self, name: str, column: str) -> str:
        """How to fix a missing image; `column` is the template's last column."""
        near = self._near.get(_key(name)) or self._near.get(_key(Path(name).stem))
        if near is None:
            return f"Restore the file or remove the row. {self.example}"
        here, there = Path(name).stem, Path(near).stem
        if here == near:
            return f"The folder has '{near}': leave the extension out of the template."
        lost = [len(digits) for digits in re.findall("[0-9]+", near) if digits.startswith("0")]
        if lost and _key(here) == _key(there) and _key(here, keep_zeros=True) != _key(there, keep_zeros=True):
            padded = f"{{{column}:0{lost[-1]}d}}"
            return f"The folder has '{near}': where leading zeros are lost, write {padded} in the template."
        return f"The folder has '{near}': does the template need another extension or case?"


def _key(name: str, keep_zeros: bool = False) -> str:
    """A key that ignores case, Unicode form, outer blanks, leading zeros and `.0`."""
    key = unicodedata.normalize("NFC", name).casefold().strip()
    return key if keep_zeros else LOST_ZEROS.sub("", AS_FLOAT.sub("", key))


def _name_pattern(parts: Sequence[str], start: int) -> tuple[str, str]:
    """A regular expression of what stands from `start` on in the joined parts, and its text before any wildcard."""
    pattern, prefix, at, is_open = "", "", 0, False
    for number, part in enumerate(parts):
        for piece in re.split("([*?])", part) if number % 2 == 0 else [part]:
            text, at = piece[max(0, start - at) :], at + len(piece)
            is_wild = number % 2 == 0 and text in WILDCARDS
            is_open |= is_wild
            prefix += "" if is_open else text
            pattern += WILDCARDS[text] if is_wild else re.escape(text)
    return pattern, prefix


def natural(name: str) -> list[tuple[int, int, str]]:
    """By which names are sorted as people count: `slice 2` before `slice 10`."""
    parts = re.split("([0-9]+)", name)
    return [(number % 2, int(part) if number % 2 else 0, part) for number, part in enumerate(parts)]


def _is_absolute(path: str) -> bool:
    """Whether a path starts at the root of a disk, here or on Windows."""
    return os.path.isabs(path) or re.match(r"[A-Za-z]:[\\/]", path) is not None


def is_within(path: str, folder: str) -> bool:
    """Whether a path is a folder or lies inside it, compared as text."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _fill(template: str, table: Table, problems: list[Problem]) -> Iterator[str]:
    """The template of every row with its columns filled in."""
    return map("".join, filled_parts(template, table, problems))


def filled_parts(template: str, table: Table, problems: list[Problem]) -> Iterator[tuple[str, ...]]:
    """The parts of every row's path: text of the template and cells in turn."""
    columns: list[list[str]] = []
    parts = FIELD.split(template)  # text, name, width, text, …
    for text, name, width in zip(parts[::3], [*parts[1::3], None], [*parts[2::3], None], strict=True):
        columns.append([text] * len(table))
        if name is not None:
            columns.append(_padded(table, name, int(width), problems) if width else table.column(name))
    return zip(*columns, strict=True)


def _padded(table: Table, name: str, width: int, problems: list[Problem]) -> list[str]:
    """A column of whole numbers with leading zeros."""
    cells = table.column(name)
    for row, cell in enumerate(cells):
        if not (cell.isascii() and cell.isdigit()):
            message, fix = f"the template pads whole numbers to {width} digits", "Write a whole number like 7."
            problems.append(table.problem(row, message, fix, name))
    return [cell.zfill(width) for cell in cells]


def _problem(table: Table, row: int, value: str, message: str, fix: str, is_missing: bool = False) -> Problem:
    whole = table.problem(row, message, fix)
    return Problem(whole.file, message, fix, whole.line, whole.id, value=value, is_missing=is_missing)
