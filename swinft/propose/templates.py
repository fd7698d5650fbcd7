"""Finds how the images of a table's rows are named: a template like `train/{Id}.jpg`, verified on a sample of rows."""

import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, permutations
from pathlib import Path

from swinft.data.image_paths import FIELD, fields
from swinft.propose.listing import Container, Group, Listing, spread
from swinft.propose.tables import Column, TableFacts

TRIED_FILES, TRIED_ROWS = 24, 60  # of a group and of a table, evenly spread
BRACES = re.compile(r"[{}]")  # in a column's name: a template cannot name it
MOST_TEMPLATES = 8  # of a group that are tried
TRIED_ENDINGS = 3  # rows whose folder is listed
MOST_PAIRED, MOST_WORDS = 8, 12  # columns that are paired; words of a name and the signs between them
ENOUGH = 0.95  # of the tried rows have their image
MOST_FILES = 0.5  # of the files are named by a column with few values: those of classes are few among all files
LEAST_KEY = 0.2  # distinct values per row of a column that may name images: more than classes, fewer for long tables


@dataclass(frozen=True)
class Template:
    """How the images of a table's rows are named.

    Args:
        path: `data.image`.
        group: The files that it names.
        found: Fraction of the tried rows that have their image.
        covered: Fraction of the tried files that have a row.
    """

    path: str
    group: Group
    found: float
    covered: float

    @property
    def columns(self) -> list[str]:
        """The columns that it names."""
        return fields(self.path)

    @property
    def container(self) -> Container:
        """What holds the images."""
        return self.group.container

    @property
    def is_open(self) -> bool:
        """Whether a row may have several images."""
        return "*" in self.path


class Images:
    """The images of a listing, to look up whether a path exists."""

    def __init__(self, listing: Listing) -> None:
        self.root, self.groups = listing.root, listing.groups
        self._inner: dict[str, set[str]] = {}

    def exists(self, group: Group, path: str) -> bool:
        """Whether an image exists; of several per row, whether there is at least one."""
        if group.container == "files":
            if "*" in path:
                folder, name = os.path.split(path)
                return (
                    any(True for _ in Path(self.root, folder).glob(name))
                    if os.path.isdir(self.root / folder)
                    else False
                )
            return os.path.isfile(self.root / path)
        return os.path.basename(path) in self._members(group)

    def _members(self, group: Group) -> set[str]:
        if group.folder not in self._inner:
            from swinft.data.sources.named import make_source

            source = make_source("zip" if group.container == "zip" else "hdf5", False)
            self._inner[group.folder] = {*(source.names(str(self.root / group.folder)) or ())}
        return self._inner[group.folder]


def find_templates(table: TableFacts, images: Images) -> list[Template]:
    """The templates with which nearly all rows of a table have an image, the best first."""
    keys = Keys(table)
    found = _found(table, images, keys.templates)
    if not any(table.is_unique(name) for each in found for name in each.columns):
        found += _found(table, images, keys.of_pairs)
    if not found:  # a column of few cells, which may also be classes
        found += [each for each in _found(table, images, keys.of_rare) if each.covered >= MOST_FILES]
    order = {"files": 0, "zip": 1, "hdf5": 2}
    # Of images in several forms, files as photographs come first; then templates with few columns.
    return sorted(
        found,
        key=lambda each: (
            not names_rows(table, each.columns),
            is_aside(each.group.folder) or is_aside(os.path.basename(FIELD.sub("", each.path))),
            -round(each.covered, 1),
            each.is_open,
            each.group.suffix.lower() in (".dcm", ".tif", ".tiff", ".npy"),
            order[each.container],
            len(each.columns),
            len(each.path),
        ),
    )


def endings(table: TableFacts, image: Template, images: Images) -> list[str]:
    """How the names of a row's files end, if they are alike but for a word: `_red.png`, `_green.png`; else empty."""
    before, _, ending = image.path.rpartition("}")
    if image.container != "files" or not before or "*" in image.path or "/" in ending or ending == image.group.suffix:
        return []
    start = before + "}"
    found: set[str] | None = None
    for row in range(min(TRIED_ENDINGS, table.num_kept)):
        folder, name = os.path.split(filled(start, table.row(row)))
        if not os.path.isdir(images.root / folder):
            return []
        files = Path(images.root, folder).glob(f"{glob.escape(name)}[_. -]*{image.group.suffix}")
        of_row = {file.name[len(name) :] for file in files} - {image.group.suffix}
        found = of_row if found is None else found & of_row
    named = [each for each in found or () if not is_aside(each)]
    return [each for each in named if _share_found(start + each, image.group, table, images) >= ENOUGH]


def with_ending(path: str, ending: str) -> str:
    """A template with another word after its last column."""
    return f"{path.rpartition('}')[0]}}}{ending}"


def names_rows(table: TableFacts, columns: Sequence[str]) -> bool:
    """Whether the cells of some columns together are those of one row."""
    if any(table.is_unique(name) for name in columns):
        return True
    cells = [*zip(*(table.columns[name].cells for name in columns), strict=True)]
    return len(columns) > 1 and len({*cells}) == len(cells)


def _found(table: TableFacts, images: Images, made: Callable[[str, Group], Iterator[str]]) -> list[Template]:
    """Those of the templates made from names of files with which nearly all rows have an image."""
    found = []
    for group in images.groups:
        if group.count < 1 or not group.names:
            continue
        counts = Counter(path for name in spread(group.names, TRIED_FILES) for path in made(name, group))
        tried = min(TRIED_FILES, len(group.names))
        for path, count in counts.most_common(MOST_TEMPLATES):
            share = _share_found(path, group, table, images)
            if share >= ENOUGH:
                found.append(Template(path, group, share, count / tried))
    return found


def shared_templates(templates: Sequence[Template], table: TableFacts, images: Images) -> list[Template]:
    """Those of another table by which nearly all rows of this one have an image, too: few rows may name few files."""
    return [
        each
        for each in templates
        if table.columns.keys() >= set(each.columns) and _share_found(each.path, each.group, table, images) >= ENOUGH
    ]


def is_aside(folder: str) -> bool:
    """Whether a folder holds what is made of images, such as masks and thumbnails."""
    return re.search(r"mask|thumb|segment|annot|trimap", folder.lower()) is not None


def _share_found(path: str, group: Group, table: TableFacts, images: Images) -> float:
    places = [int((k + 0.5) * table.num_kept / TRIED_ROWS) for k in range(TRIED_ROWS)]
    rows = sorted({place for place in places if place < table.num_kept})
    found = sum(images.exists(group, filled(path, table.row(row))) for row in rows)
    return found / max(1, len(rows))


def filled(template: str, row: dict[str, str]) -> str:
    """A template with the cells of a row."""
    return FIELD.sub(lambda match: row[match[1]].zfill(int(match[2] or 0)) if match[2] else row[match[1]], template)


class Keys:
    """The columns of a table by whose cells files may be named."""

    def __init__(self, table: TableFacts) -> None:
        self.table = table
        rows = max(1, table.num_kept)
        # Few rows to predict may all be of one image.
        least = LEAST_KEY * rows if rows < 20 else min(1000.0, max(2.0, LEAST_KEY * rows))
        few = [name for name, column in table.columns.items() if _may_name(column) and len(column.values) >= least]
        many = [name for name in few if len(table.columns[name].values) > 0.9 * rows]
        self.names = [*many, *(name for name in few if name not in many)]
        others = {name: column for name, column in table.columns.items() if name not in few and _may_name(column)}
        self.rare = {name for name, column in others.items() if len(column.values) > 1}  # many rows of each image

    @cached_property
    def rows(self) -> dict[str, dict[str, int]]:
        """By column and cell, a row that has it."""
        return {
            name: {cell: row for row, cell in enumerate(self.table.columns[name].cells) if cell}
            for name in (*self.names, *self.rare)
        }

    def templates(self, path: str, group: Group) -> Iterator[str]:
        """The templates by which a file could be that of a row."""
        parts = path.split("/")
        stem = parts[-1].removesuffix(group.suffix)
        for column in self.names:
            for template, row in self._whole(column, parts, stem, group):
                yield self._with_folders(template, row, column)

    def of_rare(self, path: str, group: Group) -> Iterator[str]:
        """The templates by which a file could be that of many rows: a column that is the whole name."""
        parts = path.split("/")
        stem = parts[-1].removesuffix(group.suffix)
        for column in sorted(self.rare):
            if found := self._named(column, parts, stem, group):
                yield "/".join(found[0])

    def _whole(self, column: str, parts: Sequence[str], stem: str, group: Group) -> Iterator[tuple[list[str], int]]:
        """Templates in which a column is the end of the path, the name, the stem, a part of it, or the folder."""
        rows, name = self.rows[column], "{" + column + "}"
        if found := self._named(column, parts, stem, group):
            yield found
            return
        if stem.isdigit() and stem.startswith("0") and (row := rows.get(stem.lstrip("0") or "0")) is not None:
            yield [*parts[:-1], f"{{{column}:0{len(stem)}d}}{group.suffix}"], row
        yield from self._in_stem(column, parts, stem, group)
        for place in range(len(parts) - 2, -1, -1):  # a folder per row, with several files
            if (row := rows.get(parts[place])) is not None and place == len(parts) - 2:
                yield [*parts[:place], name, "*" + group.suffix], row
                return

    def _named(self, column: str, parts: Sequence[str], stem: str, group: Group) -> tuple[list[str], int] | None:
        """The template in which a column is the end of the path, with or without its suffix, and a row; or None."""
        rows, name = self.rows[column], "{" + column + "}"
        for start in range(len(parts)):
            if (row := rows.get("/".join(parts[start:]))) is not None:
                return [*parts[:start], name], row
            if group.suffix and (row := rows.get("/".join([*parts[start:-1], stem]))) is not None:
                return [*parts[:start], name + group.suffix], row
        return None

    def _in_stem(self, column: str, parts: Sequence[str], stem: str, group: Group) -> Iterator[tuple[list[str], int]]:
        """Templates in which a column is one of several words of the file's name."""
        words = re.split(r"([_\-. ])", stem)
        for place in range(0, len(words), 2):
            for end in range(len(words), place, -2):
                word = "".join(words[place:end])
                if len(word) < len(stem) and (row := self.rows[column].get(word)) is not None:
                    cells = {
                        cell: f"{{{other}}}"
                        for other, cell in self.table.row(row).items()
                        if other in self.names and cell
                    }
                    rest = [[cells.get(each, each) for each in part] for part in (words[:place], words[end:])]
                    yield [*parts[:-1], "".join([*rest[0], f"{{{column}}}", *rest[1]]) + group.suffix], row
                    return

    @cached_property
    def pairs(self) -> dict[tuple[str, str], dict[tuple[str, str], int]]:
        """By two columns that together name a row, and by their cells, the row."""
        names = [name for name, column in self.table.columns.items() if _may_name(column) and len(column.values) > 1]
        found = {}
        for one, other in permutations(names[:MOST_PAIRED], 2):
            cells = zip(self.table.columns[one].cells, self.table.columns[other].cells, strict=True)
            rows = {pair: row for row, pair in enumerate(cells)}
            if not self.table.is_unique(one) and not self.table.is_unique(other) and len(rows) == self.table.num_kept:
                found[one, other] = rows
        return found

    def of_pairs(self, path: str, group: Group) -> Iterator[str]:
        """The templates by which a file could be that of the row with two words of its name in two columns."""
        *folders, last = path.split("/")
        words = re.split(r"([_\-. ])", last.removesuffix(group.suffix))
        for (one, other), rows in self.pairs.items():
            for first, second in combinations(range(0, min(len(words), MOST_WORDS), 2), 2):
                if (row := rows.get((words[first], words[second]))) is not None:
                    named = [*words]
                    named[first], named[second] = f"{{{one}}}", f"{{{other}}}"
                    yield self._with_folders([*folders, "".join(named) + group.suffix], row, one)

    def _with_folders(self, template: list[str], row: int, column: str) -> str:
        """The template with other columns in place of folders that are cells of the row."""
        every = reversed(self.table.row(row).items())
        cells = {cell: name for name, cell in every if cell and name != column and not BRACES.search(name)}
        return "/".join(f"{{{cells[part]}}}" if part in cells else part for part in template)


def _may_name(column: Column) -> bool:
    """Whether a column's cells may be names of files: no fractions, and not 0 and 1."""
    if not column.values or column.is_flag or BRACES.search(column.name):
        return False
    first = next(iter(column.values))
    return not (column.is_number and not column.is_whole) and len(first) <= 300
