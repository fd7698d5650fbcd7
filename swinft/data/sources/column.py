"""Images whose pixels are numbers in columns of the table itself."""

import math
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import numpy as np

from swinft.data.sources.files import state_of
from swinft.data.sources.pixels import SET_SHAPE, image_shape, netpbm, row_levels
from swinft.data.sources.source import Source
from swinft.data.tables.table import Problem, Table
from swinft.ranges import COUNT, check_ranges


class ColumnSource(Source):
    """Pixels in columns: `image: pixel*` for pixel0, pixel1, …; `image: pixels` for one cell of numbers and blanks.

    They are whole numbers in 0–255, row by row from the top left, the channels of a pixel side by side. Columns count
    in the order of the numbers in their names, not in that of the table.

    Args:
        height: In pixels; null for what the other numbers leave, or for a square.
        width: The same.
        channels: 1 for grey, 3 for RGB.
    """

    def __init__(self, height: int | None = None, width: int | None = None, channels: Literal[1, 3] = 1) -> None:
        self.height, self.width, self.channels = height, width, channels
        check_ranges("data.loading.source", vars(self), dict.fromkeys(("height", "width", "channels"), COUNT))
        self._images: dict[str, tuple[bytes, int, tuple[int, int, int], tuple[int, ...]]] = {}

    def read(self, reference: str) -> bytes:
        """A row's pixels as an image file."""
        pixels, row, shape, _ = self._images[reference]
        return netpbm(np.frombuffer(pixels, np.uint8, math.prod(shape), row * math.prod(shape)).reshape(shape))

    def stat(self, reference: str) -> tuple[int, ...]:
        """The state of the table's file when it was read: what is in memory does not change."""
        return self._images[reference][3]

    def names(self, folder: str) -> Collection[str] | None:
        """None: rows are not looked for by name."""
        return None

    def template_problem(self, template: str) -> str | None:
        """A path, which is for the other sources."""
        return "is a path; with this source it names columns: 'pixel*'." if re.search("[{}/]", template) else None

    def references(
        self, table: Table, template: str, root: Path, problems: list[Problem], notes: list[str] | None = None
    ) -> list[str]:
        """The reference of every row; cells that are no levels and rows that are no images are appended."""
        pattern = re.compile(".*".join(map(re.escape, template.split("*"))))
        columns = sorted(filter(pattern.fullmatch, table.columns), key=_numbers)
        cells = [table.column(name) for name in columns]
        rows = [cell.split() for cell in cells[0]] if len(cells) == 1 else list(map(list, zip(*cells, strict=True)))
        shape = image_shape(len(rows[0]) if rows else 0, self.height, self.width, self.channels)
        wrong = {
            "there is no such column": not columns,
            "names of columns have the same numbers in them": len({*map(_numbers, columns)}) < len(columns),
            f"{len(columns):,} columns make no image": len(columns) > 1 and len(columns) != math.prod(shape),
        }
        if what := next((text for text, is_so in wrong.items() if is_so), ""):
            fix = f"Change data.image. {SET_SHAPE}"
            problems.append(Problem(str(table.path), what, fix, 1, column=template))
            return [""] * len(table)
        size = math.prod(shape)
        pixels = b"".join(row_levels(table, row, numbers, size, problems) for row, numbers in enumerate(rows))
        found, state = [f"{table.path}/{template}/{id}" for id in table.ids], state_of(os.stat(table.path))
        self._images |= {reference: (pixels, row, shape, state) for row, reference in enumerate(found)}
        return found


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall("[0-9]+", name)))
