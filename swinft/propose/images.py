"""Sizes and levels of a sample of images, by their headers or numbers; and images whose pixels are in cells."""

import io
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from swinft.data.sources.named import make_source
from swinft.data.tables.numbers import NUMBER
from swinft.propose.listing import Group, spread
from swinft.propose.tables import TableFacts

TRIED, TRIED_NUMBERS = 24, 3
NUMBERED = re.compile(r"(.*?)([0-9]+)")
LEAST = 64  # pixels of an image
TRIED_COLUMNS, TRIED_LISTS = 20, 24  # columns of pixels, and cells of lists, that are read
DICOM, PARQUET = (".dcm", ".dicom"), ".parquet"


@dataclass(frozen=True)
class Shown:
    """What a sample of images shows.

    Args:
        width: Their median width in pixels; 0 where none could be read.
        height: Their median height.
        tried: How many were read.
        rules: `data.loading.image_rules` that they need.
        why: Why.
    """

    width: int = 0
    height: int = 0
    tried: int = 0
    rules: dict[str, Any] = field(default_factory=dict)
    why: str = ""


def look_at(root: Path, group: Group) -> Shown:
    """Looks at a sample of a group's images."""
    suffix = (group.suffix or (group.names[0] if group.names else "")).lower()
    try:
        if suffix.endswith(DICOM):
            return _dicom(root, group)
        if suffix.endswith(PARQUET):
            return _matrices(root, group)
    except ImportError as error:
        return Shown(why=f"{error.name} is not installed")
    return _files(root, group)


def are_grey(root: Path, names: Sequence[str]) -> bool:
    """Whether some files have one channel each; False where one of them cannot be read."""
    try:
        for name in names:
            with Image.open(root / name) as opened:
                if opened.mode not in ("1", "L", "I", "I;16", "F"):
                    return False
    except (OSError, ValueError, Image.DecompressionBombError):
        return False
    return bool(names)


def _shown(sizes: Sequence[tuple[int, int]], rules: dict[str, Any] | None = None, why: str = "") -> Shown:
    """The result for some (width, height)."""
    if not sizes:
        return Shown()
    width, height = (round(median(size[axis] for size in sizes)) for axis in (0, 1))
    return Shown(width, height, len(sizes), rules or {}, why)


def _files(root: Path, group: Group) -> Shown:
    found = []
    source = make_source(group.container, False)
    for name in spread(group.names, TRIED):
        path = str(root / name)
        try:
            if group.container == "files":
                opened = Image.open(path)
            else:
                source.names(os.path.dirname(path))
                opened = Image.open(io.BytesIO(source.read(path)))
            with opened:
                found.append(opened.size)
        except (OSError, ValueError, LookupError, Image.DecompressionBombError):
            continue
    return _shown(found)


def _dicom(root: Path, group: Group) -> Shown:
    """Sizes from the headers; the file's own window where all have one, else black and white by the file's bits."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    found, windows, signed = [], 0, 0
    for name in spread(group.names, TRIED):
        try:
            header = dcmread(root / name, stop_before_pixels=True)
        except (OSError, InvalidDicomError):
            continue
        found.append((int(header.get("Columns", 0)), int(header.get("Rows", 0))))
        windows += "WindowCenter" in header
        signed += int(header.get("PixelRepresentation", 0)) == 1
    if found and windows == len(found):
        return _shown(found, {"window": "file"}, "the DICOM files declare a window each")
    if signed:
        why = "the DICOM files have signed samples and no window: this one is for soft tissue in CT; choose your own"
        return _shown(found, {"window": [40, 400]}, why)
    return _shown(found)


def _matrices(root: Path, group: Group) -> Shown:
    """Sizes of matrices, and the range of their numbers."""
    import pandas as pd
    import pyarrow  # noqa: F401  # pandas reads Parquet with it, and says less clearly that it is missing

    found, samples = [], []
    for name in spread(group.names, TRIED_NUMBERS):
        try:
            numbers = pd.read_parquet(root / name).select_dtypes("number").to_numpy(np.float64)
        except (OSError, ValueError):
            continue
        found.append((numbers.shape[1], numbers.shape[0]))
        samples.append(numbers.ravel())
    if not (rules := number_rules(samples)):
        return _shown(found)
    return _shown(found, rules, f"matrices of numbers: 1 and 99 % of those in {len(found)} files are black and white")


def number_rules(samples: Sequence[NDArray[np.float64]]) -> dict[str, Any]:
    """`data.loading.image_rules` for images of any numbers, from the numbers of some; empty where none is finite."""
    everything = np.concatenate(samples) if samples else np.zeros(0)
    finite = everything[np.isfinite(everything)]
    if not finite.size:
        return {}
    low, high = (float(f"{value:.3g}") for value in np.quantile(finite, [0.01, 0.99]))
    rules: dict[str, Any] = {"keep": "float32", "range": [low, high if high > low else low + 1]}
    rules |= {"scale": "log"} if low > 0 and high > 100 * low else {}
    return rules | ({"fill_nan": low} if finite.size < everything.size else {})


def holds_pixels(table: TableFacts) -> bool:
    """Whether a table holds its images."""
    return bool(pixel_columns(table)[1] or pixel_lists(table)[0])


def pixel_columns(table: TableFacts) -> tuple[str, list[str]]:
    """Columns of grey values, 0 to 255, whose names differ by a number, and what their names start with."""
    by_prefix: dict[str, list[str]] = {}
    for name in table.columns:
        if match := NUMBERED.fullmatch(name):
            by_prefix.setdefault(match[1], []).append(name)
    for prefix, names in by_prefix.items():
        side = math.isqrt(len(names))
        tried: Sequence[str] = names[:: max(1, len(names) // TRIED_COLUMNS)]
        if len(names) >= LEAST and side * side == len(names) and all(_are_grey(table, name) for name in tried):
            return prefix, names
    return "", []


def _are_grey(table: TableFacts, name: str) -> bool:
    column = table.columns[name]
    return column.is_whole and all(0 <= number <= 255 for number in column.numbers[:200])


def pixel_lists(table: TableFacts) -> tuple[list[str], int, list[list[str]]]:
    """Columns whose cells are lists of equally many numbers, which make a square; its side, and some of the lists."""
    found: dict[int, list[str]] = {}
    numbers: dict[int, list[list[str]]] = {}
    for name, column in table.columns.items():
        lists = [cell.split() for cell in spread([*column.cells], TRIED_LISTS)]
        lengths = {len(each) for each in lists}
        side = math.isqrt(min(lengths, default=0))
        if lengths == {side * side} and side * side >= LEAST and all(map(_are_numbers, lists)):
            found.setdefault(side, []).append(name)
            numbers.setdefault(side, []).extend(lists)
    side = next(iter(found), 0)
    return found.get(side, []), side, numbers.get(side, [])


def _are_numbers(cells: Sequence[str]) -> bool:
    return all(NUMBER.fullmatch(cell) or cell == "nan" for cell in cells)
