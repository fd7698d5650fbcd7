"""Predictions: ids, values in the competition's units, names of the outputs, fold, status, provenance.

On disk they are a CSV: `id`, one column per output, and optionally `fold` (in out-of-fold predictions) and `status` (if
rows may be skipped: `ok`, or why the row was not predicted). They are joined by id, never by position. Values are
float32, and are written with enough digits to be read back exactly.

Shapes: N rows, K outputs.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from swinft.data.schema import Schema
from swinft.data.tables.csv_lines import UnreadableError, read_lines
from swinft.data.tables.numbers import numbers
from swinft.data.tables.table import DataError, Problem, Table, read_table
from swinft.data.tables.text import normal
from swinft.errors import InputError, RunError, listed, number_of, suggest
from swinft.inference.maps import Maps, read_maps, write_maps
from swinft.inference.provenance import PREDICT, Provenance, provenance_of, read_made_from
from swinft.store import commit, verify

# An output may have one of these names: outputs are found by position, after the id.
ID, FOLD, STATUS = "id", "fold", "status"


@dataclass(frozen=True, eq=False, repr=False)
class Predictions:
    """Predictions of some rows.

    Args:
        ids: N ids as text.
        values: float32 predictions (N, K) in the competition's units, stored as a read-only copy.
        outputs: K names.
        fold: int64 (N,): the fold that predicted a row, −1 for none; None if several did, as for test rows.
        status: N words, `ok` or why a row was not predicted; None if no row may be skipped.
        provenance: What they were made with; None if unknown, as for out-of-fold predictions and those of other
            programs.
        maps: Probability maps of segmentation, whose means are `values`; None for other kinds of target.

    Raises:
        ValueError: The lengths differ.
    """

    ids: list[str]
    values: NDArray[np.float32]
    outputs: list[str]
    fold: NDArray[np.int64] | None = None
    status: list[str] | None = None
    provenance: Provenance | None = None
    maps: Maps | None = None

    def __post_init__(self) -> None:
        values = np.array(self.values, dtype=np.float32)
        values.setflags(write=False)
        object.__setattr__(self, "values", values)
        object.__setattr__(self, "ids", [str(id) for id in self.ids])
        object.__setattr__(self, "outputs", list(self.outputs))
        if self.fold is not None:
            object.__setattr__(self, "fold", np.array(self.fold, dtype=np.int64))
        lengths = {len(column) for column in (self.ids, self.fold, self.status, self.maps) if column is not None}
        if values.ndim != 2 or lengths != {len(values)} or values.shape[1] != len(self.outputs):
            raise ValueError(
                f"{values.shape} is not (rows, outputs) of {len(self.ids)} ids and {len(self.outputs)} outputs, or "
                f"fold or status has another number of rows."
            )

    def __len__(self) -> int:
        return len(self.ids)

    @classmethod
    def of(
        cls,
        ids: list[str],
        values: NDArray[np.float32] | Maps,
        outputs: list[str],
        fold: NDArray[np.int64] | None = None,
    ) -> "Predictions":
        """Predictions from what `predict_rows` returns: values, or maps."""
        folds = None if fold is None else np.asarray(fold, dtype=np.int64)
        if isinstance(values, Maps):
            return cls(ids, values.coverage, outputs, folds, maps=values)
        return cls(ids, values, outputs, folds)

    @classmethod
    def read(cls, path: Path, num_outputs: int) -> "Predictions":
        """Reads the predictions of a run.

        Args:
            path: The CSV.
            num_outputs: K, the number of columns after the id.

        Raises:
            StoreError: The file was never completed or has changed since.
        """
        made_from = read_made_from(path, PREDICT)
        # The header is read as a row: pandas would rename a duplicate name.
        text = pd.read_csv(path if made_from else verify(path), dtype=str, keep_default_na=False, header=None)
        names, cells = [str(name) for name in text.iloc[0]], text.iloc[1:]
        positions = {name: position for position, name in enumerate(names) if position > num_outputs}
        ids = cells.iloc[:, 0].tolist()
        values = cells.iloc[:, 1 : num_outputs + 1].replace("", "nan").to_numpy().astype(np.float32)
        return cls(
            ids,
            values,
            names[1 : num_outputs + 1],
            cells.iloc[:, positions[FOLD]].to_numpy().astype(np.int64) if FOLD in positions else None,
            cells.iloc[:, positions[STATUS]].tolist() if STATUS in positions else None,
            provenance_of(made_from),
            read_maps(path, ids, values),
        )

    @classmethod
    def concat(cls, parts: Sequence["Predictions"]) -> "Predictions":
        """Concatenates the rows; fold and status are kept if all parts have them."""
        folds = [part.fold for part in parts if part.fold is not None]
        words = [part.status for part in parts if part.status is not None]
        maps = [part.maps for part in parts if part.maps is not None]
        return cls(
            [id for part in parts for id in part.ids],
            np.concatenate([part.values for part in parts]),
            parts[0].outputs,
            np.concatenate(folds) if len(folds) == len(parts) else None,
            [word for status in words for word in status] if len(words) == len(parts) else None,
            maps=Maps.concat(maps) if len(maps) == len(parts) else None,
        )

    def join(self, ids: Sequence[str], what: str) -> "Predictions":
        """The rows in the order of the ids.

        Args:
            ids: All expected ids, each once.
            what: Name of these predictions in messages.

        Raises:
            RunError: Ids are missing, duplicate or unknown.
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
            raise RunError("\n  ".join([f"{what} does not contain every id exactly once:", *lines]))
        row_of = {id: row for row, id in enumerate(self.ids)}
        rows = np.array([row_of[id] for id in ids], dtype=np.int64)
        return replace(
            self,
            ids=list(ids),
            values=self.values[rows],
            fold=None if self.fold is None else self.fold[rows],
            status=None if self.status is None else [self.status[row] for row in rows],
            maps=None if self.maps is None else self.maps.take(rows),
        )

    def values_of(self, rows: NDArray[np.int64]) -> NDArray[np.float32] | Maps:
        """What metrics are computed from, of some rows: values, or maps."""
        return self.values[rows] if self.maps is None else self.maps.take(rows)

    def among(self, ids: Sequence[str], filler: ArrayLike) -> "Predictions":
        """Predictions for more rows: a row without a prediction gets the filler. Fold and status are dropped.

        Args:
            ids: All rows, each once, in order.
            filler: A number, or one per output (K,).
        """
        row_of = {id: row for row, id in enumerate(self.ids)}
        values = np.empty((len(ids), len(self.outputs)), dtype=np.float32)
        values[:] = filler
        rows = [row for row, id in enumerate(ids) if id in row_of]
        own = [row_of[ids[row]] for row in rows]
        values[rows] = self.values[own]
        maps = None if self.maps is None else self.maps.take(own).among(rows, len(ids))
        return replace(self, ids=list(ids), values=values, fold=None, status=None, maps=maps)

    def select(self, outputs: Sequence[str]) -> "Predictions":
        """The predictions of these outputs, in this order.

        Raises:
            InputError: An output is missing or duplicate.
        """
        wrong = [name for name in outputs if self.outputs.count(name) != 1]
        if wrong:
            raise InputError(
                f"the predictions have the outputs {listed(self.outputs)}, and must have each of the run's once: "
                f"{listed(outputs)}. Missing or duplicate: {listed(wrong)}."
            )
        positions = [self.outputs.index(name) for name in outputs]
        maps = None if self.maps is None else self.maps.of_classes(positions)
        return replace(self, values=self.values[:, positions], outputs=list(outputs), maps=maps)

    def __repr__(self) -> str:
        return f"Predictions of {number_of(len(self), 'row')}: {listed(self.outputs)}"

    def _repr_html_(self) -> str:
        """HTML for notebooks."""
        return str(self.to_frame()._repr_html_())  # type: ignore[operator]

    def to_frame(self) -> pd.DataFrame:
        """A DataFrame with the columns of the CSV: `id`, the outputs (float32), and optionally `fold` and `status`."""
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
        """Commits the CSV, after the maps, if there are any."""
        if self.maps is not None:
            write_maps(path, self.maps, self.ids, producer)
        commit(path, self.to_bytes(), producer)


def mean_of(parts: Sequence[Predictions]) -> Predictions:
    """The mean of predictions of the same rows, in the same order."""
    maps = [part.maps for part in parts if part.maps is not None]
    if maps:
        mean = Maps.mean(maps)
        known = np.isfinite(parts[0].values)
        return replace(parts[0], values=np.where(known, mean.coverage, np.nan), maps=mean)
    return replace(parts[0], values=np.mean([part.values for part in parts], 0, dtype=np.float32))


def as_bytes(table: pd.DataFrame) -> bytes:
    """A table as CSV: UTF-8, Unix line endings, no index column."""
    # 9 significant digits are the fewest from which every float32 is read back exactly.
    return bytes(table.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode())


def read_foreign(
    path: Path, schema: Schema, id_names: Sequence[str], has_folds: bool = False
) -> tuple[Predictions, list[str]]:
    """Reads predictions that no run wrote: a blend, or those of another program.

    Args:
        path: A CSV with an id column and a column per output, in any order.
        schema: The schema of the run.
        id_names: Allowed names of the id column; the first that exists is used.
        has_folds: Whether the column `fold` is read, which must then exist.

    Returns:
        The predictions, and notes about the file, one line each.

    Raises:
        DataError: The file is not such a table; all problems are listed.
    """
    problems: list[Problem] = []
    setting = f"the table: it needs a column of ids, called {' or '.join(dict.fromkeys(id_names))}"
    table = read_table(path, _id_column(path, id_names, schema.outputs), {}, problems, id_setting=setting)
    if table is None:
        raise DataError(problems)
    for name in schema.outputs:
        if name not in table.columns:
            fix = f"A prediction table has a column for each of the run's outputs.{suggest(name, table.columns)}"
            problems.append(Problem(str(path), "there is no such column", fix, 1, column=name))
    values = numbers(table, [name for name in schema.outputs if name in table.columns], problems)
    fold = _folds(table, schema, problems) if has_folds else None
    if problems:
        raise DataError(problems)
    unused = [name for name in table.columns if name not in (table.id_column, *schema.outputs, FOLD, STATUS)]
    notes = [*table.notes, *([f"{path}: the columns {unused} are not used"] if unused else [])]
    return Predictions(table.ids, values, schema.outputs, fold), notes


def _folds(table: Table, schema: Schema, problems: list[Problem]) -> NDArray[np.int64] | None:
    """The column `fold`; without it, or with other cells than whole numbers, a problem is appended."""
    if FOLD not in table.columns or FOLD in schema.outputs:
        fix = (
            "Out-of-fold predictions need the fold that held each row out: if they were made with a run's folds, add "
            "the column from its folds.csv, by id."
        )
        problems.append(Problem(str(table.path), "there is no such column", fix, 1, column=FOLD))
        return None
    found = numbers(table, [FOLD], problems)[:, 0]
    for row in np.flatnonzero(np.isfinite(found) & (found != np.rint(found))).tolist():
        problems.append(table.problem(row, "the fold is not a whole number", "Write the number of a fold.", FOLD))
    return np.nan_to_num(found).astype(np.int64)


def header(path: Path, outputs: Sequence[str]) -> list[str]:
    """The names in the header of a CSV of predictions, whatever delimits its fields; none if it cannot be read.

    Args:
        path: The CSV.
        outputs: Columns that it should have, by which the delimiter is found.
    """
    try:
        return [normal(name) for name in read_lines(path, outputs, "utf-8").header]
    except UnreadableError:  # said by what reads the table
        return []


def _id_column(path: Path, names: Sequence[str], outputs: Sequence[str]) -> str:
    """The first of the names in a CSV's header; if there is none, the first name, whose absence is an error later."""
    known = header(path, outputs)
    return next((name for name in names if name in known), names[0])
