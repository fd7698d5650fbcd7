"""Images inside HDF5 files: a dataset for each, or the rows of one array."""

import os
from collections.abc import Collection
from typing import Any

import numpy as np

from swinft.data.sources.container import MAX_BYTES, ContainerSource
from swinft.data.sources.hdf5_objects import find, import_h5py, numbered
from swinft.data.sources.pixels import netpbm
from swinft.errors import InputError


class HDF5Source(ContainerSource):
    """HDF5 files, in which a group is a folder, and so is an array of images.

    `image: train.hdf5/{id}` where each image is a dataset with the bytes of an image file; `train.h5/images/{id}` where
    `images` is an array of N of these, or of pixels, uint8 (N, H, W) or (N, H, W, C).

    Args:
        ids: Dataset with the ids of an array's images, in the array's order; null for their numbers from 0.
    """

    def __init__(self, ids: str | None = None) -> None:
        super().__init__()
        self.ids = ids
        self._rows: dict[tuple[str, str], dict[str, int]] = {}  # of an array, by file and array
        self._files: dict[tuple[str, int], Any] = {}  # by path and process: no open file outlives a fork

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_files": {}}

    def listed(self, path: str, inner: str) -> Collection[str] | None:
        """The names in a group, or the ids of an array."""
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
        """What stands at the top of the file."""
        with import_h5py().File(path, "r") as file:
            return list(file)

    def read(self, reference: str) -> bytes:
        """The bytes of a dataset, or the pixels of an array's row as an image file."""
        folder, name = os.path.split(reference)
        path, inner = self.place(folder)
        self.check_state(path, os.stat(path))
        key = path, os.getpid()
        if key not in self._files:
            self._files[key] = import_h5py().File(path, "r")
        rows = self._rows.get((path, inner))
        dataset = find(self._files[key], f"{inner}/{name}" if rows is None else inner)
        if hasattr(dataset, "keys") or dataset.is_virtual or dataset.external:
            raise ValueError("it is a group, or its data are in another file")
        most = max(dataset.nbytes // (len(dataset) if rows else 1), int(np.prod(dataset.chunks or 0)))
        if most > MAX_BYTES:
            raise ValueError(f"it takes {most:,} bytes, more than any image")
        data = dataset[() if rows is None else rows[name]]
        if isinstance(data, bytes):  # NumPy has cut zeros off the end of a text of fixed length
            return data.ljust(dataset.dtype.itemsize, b"\0") if dataset.dtype.kind == "S" else data
        array = np.asarray(data)
        is_file = array.dtype.kind == "V" or (array.ndim == 1 and array.dtype == np.uint8)
        return array.tobytes() if is_file else netpbm(array)
