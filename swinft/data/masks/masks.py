"""The masks of a table's rows, held as runs: a mask is made where it is needed, at the size of its image.

Shapes: N rows, K classes, (H, W) size of a row's image.
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from swinft.data.images.decode import probe
from swinft.data.images.rules import RULES, ImageRules
from swinft.data.inspection.scan import in_order
from swinft.data.masks.files import read_files
from swinft.data.masks.rle import IGNORED, Order, Runs, area, classes_problem, decode, runs_problem
from swinft.data.samples import check_answers
from swinft.data.sources.files import FILES
from swinft.data.sources.recorded import RecordedImages
from swinft.data.sources.source import ImageError, Source
from swinft.data.tables.table import DataError, Problem, Table
from swinft.data.target.base import TargetCells
from swinft.data.target.segmentation import RLE_FIX, PixelClasses, Segmentation
from swinft.system.limits import available_cores

if TYPE_CHECKING:
    from swinft.data.data_settings import DataSettings
    from swinft.data.samples import Rows
    from swinft.data.schema import Schema

Planes = NDArray[np.uint8]  # (H, W, K), 0, 1 and IGNORED
IGNORED_FIX = "Remove the row, of which nothing can be learnt or scored; or correct `ignore` of data.target_kind."
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
        ignored: Of each row K arrays of runs, of the pixels that do not count; None if all of them count.
    """

    runs: Sequence[list[Runs] | None]
    shapes: NDArray[np.int32]
    order: Order
    num_classes: int
    classes: PixelClasses = "independent"
    ignored: Sequence[list[Runs] | None] | None = None

    def planes(self, row: int) -> Planes:
        """The masks of a row at full size, uint8 (H, W, K): 0, 1, and `IGNORED` where a pixel does not count.

        Raises:
            ValueError: The row is skipped.
        """
        runs = self.runs[row]
        if runs is None:
            raise ValueError(f"row {row} has no masks")
        shape = (int(self.shapes[row, 0]), int(self.shapes[row, 1]))
        planes = np.stack([decode(each, shape, self.order) for each in runs], axis=2).view(np.uint8)
        for k, each in enumerate(self._ignored(row)):
            if len(each):
                planes[decode(each, shape, self.order), k] = IGNORED
        return planes

    def _ignored(self, row: int) -> list[Runs]:
        """The ignored pixels of each class of a row; empty if all of them count."""
        return [] if self.ignored is None else self.ignored[row] or []

    def digest(self) -> str:
        """SHA-256 of all masks, with the sizes of their images."""
        found = hashlib.sha256(np.ascontiguousarray(self.shapes, dtype="<i8").tobytes())
        for row in self.runs:
            for runs in () if row is None else row:
                found.update(len(runs).to_bytes(8, "little") + np.ascontiguousarray(runs, dtype="<i8").tobytes())
        for row in () if self.ignored is None else self.ignored:
            for runs in () if row is None else row:
                found.update(b"ignored" + np.ascontiguousarray(runs, dtype="<i8").tobytes())
        return found.hexdigest()

    def coverage(self) -> NDArray[np.float32]:
        """Fraction of the pixels that count which a mask covers, float32 (N, K); NaN for rows that are skipped."""
        found = np.full((len(self.runs), self.num_classes), np.nan, np.float32)
        for row, (runs, shape) in enumerate(zip(self.runs, self.shapes.astype(np.int64), strict=True)):
            if runs is not None:
                ignored = list(map(area, self._ignored(row))) or [0] * len(runs)
                found[row] = [area(each) / (shape.prod() - none) for each, none in zip(runs, ignored, strict=True)]
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
    known = rows.source.shapes(table.ids) if isinstance(rows.source, RecordedImages) else None
    if known is None:
        known = image_shapes(paths, settings.loading.image_rules, rows.source, table, problems)
    shapes[used] = known
    if kind.files is None:
        cells = TargetCells(table, settings.targets, None, settings.columns.rules)
        found = kind.runs(cells, problems)
        _check_inside(found, shapes[used], cells, problems)
        ignored: list[list[Runs]] | None = None
    else:
        read = read_files(kind, settings, table, shapes[used], outputs, paths, problems, notes)
        found, ignored = [each.runs for each in read], [each.ignored for each in read] if kind.ignored_values else None
    if not problems:
        _check_classes(kind, found, ignored, shapes[used], table, problems)
    if problems:
        raise DataError(problems, settings.loading.download)
    every = _placed(found, used, len(rows.table))
    none = None if ignored is None else _placed(ignored, used, len(rows.table))
    return Masks(every, shapes, kind.order, len(outputs), kind.classes, none)


def _placed(found: list[list[Runs]], used: NDArray[np.int64], count: int) -> list[list[Runs] | None]:
    """The runs of used rows at their places among all rows; None for the others."""
    every: list[list[Runs] | None] = [None] * count
    for row, runs in zip(used.tolist(), found, strict=True):
        every[row] = runs
    return every


def _check_classes(
    kind: Segmentation,
    found: list[list[Runs]],
    ignored: list[list[Runs]] | None,
    shapes: NDArray[np.int32],
    table: Table,
    problems: list[Problem],
) -> None:
    """Appends rows whose masks contradict `classes`, and rows of a class of which no pixel counts."""
    for row, (runs, shape) in enumerate(zip(found, shapes.tolist(), strict=True)):
        none = [0] * len(runs) if ignored is None else list(map(area, ignored[row]))
        if shape[0] * shape[1] in none:
            problems.append(table.problem(row, "every pixel of a mask is ignored", IGNORED_FIX))
        elif kind.classes != "independent" and (
            problem := classes_problem(runs, (shape[0], shape[1]), kind.classes == "complete", none[0])
        ):
            problems.append(table.problem(row, f"the masks {problem}", CLASSES_FIX))


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


def _check_inside(
    found: list[list[Runs]], shapes: NDArray[np.int32], cells: TargetCells, problems: list[Problem]
) -> None:
    """Appends masks whose runs lie outside of the image."""
    for row, (runs, shape) in enumerate(zip(found, shapes.tolist(), strict=True)):
        for name, each in zip(cells.columns, runs, strict=True):
            if shape[0] and (problem := runs_problem(each, (shape[0], shape[1]))):
                problems.append(cells.table.problem(row, f"the mask {problem}", RLE_FIX, name))


def shape_of(path: str | Path, rules: ImageRules = RULES, source: Source = FILES) -> tuple[int, int]:
    """Height and width of an image, from its header.

    Raises:
        ImageError: It cannot be read.
    """
    found = probe(path, rules, source)
    return found.height, found.width
