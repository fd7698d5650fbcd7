"""Files of embeddings: parquet with an id, the row's fold and a column per dimension, and what made them.

Shapes: N rows, D dimensions.
"""

import io
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.errors import StoreError
from swinft.extras import import_extra, import_parquet
from swinft.store import commit, is_committed, verify

MAKER = "swinft embed"
KEY = b"swinft"  # of what made the file, in its metadata
ID, FOLD, IS_TRAINED_ON = "id", "fold", "is_trained_on"
LOSS = 2.0**-10  # largest error of rounding to float16, of the largest number: that of 11 significant bits
About = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Table:
    """Embeddings of some rows by one network.

    Args:
        ids: N ids.
        values: float32 (N, D), rounded as they are stored.
        fold: Of training rows: the fold of each, int64 (N,), −1 for none.
        is_trained_on: Of training rows: whether the network was trained on the row, bool (N,).
        about: What made them.
    """

    ids: list[str]
    values: NDArray[np.float32]
    fold: NDArray[np.int64] | None = None
    is_trained_on: NDArray[np.bool_] | None = None
    about: About | None = None


def dtype_of(values: NDArray[np.float32]) -> str:
    """`float16`, or `float32` where float16 would overflow or lose more than its 11 significant bits."""
    largest = float(np.abs(values).max(initial=0.0))
    error = float(np.abs(rounded(values, "float16") - values).max(initial=0.0))
    overflows = largest > float(np.finfo(np.float16).max)
    return "float32" if overflows or error > LOSS * largest else "float16"


def rounded(values: NDArray[np.float32], dtype: str) -> NDArray[np.float32]:
    """Values as they are stored; in float16, numbers beyond its range stay as they are."""
    if dtype == "float32":
        return values
    with np.errstate(over="ignore"):
        half = values.astype(np.float16).astype(np.float32)
    return np.where(np.isfinite(half), half, values)


def folder_name(layer: str, views: Sequence[str]) -> str:
    """The folder of embeddings: `pooled-identity-hflip`."""
    return re.sub(r"[^A-Za-z0-9_.=+]+", "-", "-".join([layer, *views])).strip("-.")


def write_table(path: Path, table: Table) -> str:
    """Commits embeddings; returns the dtype of the values.

    Args:
        path: The file.
        table: The embeddings; `about` is stored with them.
    """
    arrow, parquet = import_extra("pyarrow", "parquet", "pyarrow, which writes parquet files,"), import_parquet()
    dtype = dtype_of(table.values)
    columns: dict[str, Any] = {ID: arrow.array(table.ids, arrow.string())}
    given = {FOLD: table.fold, IS_TRAINED_ON: table.is_trained_on}
    columns |= {name: arrow.array(values) for name, values in given.items() if values is not None}
    stored = table.values.astype(dtype)
    columns |= {f"e{k}": arrow.array(stored[:, k]) for k in range(stored.shape[1])}
    about = json.dumps({**(table.about or {}), "dtype": dtype}, sort_keys=True).encode()
    found, content = arrow.table(columns).replace_schema_metadata({KEY: about}), io.BytesIO()
    # Neither dictionaries nor statistics: they are longer than the numbers, of which hardly two are the same.
    parquet.write_table(found, content, compression="zstd", use_dictionary=False, write_statistics=False)
    commit(path, content.getvalue(), MAKER)
    return dtype


def read_about(path: Path) -> About | None:
    """What made a committed file; None if there is none, or it cannot be read."""
    parquet = import_parquet()
    if not is_committed(path):
        return None
    try:
        about: About = json.loads(parquet.read_schema(path).metadata[KEY])
    except (OSError, ValueError, TypeError, KeyError):  # pyarrow's errors derive from these
        return None
    return about


def read_table(path: Path) -> Table:
    """Reads embeddings.

    Raises:
        StoreError: The file is missing, or has changed since it was written.
    """
    parquet = import_parquet()
    content = verify(path).read_bytes()
    try:
        found = parquet.read_table(io.BytesIO(content))
        about = json.loads(found.schema.metadata[KEY])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StoreError(f"{path} is no file of embeddings: {error}. Delete it, and run `{MAKER}` again.") from error
    names = [name for name in found.column_names if re.fullmatch(r"e\d+", name)]
    values = np.empty((found.num_rows, len(names)), dtype=np.float32)
    for k, name in enumerate(names):
        values[:, k] = found.column(name).to_numpy()
    more = {name: found.column(name).to_numpy() for name in (FOLD, IS_TRAINED_ON) if name in found.column_names}
    return Table(found.column(ID).to_pylist(), values, more.get(FOLD), more.get(IS_TRAINED_ON), about)


def without_dtype(about: About | None) -> About | None:
    """What made a file, without what follows from the values."""
    return None if about is None else {name: value for name, value in about.items() if name != "dtype"}


def is_same_source(found: About | None, wanted: About) -> bool:
    """Whether a file was made with these weights and settings, of these rows."""
    return bool(without_dtype(found) == json.loads(json.dumps(wanted)))
