"""Prediction tables: `id`, one column per output in the competition's units, and for out-of-fold ones `fold`.

Where a config lets rows be skipped there is a `status` besides: `ok`, or why the row has no prediction of its own.

Tables are joined by id, never by position. Numbers are float32, written so that they read back exactly.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from swinft.data.schema import Schema
from swinft.data.tables.numbers import numbers
from swinft.data.tables.table import DataError, Problem, read_table
from swinft.errors import RunError, number_of, suggest
from swinft.inference.provenance import read_made_from
from swinft.store import commit, verify

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


def as_bytes(table: pd.DataFrame) -> bytes:
    """A prediction table as CSV: UTF-8, Unix line ends, no index column."""
    # 9 significant digits are the fewest that bring every float32 back exactly.
    return bytes(table.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode())


def write_predictions(path: Path, table: pd.DataFrame, producer: str) -> None:
    """Commits a prediction table as CSV."""
    commit(path, as_bytes(table), producer)


def read_predictions(path: Path, num_outputs: int) -> pd.DataFrame:
    """Reads a prediction table that a run made.

    Args:
        path: The CSV.
        num_outputs: K, the number of columns after the id.

    Returns:
        The frame as it was written, with ids as text.

    Raises:
        StoreError: The file was never completed or has changed since.
    """
    intact = path if read_made_from(path, "swinft predict") else verify(path)
    text = pd.read_csv(intact, dtype=str, keep_default_na=False, header=0)
    outputs = [text.iloc[:, k].replace("", "nan").astype("float32") for k in range(1, num_outputs + 1)]
    others = [text.iloc[:, k] for k in range(num_outputs + 1, text.shape[1])]
    others = [column.astype("int64") if column.name == FOLD else column for column in others]
    return pd.concat([text.iloc[:, 0], *outputs, *others], axis=1)


def by_id(table: pd.DataFrame, ids: Sequence[str], what: str) -> pd.DataFrame:
    """The rows of a prediction table in the order of ids: the one join that there is.

    Args:
        table: Its first column holds ids.
        ids: Every id that it must hold, each once.
        what: The table, for messages.

    Raises:
        RunError: Ids are missing, are there twice, or are not known.
    """
    found = Counter(table.iloc[:, 0].astype(str))
    wanted = set(ids)
    problems = {
        "without a prediction": [id for id in ids if id not in found],
        "predicted twice": [id for id, count in found.items() if count > 1],
        "not known": [id for id in found if id not in wanted],
    }
    lines = [
        f"{number_of(len(names), 'id is', 'ids are')} {how}: {', '.join(names[:5])}"
        for how, names in problems.items()
        if names
    ]
    if lines:
        raise RunError("\n  ".join([f"{what} does not hold every id exactly once:", *lines]))
    return table.set_axis(table.iloc[:, 0].astype(str), axis=0).loc[list(ids)].reset_index(drop=True)


def read_foreign(path: Path, schema: Schema, id_names: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """Reads a prediction table from elsewhere: a blend, or another program's.

    Args:
        path: A CSV with an id column and a column per output, in any order.
        schema: The outputs.
        id_names: What the id column may be called; the first of them that is there is taken.

    Returns:
        The prediction table, and what is odd about it, one line each.

    Raises:
        DataError: The file is no such table; everything that is wrong is listed.
    """
    problems: list[Problem] = []
    table = read_table(path, _id_column(path, id_names), {}, problems)
    if table is None:
        raise DataError(problems)
    for name in schema.outputs:
        if name not in table.columns:
            fix = f"A prediction table has a column for each of the run's outputs.{suggest(name, table.columns)}"
            problems.append(Problem(str(path), "there is no such column", fix, 1, column=name))
    values = numbers(table, [name for name in schema.outputs if name in table.columns], problems)
    if problems:
        raise DataError(problems)
    unused = [name for name in table.columns if name not in (table.id_column, *schema.outputs, FOLD, STATUS)]
    notes = [*table.notes, *([f"{path}: the columns {unused} are not used"] if unused else [])]
    return prediction_table(table.ids, values, schema.outputs), notes


def _id_column(path: Path, names: Sequence[str]) -> str:
    """The first of the names that a CSV's header has; else the first of all, whose absence is an error later."""
    if not path.is_file():
        return names[0]
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        header = [name.strip() for name in next(csv.reader(file), [])]
    return next((name for name in names if name in header), names[0])


def values_of(table: pd.DataFrame, num_outputs: int) -> NDArray[np.float32]:
    """The predictions (N, K) of a table."""
    return table.iloc[:, 1 : num_outputs + 1].to_numpy(dtype=np.float32, copy=True)  # torch wants it writable
