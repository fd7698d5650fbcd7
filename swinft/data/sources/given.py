"""Images that a program has in memory: bytes of image files, arrays, or images of Pillow."""

import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image

from swinft.data.row_images import RowImages, spread
from swinft.data.sources.pixels import array_file, netpbm
from swinft.data.sources.source import Source
from swinft.data.tables.table import Problem, Table
from swinft.errors import InputError, number_of

ORIENTATION = 0x0112  # EXIF tag
KINDS = "bytes of an image file, a numpy array (H, W) or (H, W, 3), or an image of Pillow"


class GivenImages(Source):
    """The images of some rows, in memory.

    Args:
        column: The column that they come from, for messages.
        cells: The image of each row, or where rows have several a sequence of them; None, or NaN, for none.
    """

    def __init__(self, column: str, cells: Sequence[Any]) -> None:
        self.column, self._cells = column, cells
        self._images: dict[str, Any] = {}

    def read(self, reference: str) -> bytes:
        """An image as a file that the decoder reads without loss.

        Raises:
            ValueError: There is none, or it cannot be converted.
            InputError: It is something else than an image.
        """
        return image_bytes(self._images[reference], reference)

    def stat(self, reference: str) -> tuple[int, ...]:
        """What is in memory does not change."""
        return (0,)

    def names(self, folder: str) -> Collection[str] | None:
        """None: rows are not found by name."""
        return None

    def references(
        self, table: Table, template: str, root: Path, problems: list[Problem], notes: list[str] | None = None
    ) -> list[str]:
        """What names the image of each row."""
        found = [f"{self.column} of {id}" for id in table.ids]
        self._images = dict(zip(found, self._cells, strict=True))
        return found

    def of_rows(self, table: Table, images: RowImages, problems: list[Problem]) -> list[list[str]]:
        """What names the images of each row that may have several; empty text where an image is not there.

        Args:
            table: The rows.
            images: How many a row has.
            problems: Rows with another number of images are appended.
        """
        most, found = images.most // images.parts, []
        for row, (id, cell) in enumerate(zip(table.ids, self._cells, strict=True)):
            given = _several(cell, images)
            if not images.is_open and len(given) != most:
                what = f"the row has {number_of(len(given), 'image')} in '{self.column}', and data.image names {most}"
                problems.append(table.problem(row, what, "Give them in a list, None for one that is not there."))
            absent = [place for place, image in enumerate(given) if is_none(image)]
            if absent and images.missing == "error":
                fix = "Give it, or fit a run whose data.image.missing is mask."
                problems.append(table.problem(row, f"image {absent[0] + 1} in '{self.column}' is not there", fix))
            names = {place: f"{self.column} {place + 1} of {id}" for place in range(len(given)) if place not in absent}
            self._images |= {name: given[place] for place, name in names.items()}
            places = spread(len(given), most) if images.is_open else range(len(given))
            found.append([names.get(place, "") for place in places])
        return found


def _several(cell: Any, images: RowImages) -> list[Any]:
    """The images of a cell: a sequence of them, images by name, or a single one."""
    if isinstance(cell, Mapping):
        return [cell.get(name) for name in images.names]
    if isinstance(cell, list | tuple):
        return list(cell)
    return [] if is_none(cell) and images.is_open else [cell]


def is_none(image: Any) -> bool:
    """Whether a cell has no image: None, or what pandas writes for it."""
    return image is None or (isinstance(image, float) and np.isnan(image))


def image_bytes(image: Any, name: str) -> bytes:
    """An image in memory as the bytes of a file.

    Args:
        image: Bytes of a file are returned unchanged; pixels are encoded without loss.
        name: Names it in messages.

    Raises:
        ValueError: There is none, or its pixels are of another shape or type than images have.
        InputError: It is something else.
    """
    if is_none(image):
        raise ValueError("no image is given")
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, np.ndarray):
        return array_file(np.ascontiguousarray(image))
    if isinstance(image, Image.Image):
        return _of_pillow(image)
    hint = " Paths are made by data.image: leave out `images`, and give `root`." * isinstance(image, str | PurePath)
    raise InputError(f"{name} is of type {type(image).__name__}; give {KINDS}.{hint}")


def _of_pillow(image: Image.Image) -> bytes:
    """An image of Pillow; its orientation, palette and transparency are kept, for the decoder's rules to apply.

    Raises:
        ValueError: Its mode is one that no lossless format holds.
    """
    exif = image.getexif()
    if image.mode in ("L", "RGB") and "transparency" not in image.info and exif.get(ORIENTATION, 1) == 1:
        return netpbm(np.asarray(image))
    for kind, options in (("PNG", {"compress_level": 1}), ("TIFF", {})):
        file = io.BytesIO()
        try:
            image.save(file, kind, exif=exif, **options)
        except (OSError, KeyError):  # the format has no such mode
            continue
        return file.getvalue()
    raise ValueError(f"its mode {image.mode} cannot be encoded without loss: convert it to RGB")
