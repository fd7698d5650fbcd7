"""The images of every row are found: of several a row, which ones, and where each distinct one is.

Shapes: N rows, V images of a row at most, M distinct images.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from swinft.data.image_paths import Search, filled_parts
from swinft.data.images.dicom import SUFFIXES, series_order
from swinft.data.images.rules import ImageRules
from swinft.data.row_images import RowImages, Shown, spread
from swinft.data.sources.given import GivenImages
from swinft.data.sources.parts import PartSource, part_names
from swinft.data.sources.recorded import RecordedImages
from swinft.data.sources.source import Source
from swinft.data.tables.table import Problem, Table
from swinft.errors import number_of

NONE = ""  # where a row has no image


@dataclass(frozen=True)
class Finding:
    """Finds the images of a table's rows.

    Args:
        images: The setting.
        source: Where their bytes come from.
        root: The data's folder.
        may_lack_all: A row without any image is no problem yet: `data.loading.on_bad_image` is `skip`.
    """

    images: RowImages
    source: Source
    root: Path
    may_lack_all: bool

    @property
    def columns(self) -> list[str]:
        """The columns that the images are found by."""
        return [] if isinstance(self.source, GivenImages) else self.images.columns

    def find(self, table: Table, problems: list[Problem], notes: list[str]) -> tuple[list[str], Shown | None]:
        """The images.

        Args:
            table: Its rows.
            problems: Whatever is wrong is appended.
            notes: What is worth knowing is appended.

        Returns:
            N paths and None where each row has one image; else M distinct references, and which of them a row shows.
        """
        if self.images.is_plain:
            return self.source.references(table, self.images.templates[0], self.root, problems, notes), None
        rows = self._several(table, problems, notes)
        if not self.may_lack_all and not problems:
            paths = " or ".join(f"'{path}'" for path in self.images.templates)
            fix = f"No file of {paths}: restore it, remove the row, or set data.loading.on_bad_image to skip."
            lacking = [row for row, files in enumerate(rows) if not any(files)]
            problems += [table.problem(row, "the row has no image", fix) for row in lacking]
        files = np.full((len(rows), self.images.most), -1, dtype=np.int64)
        places: dict[str, int] = {}
        for row, found in enumerate(rows):
            names = [name for file in found for name in self._parts(file)]
            for slot, name in enumerate(names):
                if name != NONE:
                    files[row, slot] = places.setdefault(name, len(places))
        return list(places), Shown(self.images, files)

    def reading(self, rules: ImageRules) -> Source:
        """What reads the bytes of what is found; `rules` are those of `data.loading.image_rules`."""
        return PartSource(self.source, self.images, rules) if self.images.cuts else self.source

    def _parts(self, file: str) -> list[str]:
        if not self.images.cuts:
            return [file]
        return part_names(file, self.images.parts) if file != NONE else [NONE] * self.images.parts

    def _several(self, table: Table, problems: list[Problem], notes: list[str]) -> list[list[str]]:
        """The files of every row, `NONE` where a template has none."""
        if isinstance(self.source, GivenImages):
            return self.source.of_rows(table, self.images, problems)
        if self.images.is_open:
            return list(self._open(table, problems, notes))
        columns = [self._of_template(table, template, problems, notes) for template in self.images.templates]
        return [list(row) for row in zip(*columns, strict=True)]

    def _of_template(self, table: Table, template: str, problems: list[Problem], notes: list[str]) -> list[str]:
        if self.images.missing == "error":
            return self.source.references(table, template, self.root, problems, notes)
        search = Search(self.source, table, template, self.root)
        filled = enumerate(map("".join, filled_parts(template, table, problems)))
        paths = [search.path(row, path, problems, may_lack=True) for row, path in filled]
        search.conclude(problems, notes)
        lacking = sum(path == NONE for path in paths)
        if lacking == len(paths):
            fix = "Correct it in data.image; the nearest file is named where data.image.missing is error."
            problems.append(Problem(str(table.path), "no row has an image of a template", fix, column=template))
        notes += [f"{table.path}: {number_of(lacking, 'row has', 'rows have')} no '{template}', which is masked."] * (
            lacking > 0
        )
        return paths

    def _open(self, table: Table, problems: list[Problem], notes: list[str]) -> Iterator[list[str]]:
        """The files that wildcards or cells give, for every row."""
        (template,) = self.images.templates
        search = Search(self.source, table, template, self.root)
        most, counts = self.images.most // self.images.parts, Counter[str]()
        for row, parts in enumerate(filled_parts(template, table, problems)):
            if self.images.delimiter is None:
                files = self._ordered(search.matches(row, parts, problems))
            else:
                files = self._listed(search, row, parts, problems, counts)
            counts["more than that"] += len(files) > most
            yield [files[place] for place in spread(len(files), most)]
        search.conclude(problems, notes)
        texts = {
            "more than that": f"{number_of(counts['more than that'], 'row has', 'rows have')} more than {most} images "
            f"(data.image.max), of which so many are taken, evenly spread",
            "twice": f"{number_of(counts['twice'], 'cell lists', 'cells list')} a file twice, which is taken once",
        }
        notes += [f"{table.path}: {text}." for name, text in texts.items() if counts[name]]

    def _ordered(self, files: list[str]) -> list[str]:
        """The files of wildcards in the order of the setting."""
        is_series = (
            self.images.order == "auto"
            and not isinstance(self.source, RecordedImages)
            and all(file.casefold().endswith(SUFFIXES) for file in files)
        )
        return series_order(files, self.source) if is_series and len(files) > 1 else files

    def _listed(
        self, search: Search, row: int, parts: tuple[str, ...], problems: list[Problem], counts: Counter[str]
    ) -> list[str]:
        """The files that the last cell of a row lists."""
        *before, cell, after = parts
        names = [name.strip() for name in cell.split(self.images.delimiter)]
        names = [name for name in names if name]
        counts["twice"] += len(set(names)) < len(names)
        may_lack = self.images.missing == "mask"
        filled = ["".join([*before, name, after]) for name in dict.fromkeys(names)]
        return list(filter(None, (search.path(row, path, problems, may_lack) for path in filled)))
