"""Probability maps of segmentation: levels of 8 bits, with the sizes of the image files.

Maps have the network's image size; where images are predicted in tiles, each has the size of its image. On disk they
are one file beside the CSV of the predictions, `oof.maps.npy` of `oof.csv`: two arrays of NumPy one after another,
first a table of the rows (`id`, `height`, `width` of the image's file), then the maps, uint8 (N, K, H, W), where 255 is
probability 1. Maps of different sizes are one array (levels,), row after row, and the table also has `map_height` and
`map_width`. `numpy.load` of the open file reads one after the other.

Shapes: N rows, K classes, (H, W) a map's size.
"""

import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swinft.errors import InputError, RunError
from swinft.inference.provenance import maps_beside
from swinft.store import commit, has_record, replace, verify

WHITE = 255
SIZE_NAMES, MAP_NAMES = ("height", "width"), ("map_height", "map_width")
Levels = NDArray[np.uint8] | Sequence[NDArray[np.uint8]]
Resize = Literal["squash", "crop", "pad"]


@dataclass(frozen=True, eq=False)
class Maps:
    """Maps of N rows.

    Args:
        levels: uint8 (N, K, H, W); of different sizes a list of N arrays (K, H, W), which may be in a mapped file.
        sizes: Height and width of each image's file, int64 (N, 2); 0 where there is no image.
    """

    levels: Levels
    sizes: NDArray[np.int64]

    def __post_init__(self) -> None:
        if any(each.ndim != 3 for each in self.levels) or self.sizes.shape != (len(self.levels), 2):
            raise ValueError(f"{len(self.levels)} maps with sizes {self.sizes.shape} are not (K, H, W) each and (N, 2)")

    def __len__(self) -> int:
        return len(self.levels)

    @property
    def coverage(self) -> NDArray[np.float32]:
        """The mean probability of each map, float32 (N, K)."""
        found = [each.sum(axis=(1, 2), dtype=np.int64) / max(1, each[0].size) for each in self.levels]
        return (np.array(found).reshape(len(self), self.num_classes) / WHITE).astype(np.float32)

    @property
    def num_classes(self) -> int:
        """K."""
        return (
            self.levels.shape[1] if isinstance(self.levels, np.ndarray) else len(self.levels[0]) if self.levels else 0
        )

    def copy(self) -> "Maps":
        """The same maps, whose pixels are not copied: they may be in a file that is mapped into memory."""
        return Maps(self.levels, self.sizes.copy())

    def of_classes(self, classes: Sequence[int]) -> "Maps":
        """The maps of some classes."""
        chosen = list(classes)
        if chosen == list(range(self.num_classes)):
            return self
        if isinstance(self.levels, np.ndarray):
            return Maps(self.levels[:, chosen], self.sizes)
        return Maps([each[chosen] for each in self.levels], self.sizes)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> "Maps":
        """The maps of some rows; if these are consecutive, pixels are not copied."""
        if isinstance(self.levels, np.ndarray):
            chosen = np.asarray(rows, dtype=np.int64)
            if len(chosen) and chosen[0] >= 0 and (np.diff(chosen) == 1).all():
                return Maps(self.levels[chosen[0] : chosen[-1] + 1], self.sizes[chosen])
            return Maps(self.levels[chosen], self.sizes[chosen])
        return Maps([self.levels[row] for row in rows], self.sizes[rows])

    @classmethod
    def concat(cls, parts: Sequence["Maps"]) -> "Maps":
        """The maps of several parts."""
        sizes, arrays = np.concatenate([part.sizes for part in parts]), [part.levels for part in parts]
        if all(isinstance(levels, np.ndarray) for levels in arrays):
            return cls(np.concatenate(arrays), sizes)
        return cls([each for levels in arrays for each in levels], sizes)

    @classmethod
    def mean(cls, parts: Sequence["Maps"]) -> "Maps":
        """The mean of maps of the same rows."""
        means = (
            np.rint(np.mean(each, axis=0, dtype=np.float32)).astype(np.uint8)
            for each in zip(*(part.levels for part in parts), strict=True)
        )
        first = parts[0].levels
        if isinstance(first, np.ndarray):
            levels = np.empty(first.shape, np.uint8)
            for row, mean in enumerate(means):
                levels[row] = mean
            return cls(levels, parts[0].sizes)
        file = LevelsFile()
        for mean in means:
            file.add(mean)
        return cls(file.read(), parts[0].sizes)

    def among(self, places: Sequence[int], count: int) -> "Maps":
        """The maps at these places of `count` rows; the others are empty, and of no size."""
        if list(places) == list(range(count)):
            return self
        sizes = np.zeros((count, 2), np.int64)
        sizes[places] = self.sizes
        if isinstance(self.levels, np.ndarray):
            levels = np.zeros((count, *self.levels.shape[1:]), np.uint8)
            levels[places] = self.levels
            return Maps(levels, sizes)
        found = [np.zeros((self.num_classes, 0, 0), np.uint8)] * count
        for place, each in zip(places, self.levels, strict=True):
            found[place] = each
        return Maps(found, sizes)

    def full(self, row: int, k: int, resize: Resize) -> NDArray[np.uint8]:
        """The map of a row and class at the size of the image's file.

        Args:
            row: Its position.
            k: The class.
            resize: How images were resized for the network.
        """
        height, width = self.sizes[row].tolist()
        return restored(self.levels[row][k], (height, width), resize)

    def decided(self, row: int, resize: Resize, classes: str) -> NDArray[np.uint8]:
        """The maps of a row at the size of the image's file, (K, H, W), from which masks are made by a threshold.

        Args:
            row: Its position.
            resize: How images were resized for the network.
            classes: Of a pixel, as in `swinft.Segmentation`. If it has one at most, the map of the most probable class
                is 255 there and all others 0; background has the rest of the probability.
        """
        found = np.stack([self.full(row, k, resize) for k in range(self.num_classes)])
        if classes == "independent":
            return found
        highest = found.max(0)
        is_free = np.ones_like(highest, dtype=bool)
        if classes != "complete":
            is_free = highest >= np.maximum(WHITE - found.sum(0, dtype=np.int16), 1)
        for levels in found:  # the first of equal ones; in place, as images may be large
            is_most = is_free & (levels == highest)
            is_free &= ~is_most
            levels[:] = WHITE * is_most.astype(np.uint8)
        return found

    def write(self, file: IO[bytes], ids: Sequence[str]) -> None:
        """Writes the two arrays."""
        longest, is_even = max((len(id) for id in ids), default=1), isinstance(self.levels, np.ndarray)
        names = [*SIZE_NAMES, *([] if is_even else MAP_NAMES)]
        table = np.zeros(len(self), dtype=[("id", f"<U{max(1, longest)}"), *((name, "<i4") for name in names)])
        table["id"] = list(ids)
        shapes = np.array([each.shape[1:] for each in self.levels], dtype=np.int64).reshape(-1, 2)
        for name, values in zip(names, [*self.sizes.T, *shapes.T], strict=False):
            table[name] = values
        np.lib.format.write_array(file, table, allow_pickle=False)
        shape = self.levels.shape if isinstance(self.levels, np.ndarray) else (sum(each.size for each in self.levels),)
        np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
        for each in self.levels:
            file.write(np.ascontiguousarray(each).tobytes())


class LevelsFile:
    """Maps of different sizes, one after another in a temporary file without a name: memory never holds all of them."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="swinft_maps_")  # noqa: SIM115, the maps outlive this object
        self._shapes: list[tuple[int, ...]] = []

    def add(self, levels: NDArray[np.uint8]) -> None:
        """Appends the maps of a row, (K, H, W).

        Raises:
            InputError: The disk is full.
        """
        try:
            self._file.write(np.ascontiguousarray(levels).tobytes())
        except OSError as error:
            raise InputError(
                f"maps cannot be written to a temporary file in {tempfile.gettempdir()}: {error}. Set the environment "
                f"variable TMPDIR to a folder with more space."
            ) from error
        self._shapes.append(levels.shape)

    def read(self) -> list[NDArray[np.uint8]]:
        """The maps of every row, mapped into memory."""
        self._file.flush()
        return parts_of(
            np.memmap(self._file, np.uint8, "r") if any(map(math.prod, self._shapes)) else None, self._shapes
        )


def parts_of(flat: NDArray[np.uint8] | None, shapes: Sequence[tuple[int, ...]]) -> list[NDArray[np.uint8]]:
    """Arrays of these shapes, one after another in a flat one, which is None where all are empty."""
    found, ends = np.zeros(0, np.uint8) if flat is None else np.asarray(flat), np.cumsum([0, *map(math.prod, shapes)])
    return [found[ends[k] : ends[k + 1]].reshape(shape) for k, shape in enumerate(shapes)]


def write_maps(path: Path, maps: Maps, ids: Sequence[str], producer: str, is_own: bool = True) -> None:
    """Writes the maps of a CSV of predictions, with a commit record if they are an artefact of a run.

    Args:
        path: The CSV.
        maps: Its maps.
        ids: Its ids.
        producer: The command.
        is_own: Whether it is a run's.
    """
    if is_own:
        commit(maps_beside(path), lambda file: maps.write(file, ids), producer)
    else:
        replace(maps_beside(path), lambda file: maps.write(file, ids))


def is_foreign(path: Path) -> bool:
    """Whether a file in the place of the maps of a CSV is not one of maps."""
    if not maps_beside(path).exists():
        return False
    try:
        found = np.load(maps_beside(path), mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError):
        return True
    return not isinstance(found, np.ndarray) or found.dtype.names is None


def read_maps(path: Path, ids: Sequence[str], coverage: NDArray[np.float32]) -> Maps | None:
    """The maps beside a CSV of predictions, mapped into memory; None if there are none.

    Args:
        path: The CSV.
        ids: Its ids.
        coverage: Its values, float32 (N, K).

    Raises:
        RunError: The maps are of other predictions than the CSV.
    """
    file = maps_beside(path)
    if not file.is_file():
        return None
    if has_record(file):
        verify(file)
    try:
        with file.open("rb") as opened:
            table = np.lib.format.read_array(opened, allow_pickle=False)
            np.lib.format.read_magic(opened)
            shape, _, dtype = np.lib.format.read_array_header_1_0(opened)
            start = opened.tell()
        levels: Levels = np.memmap(file, dtype, "r", start, shape) if 0 not in shape else np.zeros(shape, dtype)
        if len(shape) == 1:
            sizes = zip(table[MAP_NAMES[0]].tolist(), table[MAP_NAMES[1]].tolist(), strict=True)
            levels = parts_of(np.asarray(levels), [(coverage.shape[1], *size) for size in sizes])
        maps = Maps(levels, np.stack([table["height"], table["width"]], axis=1).astype(np.int64))
        known = np.isfinite(coverage).all(1)  # a row without a prediction has an empty map
        is_same = table["id"].tolist() == list(ids) and np.allclose(maps.coverage[known], coverage[known], atol=1e-4)
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{file} cannot be read: {error}. Predict again.") from error
    if not is_same:
        raise RunError(
            f"{file} does not hold the maps of {path.name}: another command wrote one of the two, or a prediction was "
            f"interrupted. Predict again."
        )
    return maps


def levels_of(probabilities: Tensor) -> Tensor:
    """Probabilities (B, K, H, W) as levels, uint8."""
    return (probabilities * WHITE).round().clamp(0, WHITE).to(torch.uint8)


def inner_box(full: tuple[int, int], size: tuple[int, int], resize: Resize) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of an image within a network's image, which is padded for `pad`.

    Args:
        full: Height and width of the image.
        size: Of the network's image.
        resize: How images are resized.
    """
    if resize == "squash":
        return 0, size[0], 0, size[1]
    scale = min(size[0] / full[0], size[1] / full[1])
    height, width = (max(1, min(round(side * scale), most)) for side, most in zip(full, size, strict=True))
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return top, top + height, left, left + width


def restored(levels: NDArray[np.uint8], full: tuple[int, int], resize: Resize) -> NDArray[np.uint8]:
    """A map (H, W) at the size of the image's file, bilinear; empty where there is no image."""
    if 0 in full:
        return np.zeros(full, np.uint8)
    top, bottom, left, right = inner_box(full, (levels.shape[0], levels.shape[1]), resize)
    inner = np.ascontiguousarray(levels[top:bottom, left:right])
    if inner.shape == full:
        return inner
    found: NDArray[np.uint8] = cv2.resize(inner, full[::-1], interpolation=cv2.INTER_LINEAR).astype(np.uint8)
    return found
