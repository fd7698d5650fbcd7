"""Reads matrices in parquet files as images: rows from top to bottom, number columns from left to right."""

import io
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.images.rules import KEY, ImageRules
from swinft.errors import suggest
from swinft.extras import import_parquet


def is_matrix(content: bytes) -> bool:
    """Whether an image is a parquet file."""
    return content.startswith(b"PAR1")


def matrix_shape(content: bytes, rules: ImageRules) -> tuple[int, int]:
    """Rows and columns of the image.

    Raises:
        ValueError: It is damaged, or has no columns of numbers.
        InputError: pyarrow is not installed.
    """
    file = _opened(content)
    return file.metadata.num_rows, len(_chosen(file, rules))


def read_matrix(content: bytes, rules: ImageRules) -> NDArray[Any]:
    """The numbers, float (H, W); NaN where a cell is empty.

    Raises:
        ValueError: It is damaged, or has no columns of numbers.
        InputError: pyarrow is not installed.
    """
    file = _opened(content)
    names = _chosen(file, rules)
    table = file.read(columns=names)
    columns = [np.asarray(table.column(name).to_numpy(zero_copy_only=False)) for name in names]
    type_ = np.result_type(np.float32, *(column.dtype for column in columns))
    found: NDArray[Any] = np.stack([column.astype(type_) for column in columns], axis=1)
    return found


def _opened(content: bytes) -> Any:
    return import_parquet().ParquetFile(io.BytesIO(content))


def _chosen(file: Any, rules: ImageRules) -> list[str]:
    """Names of the columns that are the image, in the order of the file.

    Raises:
        ValueError: A pattern matches none, or one that it matches holds no numbers.
    """
    from pyarrow import types

    fields = [(field.name, field.type) for field in file.schema_arrow]
    numbers = [name for name, kind in fields if types.is_integer(kind) or types.is_floating(kind)]
    if rules.columns is None:
        if not numbers:
            raise ValueError("it has no column of numbers")
        return numbers
    for pattern in rules.columns:
        if not any(fnmatchcase(name, pattern) for name in numbers):
            hint = suggest(pattern, numbers)
            raise ValueError(f"no column of numbers matches '{pattern}' ({KEY}.columns).{hint}")
    return [name for name in numbers if any(fnmatchcase(name, pattern) for pattern in rules.columns)]
