"""Groups, datasets and ids of HDF5 files, of which no link is followed."""

from typing import Any

from swinft.errors import InputError


def find(file: Any, inner: str) -> Any:
    """What is at a path in a file.

    Raises:
        LookupError: There is nothing.
        ValueError: A part of the path is a link, which may lead into another file.
    """
    found = file
    for part in filter(None, inner.split("/")):
        link = found.get(part, getlink=True) if hasattr(found, "keys") else None
        if link is None:
            raise LookupError(f"there is no '{part}'")
        if type(link).__name__ != "HardLink":
            raise ValueError(f"'{part}' is a link")
        found = found[part]
    return found


def numbered(file: Any, array: Any, ids: str | None) -> dict[str, int]:
    """The rows of an array by their ids.

    Args:
        file: The file.
        array: A dataset of N images.
        ids: The dataset of their ids; None for numbers from 0.

    Raises:
        ValueError: There are no such ids, or not one for each image.
    """
    if ids is None:
        return {str(row): row for row in range(len(array) if array.shape else 0)}
    try:
        cells = find(file, ids)[()].tolist()
    except (LookupError, AttributeError):
        raise ValueError(f"there is no dataset '{ids}', which data.loading.source names as ids") from None
    names = [cell.decode(errors="replace") if isinstance(cell, bytes) else str(cell) for cell in cells]
    if len(names) != len(array) or len({*names}) != len(names):
        raise ValueError(f"'{ids}' has {len({*names}):,} different ids for an array of {len(array):,} images")
    return {name: row for row, name in enumerate(names)}


def import_h5py() -> Any:
    """The package h5py, an extra.

    Raises:
        InputError: It is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise InputError("h5py, which reads HDF5 files, is not installed: pip install 'swinft[hdf5]'") from error
    return h5py
