"""Predictions: ids, values in the competition's units, names of the outputs, fold, status, and what made them.

On disk they are a CSV: `id`, one column per output, and, where there are any, `fold` (of out-of-fold predictions) and
`status` (where a config lets rows be skipped: `ok`, or why the row has no prediction of its own). They are joined by
id, never by position. Values are float32, written so that they read back exactly.

Shapes: N rows, K outputs.
"""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from swinft.data.schema import Schema
from swinft.data.tables.numbers import numbers
from swinft.data.tables.table import DataError, Problem, read_table
from swinft.errors import InputError, RunError, listed, number_of, suggest
from swinft.inference.provenance import PREDICT, Provenance, provenance_of, read_made_from
from swinft.store import commit, verify

# An output that is also called so stays apart: outputs are found by position, after the id.
ID, FOLD, STATUS = "id", "fold", "status"


@dataclass(frozen=True, eq=False, repr=False)
class Predictions:
    """Predictions of some rows.

    Args:
        ids: N ids as text.
        values: float32 predictions (N, K) in the competition's units; a copy that cannot be written to is kept.
        outputs: K names.
        fold: int64 (N,): which fold predicted a row, −1 for none; None where several did, as for test rows.
        status: N words, `ok` or why a row has no prediction of its own; None where no row may be skipped.
        provenance: What they were made with; None where that is not known, as for out-of-fold predictions and those of
            other programs.

    Raises:
        ValueError: The lengths differ.
    """

    ids: list[str]
    values: NDArray[np.float32]
    outputs: list[str]
    fold: NDArray[np.int64] | None = None
    status: list[str] | None = None
    provenance: Provenance | None = None

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float32)
        values.setflags(write=False)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "ids", [str(id) for id in self.ids])
        object.__setattr__(self, "outputs", list(self.outputs))
        if self.fold is not None:
            object.__setattr__(self, "fold", np.array(self.fold, dtype=np.int64))
        lengths = {len(column) for column in (self.ids, self.fold, self.status) if column is not None}
        if values.ndim != 2 or lengths != {len(values)} or values.shape[1] != len(self.outputs):
            raise ValueError(
                f"{values.shape} is not (rows, outputs) of {len(self.ids)} ids and {len(self.outputs)} outputs, or "
                f"fold or status has another number of rows."
            )

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def read(cls, path: Path, num_outputs: int) -> "Predictions":
        """Reads the predictions that a run made.

        Args:
            path: The CSV.
            num_outputs: K, the number of columns after the id.

        Raises:
            StoreError: The file was never completed or has changed since.
        """
        made_from = read_made_from(path, PREDICT)
        # The header is read as a row: pandas would change a name that is there twice.
        text = pd.read_csv(path if made_from else verify(path), dtype=str, keep_default_na=False, header=None)
        names, cells = [str(name) for name in text.iloc[0]], text.iloc[1:]
        places = {name: place for place, name in enumerate(names) if place > num_outputs}
        return cls(
            cells.iloc[:, 0].tolist(),
            cells.iloc[:, 1 : num_outputs + 1].replace("", "nan").to_numpy().astype(np.float32),
            names[1 : num_outputs + 1],
            cells.iloc[:, places[FOLD]].to_numpy().astype(np.int64) if FOLD in places else None,
            cells.iloc[:, places[STATUS]].tolist() if STATUS in places else None,
            provenance_of(made_from),
        )

    @classmethod
    def concat(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """The rows of several, one after the other; fold and status are kept where all parts have them."""
        folds = [part.fold for part in parts if part.fold is not None]
        words = [part.status for part in parts if part.status is not None]
        return cls(
            [id for part in parts for id in part.ids],
            np.concatenate([part.values for part in parts]),
            parts[0].outputs,
            np.concatenate(folds) if len(folds) == len(parts) else None,
            [word for status in words for word in status] if len(words) == len(parts) else None,
        )

    def join(self, ids: Sequence[str], what: str) -> "Predictions":
        """The rows in the order of ids: the one join that there is.

        Args:
            ids: Every id that there must be, each once.
            what: Whose predictions these are, for messages.

        Raises:
            RunError: Ids are missing, are there twice, or are not known.
        """
        found, wanted = Counter(self.ids), set(ids)
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
        place = {id: row for row, id in enumerate(self.ids)}
        rows = np.array([place[id] for id in ids], dtype=np.int64)
        return replace(
            self,
            ids=list(ids),
            values=self.values[rows],
            fold=None if self.fold is None else self.fold[rows],
            status=None if self.status is None else [self.status[row] for row in rows],
        )

    def among(self, ids: Sequence[str], filler: ArrayLike) -> "Predictions":
        """The predictions of more rows: one that is not among these gets a filler. Fold and status are left out.

        Args:
            ids: All rows, each once, in their order.
            filler: A number, or one per output (K,).
        """
        place = {id: row for row, id in enumerate(self.ids)}
        values = np.empty((len(ids), len(self.outputs)), dtype=np.float32)
        values[:] = filler
        rows = [row for row, id in enumerate(ids) if id in place]
        values[rows] = self.values[[place[ids[row]] for row in rows]]
        return replace(self, ids=list(ids), values=values, fold=None, status=None)

    def select(self, outputs: Sequence[str]) -> "Predictions":
        """The same with these outputs, in this order.

        Raises:
            InputError: One is not there, or is there twice.
        """
        odd = [name for name in outputs if self.outputs.count(name) != 1]
        if odd:
            raise InputError(
                f"the predictions have the outputs {listed(self.outputs)}, and must have each of the run's once: "
                f"{listed(outputs)}. Not so: {listed(odd)}."
            )
        places = [self.outputs.index(name) for name in outputs]
        return replace(self, values=self.values[:, places], outputs=list(outputs))

    def __repr__(self) -> str:
        return f"Predictions of {number_of(len(self), 'row')}: {listed(self.outputs)}"

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return str(self.to_frame()._repr_html_())  # type: ignore[operator]

    def to_frame(self) -> pd.DataFrame:
        """A DataFrame as the CSV is: `id`, the outputs (float32) and, where there are any, `fold` and `status`."""
        columns: list[pd.Series[Any]] = [pd.Series(self.ids, dtype=str, name=ID)]
        columns += [pd.Series(self.values[:, k], name=name) for k, name in enumerate(self.outputs)]
        if self.fold is not None:
            columns.append(pd.Series(self.fold, name=FOLD))
        if self.status is not None:
            columns.append(pd.Series(self.status, dtype=str, name=STATUS))
        return pd.concat(columns, axis=1)

    def to_bytes(self) -> bytes:
        """The CSV."""
        return as_bytes(self.to_frame())

    def write(self, path: Path, producer: str) -> None:
        """Commits the CSV."""
        commit(path, self.to_bytes(), producer)


def as_bytes(table: pd.DataFrame) -> bytes:
    """A table as CSV: UTF-8, Unix line ends, no index column."""
    # 9 significant digits are the fewest that bring every float32 back exactly.
    return bytes(table.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode())


def read_foreign(path: Path, schema: Schema, id_names: Sequence[str]) -> tuple[Predictions, list[str]]:
    """Reads predictions from elsewhere: a blend, or another program's.

    Args:
        path: A CSV with an id column and a column per output, in any order.
        schema: The outputs.
        id_names: What the id column may be called; the first of them that is there is taken.

    Returns:
        The predictions, and what is odd about them, one line each.

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
    return Predictions(table.ids, values, schema.outputs), notes


def _id_column(path: Path, names: Sequence[str]) -> str:
    """The first of the names that a CSV's header has; else the first of all, whose absence is an error later."""
    if not path.is_file():
        return names[0]
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        header = [name.strip() for name in next(csv.reader(file), [])]
    return next((name for name in names if name in header), names[0])
