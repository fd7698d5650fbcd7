"""A template like `train/{Id}.jpg` becomes the image of every row, and every image is known to be there."""

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

from swinft.data.tables.table import CONTROL, Problem, Table
from swinft.errors import InputError, number_of

# Whatever stands between braces is a column: names may hold blanks and points, which `str.format` would not take.
# `{id:03d}` pads with zeros to three digits.
FIELD = re.compile(r"\{([^{}]+?)(?::0([1-9][0-9]?)d?)?\}")
AS_FLOAT = re.compile(r"(?<=[0-9])\.0+(?![0-9])")  # `7.0` of a whole number
ABSOLUTE = " The cell is an absolute path, as of another machine: keep what follows the images' folder."
LOST_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")


class Flaw(NamedTuple):
    """Why an image that is there must not be read: `message` without names, so that such can be counted."""

    message: str
    fix: str


class Lister(Protocol):
    """What is asked of the source of images; its methods are those of `sources.source.Source`."""

    def names(self, folder: str) -> Collection[str] | None:
        """The images of a folder; None where it is not there."""

    def missing(self, folder: str) -> str:
        """What to do about a folder that is not there."""

    def flaw(self, reference: str, inside: str) -> Flaw | None:
        """Why an image that is there must not be read."""


def fields(template: str) -> list[str]:
    """The columns that a template names."""
    return [name for name, _ in FIELD.findall(template)]


def image_paths(
    source: Lister, table: Table, template: str, root: Path, problems: list[Problem], notes: list[str] | None = None
) -> list[str]:
    """The image of every row.

    The template is the user's and may point anywhere; the cells come with the data and may not leave the folder that
    the template opens before its first column.

    Args:
        source: Knows which images there are.
        table: Holds the columns of the template.
        template: A path with columns in braces, relative to `root`.
        root: The data's folder.
        problems: Cells that leave the folder and images that are not there are appended; a folder that is not there is
            one problem.
        notes: What was read in another way than it is written is appended.

    Returns:
        N paths.
    """
    search = _Search(source, table, template, root)
    paths = [search.path(row, filled, problems) for row, filled in enumerate(_fill(template, table, problems))]
    problems += search.missing_folders()
    if notes is not None:
        notes += [f"{table.path}: {count:,} {what}" for what, count in search.notes.items()]
    return paths


class _Search:
    """Looks for the images of a table."""

    def __init__(self, source: Lister, table: Table, template: str, root: Path) -> None:
        self.source, self.table, self.template, self.root = source, table, template, str(root)
        self.inside = os.path.join(root, os.path.dirname(template.partition("{")[0]))
        self.absolute = os.path.abspath(self.inside)
        self.folders: dict[str, _Folder] = {}
        self.notes: Counter[str] = Counter()
        self.without_folder: dict[tuple[str, str], list[tuple[int, str]]] = {}  # rows and paths, by what is missing

    def path(self, row: int, filled: str, problems: list[Problem]) -> str:
        """The file of one row; whatever is wrong with it is appended."""
        path = os.path.join(self.root, filled)
        folder, name = self._place(path)
        if "\\" in filled and not self._leaves(path, filled) and name not in folder.names:  # as Windows writes paths
            filled = filled.replace("\\", "/")
            path = os.path.join(self.root, filled)
            folder, name = self._place(path)
            self.notes["paths hold back-slashes, which are read as /."] += 1
        if CONTROL.search(filled) or self._leaves(path, filled):
            fix = f"Image files must lie in {self.inside}.{ABSOLUTE if _is_absolute(filled) else ''}"
            problems.append(_problem(self.table, row, filled, "the path leaves the images' folder", fix))
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
        """One problem for each folder that is not there, with its first row."""
        problems = []
        for (state, fix), rows in self.without_folder.items():
            row, path = rows[0]
            message = f"the folder of {number_of(len(rows), 'image')} {state}"
            fix += ABSOLUTE if _is_absolute(path.removeprefix(self.inside).lstrip("/")) else self._elsewhere(row)
            problems.append(_problem(self.table, row, path, message, fix, is_missing=True))
        return problems

    def _elsewhere(self, row: int) -> str:
        """A sentence on a cell that is a path by itself."""
        for name in fields(self.template):
            path = os.path.join(self.root, self.table.column(name)[row].replace("\\", "/"))
            folder, last = self._place(path)
            if is_within(os.path.abspath(path), os.path.abspath(self.root)) and last in folder.names:
                return f" {path} is there: should the template be '{{{name}}}'?"
        return ""

    def _place(self, path: str) -> tuple["_Folder", str]:
        parent, name = os.path.split(path)
        if parent not in self.folders:
            self.folders[parent] = _Folder(self.source, parent)
        return self.folders[parent], name

    def _leaves(self, path: str, filled: str) -> bool:
        """Whether a path leads out of the images' folder, links aside."""
        if not os.path.isabs(filled) and ".." not in filled:
            return False
        return not is_within(os.path.abspath(path), self.absolute)


class _Folder:
    """The images of a folder, listed once."""

    def __init__(self, source: Lister, path: str) -> None:
        self.source, self.path = source, path

    @cached_property
    def _listed(self) -> tuple[Collection[str] | None, tuple[str, str]]:
        """The names, or why there are none; only asked of folders in which a cell may look."""
        try:
            names = self.source.names(self.path)
        except InputError as error:
            return None, ("cannot be read", str(error))
        return names, ("is missing", "" if names is not None else self.source.missing(self.path))

    @property
    def is_there(self) -> bool:
        return self._listed[0] is not None

    @property
    def names(self) -> Collection[str]:
        return self._listed[0] or ()

    @property
    def missing(self) -> tuple[str, str]:
        """That the folder is missing or damaged, and what to do about it."""
        return self._listed[1]

    @cached_property
    def example(self) -> str:
        """A sentence on what the folder holds."""
        if not self.names:
            return "The folder holds no file."
        return f"{self.path} has {number_of(len(self.names), 'file')}, such as '{min(self.names)}'."

    @cached_property
    def _composed(self) -> dict[str, str]:
        return {unicodedata.normalize("NFC", name): name for name in self.names}

    @cached_property
    def _near(self) -> dict[str, str]:
        near = {_key(Path(name).stem): name for name in self.names}
        return near | {_key(name): name for name in self.names}

    def find(self, name: str) -> str | None:
        """The image of that name, in whatever Unicode form the disk has it; None where there is none."""
        if name in self.names:
            return name
        return None if name.isascii() else self._composed.get(unicodedata.normalize("NFC", name))

    def hint(self, name: str, column: str) -> str:
        """What to do about an image that is not there; `column` is the template's last."""
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
    """Equal for names that differ only by case, by how accents are written, by blanks, leading zeros or `.0`."""
    key = unicodedata.normalize("NFC", name).casefold().strip()
    return key if keep_zeros else LOST_ZEROS.sub("", AS_FLOAT.sub("", key))


def _is_absolute(path: str) -> bool:
    """Whether a path starts at the root of a disk, here or on Windows."""
    return os.path.isabs(path) or re.match(r"[A-Za-z]:[\\/]", path) is not None


def is_within(path: str, folder: str) -> bool:
    """Whether a path is a folder or leads into it, as the two are spelled."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _fill(template: str, table: Table, problems: list[Problem]) -> Iterator[str]:
    """The template of every row with its columns filled in."""
    columns: list[list[str]] = []
    parts = FIELD.split(template)  # text, name, width, text, …
    for text, name, width in zip(parts[::3], [*parts[1::3], None], [*parts[2::3], None], strict=True):
        columns.append([text] * len(table))
        if name is not None:
            columns.append(_padded(table, name, int(width), problems) if width else table.column(name))
    return map("".join, zip(*columns, strict=True))


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
