"""Images stored as pixel values in columns of the table."""

import math
import os
import re
from collections.abc import Collection
from pathlib import Path
from typing import Literal

import numpy as np

from swinft.data.sources.files import state_of
from swinft.data.sources.pixels import SET_SHAPE, array_file, image_shape, row_levels, row_numbers
from swinft.data.sources.source import Source
from swinft.data.tables.table import Problem, Table
from swinft.errors import InputError, suggest
from swinft.ranges import COUNT, check_ranges


class ColumnSource(Source):
    """Pixels in columns: `image: pixel*` for pixel0, pixel1, …; `image: pixels` for one cell of numbers and blanks.

    Values are in row-major order, channels last. Columns are sorted by the numbers in their names, not by their order
    in the table.

    Args:
        height: In pixels; null to derive it from the width, or for a square image.
        width: In pixels; null to derive it from the height, or for a square image.
        channels: 1 for grey, 3 for RGB.
        values: `levels` for whole numbers in 0–255; `numbers` for any numbers, which need
            `data.loading.image_rules: {keep: float32, range: [black, white]}`.
    """

    def __init__(
        self,
        height: int | None = None,
        width: int | None = None,
        channels: Literal[1, 3] = 1,
        values: Literal["levels", "numbers"] = "levels",
    ) -> None:
        self.height, self.width, self.channels, self.values = height, width, channels, values
        if values not in ("levels", "numbers"):
            raise InputError(f"data.loading.source: values is {values!r}.{suggest(str(values), ['levels', 'numbers'])}")
        check_ranges("data.loading.source", vars(self), dict.fromkeys(("height", "width", "channels"), COUNT))
        self._images: dict[str, tuple[bytes, int, tuple[int, int, int], tuple[int, ...]]] = {}

    def read(self, reference: str) -> bytes:
        """A row's pixels, encoded as an image file."""
        pixels, row, shape, _ = self._images[reference]
        dtype = np.dtype(np.uint8 if self.values == "levels" else np.float32)
        size = math.prod(shape)
        return array_file(np.frombuffer(pixels, dtype, size, row * size * dtype.itemsize).reshape(shape))

    def stat(self, reference: str) -> tuple[int, ...]:
        """State of the table's file when it was read; the pixels in memory do not change."""
        return self._images[reference][3]

    def names(self, folder: str) -> Collection[str] | None:
        """None: rows are not found by name."""
        return None

    def template_problem(self, template: str) -> str | None:
        """Paths are for the other sources."""
        return "is a path; with this source it names columns: 'pixel*'." if re.search("[{}/]", template) else None

    def references(
        self, table: Table, template: str, root: Path, problems: list[Problem], notes: list[str] | None = None
    ) -> list[str]:
        """The reference of every row; invalid pixels and rows are appended to `problems`."""
        pattern = re.compile(".*".join(map(re.escape, template.split("*"))))
        columns = sorted(filter(pattern.fullmatch, table.columns), key=_numbers)
        cells = [table.column(name) for name in columns]
        rows = [cell.split() for cell in cells[0]] if len(cells) == 1 else list(map(list, zip(*cells, strict=True)))
        shape = image_shape(len(rows[0]) if rows else 0, self.height, self.width, self.channels)
        wrong = {
            "there is no such column": not columns,
            "column names contain the same numbers": len({*map(_numbers, columns)}) < len(columns),
            f"{len(columns):,} columns do not make an image": len(columns) > 1 and len(columns) != math.prod(shape),
        }
        if what := next((text for text, is_so in wrong.items() if is_so), ""):
            fix = f"Change data.image. {SET_SHAPE}"
            problems.append(Problem(str(table.path), what, fix, 1, column=template))
            return [""] * len(table)
        size = math.prod(shape)
        parse = row_levels if self.values == "levels" else row_numbers
        pixels = b"".join(parse(table, row, numbers, size, problems) for row, numbers in enumerate(rows))
        found = [f"{table.path}/{template}/{id}" for id in table.ids]
        state = state_of(os.stat(table.path)) if table.sha256 is None else _state(table.sha256)
        self._images |= {reference: (pixels, row, shape, state) for row, reference in enumerate(found)}
        return found


def _state(sha256: str) -> tuple[int, ...]:
    """A hash as five numbers, for a table that is no file."""
    return tuple(int(sha256[at : at + 12], 16) for at in range(0, 60, 12))


def _numbers(name: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall("[0-9]+", name)))
