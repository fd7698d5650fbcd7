"""Probability maps of segmentation: levels of 8 bits at the network's image size, with the sizes of the image files.

On disk they are one file beside the CSV of the predictions, `oof.maps.npy` of `oof.csv`: two arrays of NumPy one after
another, first a table of the rows (`id`, `height`, `width` of the image's file), then the maps, uint8 (N, K, H, W),
where 255 is probability 1. `numpy.load` of the open file reads one after the other.

Shapes: N rows, K classes, (H, W) the network's image size.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swinft.errors import RunError
from swinft.inference.provenance import maps_beside
from swinft.store import commit, has_record, replace, verify

WHITE = 255
CHUNK = 64  # maps that are written at a time
Resize = Literal["squash", "crop", "pad"]


@dataclass(frozen=True, eq=False)
class Maps:
    """Maps of N rows.

    Args:
        levels: uint8 (N, K, H, W).
        sizes: Height and width of each image's file, int64 (N, 2); 0 where there is no image.
    """

    levels: NDArray[np.uint8]
    sizes: NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.levels.ndim != 4 or self.sizes.shape != (len(self.levels), 2):
            raise ValueError(f"maps {self.levels.shape} with sizes {self.sizes.shape} are not (N, K, H, W) and (N, 2)")

    def __len__(self) -> int:
        return len(self.levels)

    @property
    def coverage(self) -> NDArray[np.float32]:
        """The mean probability of each map, float32 (N, K)."""
        found = [each.mean(axis=(1, 2), dtype=np.float64) for each in self.levels]
        return (np.array(found).reshape(self.levels.shape[:2]) / WHITE).astype(np.float32)

    def copy(self) -> "Maps":
        """The same maps, whose pixels are not copied: they may be in a file that is mapped into memory."""
        return Maps(self.levels, self.sizes.copy())

    def of_classes(self, classes: Sequence[int]) -> "Maps":
        """The maps of some classes."""
        same = list(classes) == list(range(self.levels.shape[1]))
        return self if same else Maps(self.levels[:, list(classes)], self.sizes)

    def take(self, rows: Sequence[int] | NDArray[np.int64]) -> "Maps":
        """The maps of some rows."""
        return Maps(self.levels[rows], self.sizes[rows])

    @classmethod
    def concat(cls, parts: Sequence["Maps"]) -> "Maps":
        """The maps of several parts."""
        return cls(np.concatenate([part.levels for part in parts]), np.concatenate([part.sizes for part in parts]))

    @classmethod
    def mean(cls, parts: Sequence["Maps"]) -> "Maps":
        """The mean of maps of the same rows."""
        found = [np.mean(each, axis=0, dtype=np.float32) for each in zip(*(part.levels for part in parts), strict=True)]
        return cls(np.rint(np.array(found)).astype(np.uint8), parts[0].sizes)

    def among(self, places: Sequence[int], count: int) -> "Maps":
        """The maps at these places of `count` rows; the others are empty, and of no size."""
        levels = np.zeros((count, *self.levels.shape[1:]), np.uint8)
        sizes = np.zeros((count, 2), np.int64)
        levels[places], sizes[places] = self.levels, self.sizes
        return Maps(levels, sizes)

    def full(self, row: int, k: int, resize: Resize) -> NDArray[np.uint8]:
        """The map of a row and class at the size of the image's file.

        Args:
            row: Its position.
            k: The class.
            resize: How images were resized for the network.
        """
        height, width = self.sizes[row].tolist()
        return restored(self.levels[row, k], (height, width), resize)

    def write(self, file: IO[bytes], ids: Sequence[str]) -> None:
        """Writes the two arrays."""
        longest = max((len(id) for id in ids), default=1)
        table = np.zeros(len(self), dtype=[("id", f"<U{max(1, longest)}"), ("height", "<i4"), ("width", "<i4")])
        table["id"], table["height"], table["width"] = list(ids), self.sizes[:, 0], self.sizes[:, 1]
        np.lib.format.write_array(file, table, allow_pickle=False)
        header = {"descr": "|u1", "fortran_order": False, "shape": self.levels.shape}
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, len(self), CHUNK):
            file.write(np.ascontiguousarray(self.levels[start : start + CHUNK]).tobytes())


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
        levels: NDArray[np.uint8] = (
            np.memmap(file, dtype, "r", start, shape) if 0 not in shape else np.zeros(shape, dtype)
        )
        maps = Maps(levels, np.stack([table["height"], table["width"]], axis=1).astype(np.int64))
        known = np.isfinite(coverage).all(1)  # a row without a prediction has an empty map
        is_same = table["id"].tolist() == list(ids) and np.allclose(maps.coverage[known], coverage[known], atol=1e-4)
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{file} cannot be read: {error}. Predict again.") from error
    if not is_same:
        raise RunError(f"{file} does not hold the maps of {path.name}: one of the two was written by another command.")
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
