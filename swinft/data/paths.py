"""A template like `train/{Id}.jpg` becomes the image file of every row, and every file is known to be there."""

import os
import re
import unicodedata
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from swinft.data.table import CONTROL, Problem, Table

# Whatever stands between braces is a column: names may hold blanks and points, which `str.format` would not take.
FIELD = re.compile(r"\{([^{}]+)\}")


def fields(template: str) -> list[str]:
    """The columns that a template names."""
    return FIELD.findall(template)


def image_paths(table: Table, template: str, root: Path, problems: list[Problem]) -> list[str]:
    """The image file of every row.

    The template is the user's and may point anywhere; the cells come with the data and may not leave the folder that
    the template opens before its first column.

    Args:
        table: Holds the columns of the template.
        template: A path with columns in braces, relative to `root`.
        root: The data's folder.
        problems: Cells that leave the folder and files that are not there are appended.

    Returns:
        N paths.
    """
    inside = root / os.path.dirname(template.partition("{")[0])
    boundary = os.path.realpath(inside)
    folders: dict[str, _Folder] = {}
    paths = []
    for row, filled in enumerate(_fill(template, table)):
        path = os.path.join(root, filled)
        paths.append(path)
        if CONTROL.search(filled) or not _is_within(os.path.abspath(path), os.path.abspath(inside)):
            fix = f"Image files must lie in {inside}."
            problems.append(_problem(table, row, filled, "the path leaves the images' folder", fix))
            continue
        parent, name = os.path.split(path)
        folder = folders.setdefault(parent, _Folder(parent))
        if name not in folder.files:
            problem = _problem(table, row, path, "the image file is missing", folder.hint(name), is_missing=True)
            problems.append(problem)
        elif not _is_within(os.path.realpath(path) if folder.files[name] else folder.real, boundary):
            fix = f"Copy it into {inside}, or let the template start at the folder it lies in."
            problems.append(_problem(table, row, path, "the path is a link that leaves the images' folder", fix))
    return paths


class _Folder:
    """The files of a folder, listed once: a look-up per row would be slow on network disks."""

    def __init__(self, path: str) -> None:
        self.path = path

    @cached_property
    def real(self) -> str:
        return os.path.realpath(self.path)

    @cached_property
    def files(self) -> dict[str, bool]:
        """Names of the files, each with whether it is a link."""
        if not os.path.isdir(self.path):
            return {}
        with os.scandir(self.path) as entries:
            return {entry.name: entry.is_symlink() for entry in entries if entry.is_file()}

    @cached_property
    def _near(self) -> dict[str, str]:
        near = {_key(Path(name).stem): name for name in self.files}
        return near | {_key(name): name for name in self.files}

    def hint(self, name: str) -> str:
        """What to do about a file that is not there."""
        if not os.path.isdir(self.path):
            return f"There is no folder {self.path}."
        near = self._near.get(_key(name)) or self._near.get(_key(Path(name).stem))
        if near:
            return f"The folder has '{near}': does the template need another extension or case?"
        return "Restore the file or remove the row."


def _key(name: str) -> str:
    """Equal for names that differ only by case or by how accents are written."""
    return unicodedata.normalize("NFC", name).casefold()


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def _fill(template: str, table: Table) -> Iterator[str]:
    parts = FIELD.split(template)
    columns = [table.column(part) if index % 2 else [part] * len(table) for index, part in enumerate(parts)]
    return map("".join, zip(*columns, strict=True))


def _problem(table: Table, row: int, value: str, message: str, fix: str, is_missing: bool = False) -> Problem:
    whole = table.problem(row, message, fix)
    return Problem(whole.file, message, fix, whole.line, whole.id, value=value, is_missing=is_missing)
