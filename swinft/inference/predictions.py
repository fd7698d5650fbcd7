"""Predictions: ids, values in the competition's units, names of the outputs, fold, status, provenance.

On disk they are a CSV: `id`, one column per output, and optionally `fold` (in out-of-fold predictions) and `status` (if
rows may be skipped: `ok`, or why the row was not predicted). They are joined by id, never by position. Values are
float32, and are written with enough digits to be read back exactly.

Shapes: N rows, K outputs.
"""

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from swinft.errors import InputError, RunError, listed, number_of
from swinft.inference.maps import Maps, read_maps, write_maps
from swinft.inference.prediction_csv import read_rows, write_rows
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
        values = self.values
        if not _is_frozen(values):
            values = _frozen(np.array(values, dtype=np.float32))
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
        names, ids, values, more = read_rows(path if made_from else verify(path), num_outputs)
        fold = np.array(more[FOLD], dtype=np.int64) if FOLD in more else None
        outputs, maps = names[1 : num_outputs + 1], read_maps(path, ids, values)
        return cls(ids, values, outputs, fold, more.get(STATUS), provenance_of(made_from), maps)

    @classmethod
    def pooled(
        cls, parts: Iterable["Predictions"], scored: Sequence[str], ids: Sequence[str], what: str
    ) -> "Predictions":
        """Predictions that several parts have of some rows: `concat(parts).join(scored, what).among(ids, nan)`.

        Only one part is in memory at a time, beside the result.

        Args:
            parts: Each with some of the rows.
            scored: Ids of all rows that they must have, each once.
            ids: Ids of more rows, which get NaN.
            what: Name of these predictions in messages.

        Raises:
            RunError: Ids are missing, duplicate or unknown.
        """
        row_of = {id: row for row, id in enumerate(ids)}
        found, outputs, values = list[str](), list[str](), np.zeros((0, 0), np.float32)
        with_maps = list[Predictions]()
        for part in parts:
            if part.maps is not None:
                with_maps.append(part)
                continue
            if not len(values):
                outputs, values = part.outputs, np.full((len(ids), len(part.outputs)), np.nan, np.float32)
            own = [(row_of[id], row) for row, id in enumerate(part.ids) if id in row_of]
            values[[row for row, _ in own]] = part.values[[row for _, row in own]]
            found += part.ids
        if with_maps:
            return cls.concat(with_maps).join(scored, what).among(ids, np.nan)
        check_ids(found, scored, what)
        return cls(list(ids), _frozen(values), outputs)

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
        check_ids(self.ids, ids, what)
        if self.ids == list(ids):
            return self
        row_of = {id: row for row, id in enumerate(self.ids)}
        rows = np.array([row_of[id] for id in ids], dtype=np.int64)
        return replace(
            self,
            ids=list(ids),
            values=_frozen(self.values[rows]),
            fold=None if self.fold is None else self.fold[rows],
            status=None if self.status is None else [self.status[row] for row in rows],
            maps=None if self.maps is None else self.maps.take(rows),
        )

    def values_of(self, rows: NDArray[np.int64]) -> NDArray[np.float32] | Maps:
        """What metrics are computed from, of some rows: values, or maps."""
        return rows_of(self.values, rows) if self.maps is None else self.maps.take(rows)

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
        return replace(self, ids=list(ids), values=_frozen(values), fold=None, status=None, maps=maps)

    def select(self, outputs: Sequence[str]) -> "Predictions":
        """The predictions of these outputs, in this order.

        Raises:
            InputError: An output is missing or duplicate.
        """
        counts = Counter(self.outputs)
        wrong = [name for name in outputs if counts[name] != 1]
        if wrong:
            raise InputError(
                f"the predictions have the outputs {listed(self.outputs)}, and must have each of the run's once: "
                f"{listed(outputs)}. Missing or duplicate: {listed(wrong)}."
            )
        if list(outputs) == self.outputs:
            return self
        place = {name: position for position, name in enumerate(self.outputs)}
        positions = [place[name] for name in outputs]
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
        file = io.BytesIO()
        self.write_to(file)
        return file.getvalue()

    def write_to(self, file: IO[bytes]) -> None:
        """Writes the CSV to an open file, some rows at a time."""
        self._write(file.write)

    def _write(self, write: Callable[[bytes], object]) -> None:
        more = {FOLD: None if self.fold is None else self.fold.tolist(), STATUS: self.status}
        given = {name: column for name, column in more.items() if column is not None}
        write_rows(write, [ID, *self.outputs, *given], self.ids, self.values, list(given.values()))

    @property
    def sha256(self) -> str:
        """SHA-256 of the CSV."""
        digest = hashlib.sha256()
        self._write(digest.update)
        return digest.hexdigest()

    def write(self, path: Path, producer: str) -> None:
        """Commits the CSV, after the maps, if there are any."""
        if self.maps is not None:
            write_maps(path, self.maps, self.ids, producer)
        commit(path, self.write_to, producer)


def rows_of(values: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """Predictions of some rows; those of all rows in their order are not copied."""
    return values if len(rows) == len(values) and (np.diff(rows) == 1).all() else values[rows]


def _frozen(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """An array that nobody else has, read-only from now on."""
    values.setflags(write=False)
    return values


def _is_frozen(values: Any) -> bool:
    """Whether an array can never change: it needs no copy."""
    is_read_only = isinstance(values, np.ndarray) and values.dtype == np.float32 and not values.flags.writeable
    return is_read_only and (values.base is None or _is_frozen(values.base))


def check_ids(found: Sequence[str], ids: Sequence[str], what: str) -> None:
    """Checks that predictions are of all rows, each once.

    Args:
        found: The ids of the predictions.
        ids: All expected ids, each once.
        what: Name of the predictions in messages.

    Raises:
        RunError: Ids are missing, duplicate or unknown.
    """
    counts, wanted = Counter(found), set(ids)
    problems = {
        "without a prediction": [id for id in ids if id not in counts],
        "predicted twice": [id for id, count in counts.items() if count > 1],
        "not known": [id for id in counts if id not in wanted],
    }
    lines = [
        f"{number_of(len(names), 'id is', 'ids are')} {how}: {', '.join(names[:5])}"
        for how, names in problems.items()
        if names
    ]
    if lines:
        raise RunError("\n  ".join([f"{what} does not contain every id exactly once:", *lines]))


def mean_of(parts: Sequence[Predictions]) -> Predictions:
    """The mean of predictions of the same rows, in the same order."""
    maps = [part.maps for part in parts if part.maps is not None]
    if maps:
        mean = Maps.mean(maps)
        known = np.isfinite(parts[0].values)
        return replace(parts[0], values=np.where(known, mean.coverage, np.nan), maps=mean)
    total = parts[0].values.copy()
    for part in parts[1:]:
        total += part.values
    return replace(parts[0], values=_frozen(total / np.float32(len(parts))))


def as_bytes(table: pd.DataFrame) -> bytes:
    """A table as CSV: UTF-8, Unix line endings, no index column."""
    # 9 significant digits are the fewest from which every float32 is read back exactly.
    return bytes(table.to_csv(index=False, float_format="%.9g", lineterminator="\n").encode())
