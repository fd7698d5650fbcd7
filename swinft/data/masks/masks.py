"""The masks of a table's rows, held as runs: a mask is made where it is needed, at the size of its image.

Shapes: N rows, K classes, (H, W) size of a row's image.
"""

import hashlib
import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from swinft.data.image_paths import Search, filled_parts
from swinft.data.images.decode import probe
from swinft.data.images.rules import RULES, ImageRules
from swinft.data.inspection.scan import in_order
from swinft.data.masks.rle import Order, Runs, area, classes_problem, decode, encode, runs_problem
from swinft.data.samples import check_answers
from swinft.data.sources.files import FILES
from swinft.data.sources.source import ImageError, Source, read_image
from swinft.data.tables.table import DataError, Problem, Table
from swinft.data.target.base import TargetCells
from swinft.data.target.segmentation import RLE_FIX, PixelClasses, Segmentation
from swinft.errors import number_of
from swinft.system.limits import available_cores

if TYPE_CHECKING:
    from swinft.data.data_settings import DataSettings
    from swinft.data.samples import Rows
    from swinft.data.schema import Schema

Planes = NDArray[np.uint8]  # (H, W, K), 0 and 1
SHOWN_VALUES = 8
CLASSES_FIX = "Correct the masks, or set `classes` of data.target_kind to what they are."


@dataclass(frozen=True, eq=False)
class Masks:
    """The masks of N rows.

    Args:
        runs: Of each row K arrays of runs; None for a row that is skipped.
        shapes: Height and width of each row's image, int32 (N, 2); 0 where it is skipped.
        order: Of the runs.
        num_classes: K.
        classes: Of each pixel, as in `Segmentation`.
    """

    runs: Sequence[list[Runs] | None]
    shapes: NDArray[np.int32]
    order: Order
    num_classes: int
    classes: PixelClasses = "independent"

    def planes(self, row: int) -> Planes:
        """The masks of a row at full size, uint8 (H, W, K).

        Raises:
            ValueError: The row is skipped.
        """
        runs = self.runs[row]
        if runs is None:
            raise ValueError(f"row {row} has no masks")
        shape = (int(self.shapes[row, 0]), int(self.shapes[row, 1]))
        return np.stack([decode(each, shape, self.order) for each in runs], axis=2).view(np.uint8)

    def digest(self) -> str:
        """SHA-256 of all masks, with the sizes of their images."""
        found = hashlib.sha256(np.ascontiguousarray(self.shapes, dtype="<i8").tobytes())
        for row in self.runs:
            for runs in () if row is None else row:
                found.update(len(runs).to_bytes(8, "little") + np.ascontiguousarray(runs, dtype="<i8").tobytes())
        return found.hexdigest()

    def coverage(self) -> NDArray[np.float32]:
        """Fraction of each image that a mask covers, float32 (N, K); NaN for rows that are skipped."""
        found = np.full((len(self.runs), self.num_classes), np.nan, np.float32)
        for row, (runs, shape) in enumerate(zip(self.runs, self.shapes.astype(np.int64), strict=True)):
            if runs is not None:
                found[row] = [area(each) / shape.prod() for each in runs]
        return found


def with_masks(settings: "DataSettings", rows: "Rows", schema: "Schema") -> "Rows":
    """Training rows with their masks, whose coverage becomes their targets; of other kinds as they are.

    Raises:
        DataError: As for `read_masks`.
    """
    if not schema.base.are_maps:
        return rows
    notes: list[str] = []
    masks = read_masks(settings, rows, schema.outputs, notes)
    table = replace(rows.table, notes=(*rows.table.notes, *notes))
    return replace(rows, table=table, masks=masks, targets=masks.coverage())


def read_test_masks(settings: "DataSettings", rows: "Rows", outputs: Sequence[str]) -> Masks:
    """Masks of a labelled test table, for `Trainer.test`.

    Raises:
        InputError: The table has no columns of masks.
        DataError: As for `read_masks`.
    """
    check_answers(settings, rows.table)
    return read_masks(settings, rows, outputs, [])


def read_masks(settings: "DataSettings", rows: "Rows", outputs: Sequence[str], notes: list[str]) -> Masks:
    """Reads and checks the masks of rows.

    Args:
        settings: Settings of the datamodule; its kind of target is segmentation.
        rows: The rows; skipped ones are left out.
        outputs: Names of the K classes.
        notes: Notes on the files are appended.

    Raises:
        DataError: Masks cannot be read, or do not fit their images; all of them are listed.
    """
    kind = settings.kind
    assert isinstance(kind, Segmentation)
    problems: list[Problem] = []
    used = np.flatnonzero(rows.is_used)
    table = rows.table.take(used)
    shapes = np.zeros((len(rows.table), 2), np.int32)
    paths = [rows.paths[row] for row in used]
    shapes[used] = image_shapes(paths, settings.loading.image_rules, rows.source, table, problems)
    if kind.files is None:
        cells = TargetCells(table, settings.targets, None, settings.columns.rules)
        found = kind.runs(cells, problems)
        _check_inside(found, shapes[used], cells, problems)
    else:
        found = _from_files(kind, settings, table, shapes[used], outputs, paths, problems, notes)
    if not problems and kind.classes != "independent":
        for row, (runs, shape) in enumerate(zip(found, shapes[used].tolist(), strict=True)):
            if problem := classes_problem(runs, (shape[0], shape[1]), kind.classes == "complete"):
                problems.append(table.problem(row, f"the masks {problem}", CLASSES_FIX))
    if problems:
        raise DataError(problems, settings.loading.download)
    every: list[list[Runs] | None] = [None] * len(rows.table)
    for row, runs in zip(used.tolist(), found, strict=True):
        every[row] = runs
    return Masks(every, shapes, kind.order, len(outputs), kind.classes)


def image_shapes(
    paths: Sequence[str], rules: ImageRules, source: Source, table: Table, problems: list[Problem]
) -> NDArray[np.int32]:
    """Height and width of each image, int32 (N, 2), from their headers; those that cannot be read are appended."""

    def one(path: str) -> tuple[int, int] | str:
        try:
            found = probe(path, rules, source)
        except ImageError as error:
            return str(error)
        return found.height, found.width

    shapes = np.zeros((len(paths), 2), np.int32)
    with ThreadPoolExecutor(threads := available_cores()) as pool:
        for row, found in enumerate(in_order(pool, one, list(paths), 4 * threads)):
            if isinstance(found, str):
                problems.append(table.problem(row, "the image cannot be used", found))
            else:
                shapes[row] = found
    return shapes


def read_mask(path: str, source: Source = FILES) -> NDArray[np.integer]:
    """The pixel values of a mask file, (H, W): grey levels, palette indices, or bits.

    Raises:
        ImageError: It cannot be read, or is in colour.
    """
    try:
        with Image.open(io.BytesIO(read_image(path, source))) as image:
            pixels = np.asarray(image)
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise ImageError(f"{path} cannot be decoded as a mask: {error}. Restore the file.") from error
    if pixels.ndim == 3:
        colours = pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., :1]
        if (colours != colours[..., :1]).any():
            raise ImageError(f"{path} is in colour; a mask has one channel: of grey levels, or of palette indices.")
        pixels = colours[..., 0]
    if pixels.dtype.kind not in "bui":
        raise ImageError(f"{path} has pixels of the type {pixels.dtype}; a mask has whole numbers.")
    return pixels.astype(np.uint8) if pixels.dtype == bool else pixels


def _check_inside(
    found: list[list[Runs]], shapes: NDArray[np.int32], cells: TargetCells, problems: list[Problem]
) -> None:
    """Appends masks whose runs lie outside of the image."""
    for row, (runs, shape) in enumerate(zip(found, shapes.tolist(), strict=True)):
        for name, each in zip(cells.columns, runs, strict=True):
            if shape[0] and (problem := runs_problem(each, (shape[0], shape[1]))):
                problems.append(cells.table.problem(row, f"the mask {problem}", RLE_FIX, name))


def _from_files(
    kind: Segmentation,
    settings: "DataSettings",
    table: Table,
    shapes: NDArray[np.int32],
    outputs: Sequence[str],
    images: Sequence[str],
    problems: list[Problem],
    notes: list[str],
) -> list[list[Runs]]:
    """The masks of every row from its files, checked against the size of its image."""
    files = [_paths(kind, settings, table, template, problems, notes) for template in kind.templates.values()]
    if problems:
        return []
    values: list[int | None] = [None] if kind.values is None else list(kind.values.values())

    def one(row: int) -> tuple[list[Runs], str, set[int]]:
        runs, others = list[Runs](), set[int]()
        for path in (each[row] for each in files):
            if not path:
                runs += [encode(np.zeros((0, 0)))] * len(values)
                continue
            try:
                pixels = read_mask(path, settings.source)
            except ImageError as error:
                return [], str(error), set()
            if pixels.shape != tuple(shapes[row]):
                sizes = [f"{height} x {width}" for height, width in (pixels.shape, shapes[row].tolist())]
                what = f"{path} has {sizes[0]} pixels, and its image {images[row]} {sizes[1]}"
                return [], f"{what}: a mask must have the size of its image.", set()
            others |= set(np.unique(pixels).tolist()).difference({0}, values)
            if len(others) > 1 and kind.values is None:
                return [], _too_many(path, others), set()
            if others and kind.values is not None and kind.classes != "independent":
                return [], _unnamed(path, others), set()
            runs += [encode(pixels != 0 if value is None else pixels == value, kind.order) for value in values]
        return runs, "", others if kind.values is not None else set()

    found, unknown = [], dict[int, int]()
    with ThreadPoolExecutor(threads := available_cores()) as pool:
        for row, (runs, problem, others) in enumerate(in_order(pool, one, range(len(table)), 4 * threads)):
            if problem:
                problems.append(table.problem(row, "the mask cannot be used", problem))
            for value in others:
                unknown[value] = unknown.get(value, 0) + 1
            found.append(runs)
    if unknown:
        what = ", ".join(
            f"{value} in {number_of(count, 'file')}" for value, count in sorted(unknown.items())[:SHOWN_VALUES]
        )
        notes.append(f"{table.path}: mask files have values that `values` does not name, and are no class: {what}.")
    return found


def _too_many(path: str, values: set[int]) -> str:
    shown = ", ".join(map(str, sorted(values)[:SHOWN_VALUES]))
    return (
        f"{path} has the values {shown} besides 0, and a mask of one class has one. Name the pixel value of each class "
        f"(data.target_kind: Segmentation, values: {{NAME: VALUE}}); a file with lossy compression cannot be used."
    )


def _unnamed(path: str, values: set[int]) -> str:
    shown = ", ".join(map(str, sorted(values)[:SHOWN_VALUES]))
    return f"{path} has the values {shown}, which `values` of data.target_kind does not name: name a class for each."


def _paths(
    kind: Segmentation, settings: "DataSettings", table: Table, template: str, problems: list[Problem], notes: list[str]
) -> list[str]:
    """The mask file of every row; an empty path where it is missing, and may be."""
    search = Search(settings.source, table, template, Path(settings.root))
    filled = enumerate(map("".join, filled_parts(template, table, problems)))
    paths = [search.path(row, path, problems, may_lack=kind.missing == "empty") for row, path in filled]
    search.conclude(problems, notes)
    lacking = sum(not path for path in paths)
    if lacking == len(paths) and not problems:
        fix = "Correct files in data.target_kind; the nearest file is named where missing is error."
        problems.append(Problem(str(table.path), "no row has a mask file", fix, column=template))
    elif lacking:
        notes.append(f"{table.path}: {number_of(lacking, 'row has', 'rows have')} no '{template}', an empty mask.")
    return paths


def shape_of(path: str | Path, rules: ImageRules = RULES, source: Source = FILES) -> tuple[int, int]:
    """Height and width of an image, from its header.

    Raises:
        ImageError: It cannot be read.
    """
    found = probe(path, rules, source)
    return found.height, found.width
