"""Groups, datasets and ids of HDF5 files; links are not followed."""

from typing import Any

from swinft.extras import import_extra


def find(file: Any, inner: str) -> Any:
    """The object at a path in a file.

    Raises:
        LookupError: There is no such object.
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
    """The row number of each id of an array.

    Args:
        file: The file.
        array: A dataset of N images.
        ids: Dataset of their ids; None for row numbers from 0.

    Raises:
        ValueError: The ids are missing, or not one per image.
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
    """Imports h5py, an optional dependency.

    Raises:
        InputError: It is not installed.
    """
    return import_extra("h5py", "hdf5", "h5py, which reads HDF5 files,")
