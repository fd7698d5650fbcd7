"""Images inside HDF5 files: one dataset per image, or the rows of one array."""

import os
from collections.abc import Collection
from typing import Any

import numpy as np

from swinft.data.sources.container import MAX_BYTES, ContainerSource
from swinft.data.sources.hdf5_objects import find, import_h5py, numbered
from swinft.data.sources.pixels import array_file
from swinft.errors import InputError


class HDF5Source(ContainerSource):
    """HDF5 files; groups and arrays of images act as folders.

    Use `image: train.hdf5/{id}` if each image is a dataset with the bytes of an image file. Use `train.h5/images/{id}`
    if `images` is an array of N such byte strings, or of pixels, uint8 (N, H, W) or (N, H, W, C); of other numbers if
    `data.loading.image_rules.keep` is set.

    Args:
        ids: Dataset with the ids of an array's images, in the array's order; null for row numbers from 0.
    """

    def __init__(self, ids: str | None = None) -> None:
        super().__init__()
        self.ids = ids
        self._rows: dict[tuple[str, str], dict[str, int]] = {}  # row of each id, by file and array
        self._files: dict[tuple[str, int], Any] = {}  # by path and process: open files are not shared across a fork

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_files": {}}

    def listed(self, path: str, inner: str) -> Collection[str] | None:
        """The names in a group, or the ids of an array.

        Raises:
            InputError: The file cannot be read as HDF5.
        """
        try:
            with import_h5py().File(path, "r") as file:
                found = find(file, inner)
                if hasattr(found, "keys"):
                    return list(found)
                return self._rows.setdefault((path, inner), numbered(file, found, self.ids))
        except LookupError:
            return None
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read as HDF5: {error}.") from error

    def folders(self, path: str) -> Collection[str]:
        """Groups and datasets at the top level of the file."""
        with import_h5py().File(path, "r") as file:
            return list(file)

    def read(self, reference: str) -> bytes:
        """The bytes of a dataset, or the pixels of an array's row as an image file.

        Raises:
            ValueError: It is no dataset that can be an image.
        """
        folder, name = os.path.split(reference)
        path, inner = self.locate(folder)
        self.check_state(path, os.stat(path))
        key = path, os.getpid()
        if key not in self._files:
            self._files[key] = import_h5py().File(path, "r")
        rows = self._rows.get((path, inner))
        dataset = find(self._files[key], f"{inner}/{name}" if rows is None else inner)
        if hasattr(dataset, "keys") or dataset.is_virtual or dataset.external:
            raise ValueError("it is a group, or its data are in another file")
        size = max(dataset.nbytes // (len(dataset) if rows else 1), int(np.prod(dataset.chunks or 0)))
        if size > MAX_BYTES:
            raise ValueError(f"it takes {size:,} bytes, more than any image")
        data = dataset[() if rows is None else rows[name]]
        if isinstance(data, bytes):  # NumPy strips trailing zeros of fixed-length strings
            return data.ljust(dataset.dtype.itemsize, b"\0") if dataset.dtype.kind == "S" else data
        array = np.asarray(data)
        is_file = array.dtype.kind == "V" or (array.ndim == 1 and array.dtype == np.uint8)
        return array.tobytes() if is_file else array_file(array)
