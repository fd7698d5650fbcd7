"""Prediction tables: `id`, one column per output in the competition's units, and for out-of-fold ones `fold`.

Where a config lets rows be skipped there is a `status` besides: `ok`, or why the row has no prediction of its own.

Tables are joined by id, never by position. Numbers are float32, written so that they read back exactly.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from swinft.run.store import commit, verify

# An output that is also called so stays apart: outputs are found by position, after the id.
ID, FOLD, STATUS = "id", "fold", "status"


def prediction_table(
    ids: Sequence[str],
    values: NDArray[np.float32],
    outputs: Sequence[str],
    folds: NDArray[np.int64] | None = None,
    status: Sequence[str] | None = None,
) -> pd.DataFrame:
    """Builds a prediction table.

    Args:
        ids: N ids as text.
        values: float32 predictions (N, K) in the competition's units.
        outputs: K column names.
        folds: int folds (N,), for out-of-fold predictions.
        status: N words, where rows may be skipped.

    Returns:
        A frame with the columns id, the outputs and, where given, fold and status.
    """
    columns: list[pd.Series[Any]] = [pd.Series(list(ids), dtype=str, name=ID)]
    columns += [pd.Series(values[:, k], dtype="float32", name=name) for k, name in enumerate(outputs)]
    if folds is not None:
        columns.append(pd.Series(folds, dtype="int64", name=FOLD))
    if status is not None:
        columns.append(pd.Series(list(status), dtype=str, name=STATUS))
    return pd.concat(columns, axis=1)


def write_predictions(path: Path, table: pd.DataFrame, producer: str) -> None:
    """Commits a prediction table as CSV: UTF-8, Unix line ends, no index column."""
    # 9 significant digits are the fewest that bring every float32 back exactly.
    text = table.to_csv(index=False, float_format="%.9g", lineterminator="\n")
    commit(path, text.encode(), producer)


def read_predictions(path: Path, num_outputs: int) -> pd.DataFrame:
    """Reads a committed prediction table.

    Args:
        path: The CSV.
        num_outputs: K, the number of columns after the id.

    Returns:
        The frame as it was written, with ids as text.

    Raises:
        StoreError: The file was never completed or has changed since.
    """
    text = pd.read_csv(verify(path), dtype=str, keep_default_na=False, header=0)
    outputs = [text.iloc[:, k].replace("", "nan").astype("float32") for k in range(1, num_outputs + 1)]
    others = [text.iloc[:, k] for k in range(num_outputs + 1, text.shape[1])]
    others = [column.astype("int64") if column.name == FOLD else column for column in others]
    return pd.concat([text.iloc[:, 0], *outputs, *others], axis=1)


def values_of(table: pd.DataFrame, num_outputs: int) -> NDArray[np.float32]:
    """The predictions (N, K) of a table."""
    return table.iloc[:, 1 : num_outputs + 1].to_numpy(dtype=np.float32, copy=True)  # torch wants it writable
