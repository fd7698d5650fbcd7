"""Parts of image files as images of their own: frames of a stack, cells of a grid, tiles.

Whatever reads images by references, as the scan, the cache and the loaders do, takes them as it takes whole files.
"""

import threading
from collections.abc import Collection, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import NamedTuple, cast

from swinft.data.image_paths import Flaw
from swinft.data.images.decode import load, probe
from swinft.data.images.depth import WHITE, Pixels
from swinft.data.images.rules import ImageRules
from swinft.data.row_images import RowImages, spread
from swinft.data.sources.pixels import part_file
from swinft.data.sources.source import AbsentError, Source, read_image

MARK = "#"  # before the number of a part


class _Last(NamedTuple):
    """The file that a thread has read last: neighbouring parts follow one another."""

    path: str
    state: tuple[int, ...]
    parts: list[Pixels]
    content: bytes = b""
    frames: Sequence[int] = ()
    altered: float = 0.0


class PartSource(Source):
    """Gives the parts of a source's images, as `data.image` cuts them.

    Args:
        inner: Where the whole images are.
        images: How they are cut.
        rules: Which images can be used, and how they are converted.
    """

    def __init__(self, inner: Source, images: RowImages, rules: ImageRules) -> None:
        self.inner, self.images = inner, images
        self.rules = replace(rules, animated="first") if images.frames else rules
        self._last = threading.local()

    def __reduce__(self) -> tuple[type["PartSource"], tuple[Source, RowImages, ImageRules]]:
        return PartSource, (self.inner, self.images, self.rules)

    def read(self, reference: str) -> bytes:
        """A part as an image file.

        Raises:
            AbsentError: The image has no such part, or it is empty.
        """
        path, number = _split(reference)
        file = self._file(path)
        if number >= len(file.frames or file.parts):
            raise AbsentError(reference)
        if file.frames:
            pixels, _, info = load(path, file.content, None, self.rules, file.frames[number])
            return part_file(pixels, info.altered)
        if self._is_empty(file.parts[number]):
            raise AbsentError(reference)
        return part_file(file.parts[number], file.altered)

    def stat(self, reference: str) -> tuple[int, ...]:
        """The state of the whole image."""
        return self.inner.stat(_split(reference)[0])

    def names(self, folder: str) -> Collection[str] | None:
        """As of the source of whole images."""
        return self.inner.names(folder)

    def missing(self, folder: str) -> str:
        """As of the source of whole images."""
        return self.inner.missing(folder)

    def flaw(self, reference: str, inside: str) -> Flaw | None:
        """As of the source of whole images."""
        return self.inner.flaw(reference, inside)

    @property
    def identity(self) -> str:
        """What the source of whole images says, and how they are cut."""
        images = self.images
        cut = (images.frames, images.grid, images.tile, images.overlap, images.least_contrast, images.parts)
        return f"{self.inner.identity} parts {cut}"

    def _file(self, path: str) -> _Last:
        """The file of some parts, read once for neighbouring ones."""
        state, last = self.inner.stat(path), getattr(self._last, "value", None)
        if last is None or (last.path, last.state) != (path, state):
            if self.images.frames:
                count = probe(path, self.rules, self.inner).frames
                last = _Last(path, state, [], read_image(path, self.inner), spread(count, self.images.parts))
            else:
                pixels, _, info = load(path, read_image(path, self.inner), None, self.rules)
                last = _Last(path, state, self._cut(pixels), altered=info.altered)
            self._last.value = last
        return cast(_Last, last)

    def _cut(self, pixels: Pixels) -> list[Pixels]:
        """The parts of an image, each (H, W, 3): of tiles only those that are taken."""
        if self.images.grid is not None:
            rows, columns = (_cells(side, count) for side, count in zip(pixels.shape, self.images.grid, strict=False))
            return [pixels[y, x] for y in rows for x in columns]
        tile = self.images.tile or 0
        sides = [_starts(side, tile, tile - self.images.overlap) for side in pixels.shape[:2]]
        parts = [pixels[y : y + tile, x : x + tile] for y in sides[0] for x in sides[1]]
        parts = [part for part in parts if not self._is_empty(part)]
        return [parts[place] for place in spread(len(parts), self.images.parts)]

    def _is_empty(self, part: Pixels) -> bool:
        least = self.images.least_contrast
        return not part.size or (least > 0 and 255 / WHITE[part.dtype.name] * float(part.mean(axis=2).std()) < least)


def part_names(path: str, count: int) -> list[str]:
    """References of the parts of an image."""
    return [f"{path}{MARK}{number}" for number in range(count)]


def _split(reference: str) -> tuple[str, int]:
    path, _, number = reference.rpartition(MARK)
    return path, int(number)


def _cells(side: int, count: int) -> list[slice]:
    """A side in so many cells, which differ by a pixel at most."""
    edges = [round(side * number / count) for number in range(count + 1)]
    return [slice(start, end) for start, end in pairwise(edges)]


def _starts(side: int, tile: int, step: int) -> list[int]:
    """Where tiles begin along a side: one after another, and the last one where it ends at the edge."""
    last = max(0, side - tile)
    return [*range(0, last, step), last]
