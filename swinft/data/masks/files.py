"""Masks in image files: pixel values of classes, and of pixels that do not count, checked against their images.

Shapes: N rows, K classes, (H, W) size of a row's image.
"""

import io
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from swinft.data.image_paths import Search, filled_parts
from swinft.data.inspection.scan import in_order
from swinft.data.masks.rle import Runs, encode
from swinft.data.sources.files import FILES
from swinft.data.sources.source import ImageError, Source, read_image
from swinft.data.tables.table import Problem, Table
from swinft.data.target.segmentation import Segmentation
from swinft.errors import number_of
from swinft.system.limits import available_cores

if TYPE_CHECKING:
    from swinft.data.data_settings import DataSettings

Pixels = NDArray[np.integer]  # (H, W)
SHOWN_VALUES = 8


class RowMasks(NamedTuple):
    """The masks of a row.

    Args:
        runs: K arrays of runs.
        ignored: K arrays of runs, of the pixels that do not count.
        unknown: Values that name no class, where this is no problem.
    """

    runs: list[Runs]
    ignored: list[Runs]
    unknown: set[int]


def read_mask(path: str, source: Source = FILES) -> Pixels:
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


def read_files(
    kind: Segmentation,
    settings: "DataSettings",
    table: Table,
    shapes: NDArray[np.int32],
    outputs: Sequence[str],
    images: Sequence[str],
    problems: list[Problem],
    notes: list[str],
) -> list[RowMasks]:
    """The masks of every row from its files, checked against the size of its image.

    Args:
        kind: The kind of target, with files.
        settings: Settings of the datamodule.
        table: The N rows.
        shapes: Height and width of their images, (N, 2).
        outputs: Names of the K classes.
        images: Paths of the images.
        problems: Files that cannot be used are appended.
        notes: Notes on the files are appended.
    """
    files = [_paths(kind, settings, table, template, problems, notes) for template in kind.templates.values()]
    if problems:
        return []

    def one(row: int) -> RowMasks | str:
        shape = (int(shapes[row, 0]), int(shapes[row, 1]))
        try:
            every = [_of_image(each[row], shape, images[row], settings.source) for each in files]
            return _row_masks(kind, [each[row] for each in files], every)
        except ImageError as error:
            return str(error)

    found, unknown, share = list[RowMasks](), dict[int, int](), list[float]()
    with ThreadPoolExecutor(threads := available_cores()) as pool:
        for row, masks in enumerate(in_order(pool, one, range(len(table)), 4 * threads)):
            if isinstance(masks, str):
                problems.append(table.problem(row, "the mask cannot be used", masks))
                continue
            for value in masks.unknown:
                unknown[value] = unknown.get(value, 0) + 1
            found.append(masks)
            ignored = sum(int(runs[:, 1].sum()) for runs in masks.ignored)
            share.append(ignored / max(1, int(np.prod(shapes[row], dtype=np.int64))) / len(outputs))
    if unknown:
        what = ", ".join(
            f"{value} in {number_of(count, 'file')}" for value, count in sorted(unknown.items())[:SHOWN_VALUES]
        )
        notes.append(
            f"{table.path}: mask files have values that `values` does not name, and are no class: {what}. Name those "
            f"of pixels that must not count as `ignore`."
        )
    if share and kind.ignored_values:
        notes.append(
            f"{table.path}: {np.mean(share):.1%} of the pixels of masks are ignored, in "
            f"{sum(each > 0 for each in share)} of {number_of(len(share), 'row')}."
        )
    return found


def _of_image(path: str, shape: tuple[int, int], image: str, source: Source) -> Pixels | None:
    """The pixels of the mask file of an image of a size; None without a file.

    Raises:
        ImageError: It cannot be read, or has another size.
    """
    if not path:
        return None
    pixels = read_mask(path, source)
    if pixels.shape != shape:
        sizes = [f"{height} x {width}" for height, width in (pixels.shape, shape)]
        what = f"{path} has {sizes[0]} pixels, and its image {image} {sizes[1]}"
        raise ImageError(f"{what}: a mask must have the size of its image.")
    return pixels


def _row_masks(kind: Segmentation, paths: Sequence[str], files: Sequence[Pixels | None]) -> RowMasks:
    """The masks of a row from the pixels of its files.

    Raises:
        ImageError: They have values that mean nothing.
    """
    values: list[int | None] = [None] if kind.values is None else list(kind.values.values())
    masks, ignored, unknown = list[Runs](), list[NDArray[np.bool_]](), set[int]()
    for path, pixels in zip(paths, files, strict=True):
        if pixels is None:
            masks += [encode(np.zeros((0, 0)))] * len(values)
            ignored += [np.zeros((0, 0), dtype=bool)] * len(values)
            continue
        others = set(np.unique(pixels).tolist()).difference({0}, values, kind.ignored_values)
        if len(others) > 1 and kind.values is None:
            raise ImageError(_too_many(path, pixels, others))
        if others and kind.values is not None and kind.classes != "independent":
            raise ImageError(_unnamed(path, pixels, others))
        unknown |= others if kind.values is not None else set()
        is_ignored = np.isin(pixels, kind.ignored_values) if kind.ignored_values else np.zeros(pixels.shape, dtype=bool)
        for value in values:
            masks.append(encode((pixels != 0) & ~is_ignored if value is None else pixels == value, kind.order))
            ignored.append(is_ignored)
    if not kind.ignored_values:
        return RowMasks(masks, [], unknown)
    if kind.classes != "independent" and len(files) > 1:
        return RowMasks(*_in_no_file(masks, ignored, files, kind), unknown)
    runs: list[Runs] = []
    for k, each in enumerate(ignored):  # those of one file are one array
        runs.append(runs[-1] if k and each is ignored[k - 1] else encode(each, kind.order))
    return RowMasks(masks, runs, unknown)


def _in_no_file(
    masks: list[Runs], ignored: list[NDArray[np.bool_]], files: Sequence[Pixels | None], kind: Segmentation
) -> tuple[list[Runs], list[Runs]]:
    """Masks and ignored pixels of exclusive classes in several files: what one file ignores is in no mask."""
    there = [each for each in ignored if each.size]
    if not there:
        return masks, masks
    union = np.logical_or.reduce(there)
    given = [
        runs if pixels is None else encode((pixels != 0) & ~union, kind.order)
        for runs, pixels in zip(masks, files, strict=True)
    ]
    return given, [encode(union, kind.order)] * len(masks)


def _first(pixels: Pixels, values: Iterable[int]) -> str:
    """Where the first pixel of some values is, as text."""
    row, column = np.argwhere(np.isin(pixels, list(values)))[0].tolist()
    return f"{pixels[row, column]} in row {row}, column {column}"


def _listed(values: set[int]) -> str:
    return ", ".join(map(str, sorted(values)[:SHOWN_VALUES]))


def _too_many(path: str, pixels: Pixels, values: set[int]) -> str:
    return (
        f"{path} has the values {_listed(values)} besides 0 (first {_first(pixels, values)}), and a mask of one class "
        f"has one. Name the pixel value of each class (data.target_kind: Segmentation, values: {{NAME: VALUE}}), or "
        f"those of pixels that must not count (ignore: VALUE); a file with lossy compression cannot be used."
    )


def _unnamed(path: str, pixels: Pixels, values: set[int]) -> str:
    return (
        f"{path} has the values {_listed(values)} (first {_first(pixels, values)}), which `values` of data.target_kind "
        f"does not name: name a class for each, or those of pixels that must not count as `ignore`."
    )


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
