"""Rows that a fold does not train on though it does not score them: those whose labels look wrong.

Shapes: N rows of the training table and of extra ones.
"""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.folds import ALL_ROWS, Folds
from swinft.data.samples import Rows
from swinft.errors import InputError, listed, number_of

KEY, ALL = "data.folds.drop", "all"
COLUMNS = ("id", "fold")
Dropped = dict[
    int, NDArray[np.int64]
]  # rows by the fold that does not train on them; `ALL_ROWS` for the training on all


def read_dropped(path: str | None, train: Rows, folds: Folds) -> Dropped:
    """Reads the file of `data.folds.drop`; nothing is dropped without one.

    Args:
        path: A CSV with a line for each row and each fold that does not train on it: columns `id` and `fold`, a number
            or `all` for the training on every row. Other columns are for reading.
        train: The N rows.
        folds: Fold of each, int64 (N,).

    Raises:
        InputError: The file is missing or wrong, drops a row of the fold that scores it, or all rows of a class.
    """
    if path is None:
        return {}
    lines = _lines(Path(path))
    place = {id: row for row, id in enumerate(train.table.ids[: train.num_main])}
    known = {**{str(fold): fold for fold in range(int(folds.max()) + 1)}, ALL: ALL_ROWS}
    found: dict[int, set[int]] = {}
    problems = []
    for number, line in enumerate(lines, start=2):
        row, fold = place.get(str(line["id"])), known.get(str(line["fold"]))
        if row is None:
            problems.append(f"{path}:{number}: the training table has no id '{line['id']}'.")
        elif fold is None:
            problems.append(f"{path}:{number}: fold is '{line['fold']}'. Allowed: {listed(known)}.")
        elif folds[row] == fold:
            problems.append(f"{path}:{number}: fold {fold} scores id '{line['id']}', and never trains on it.")
        else:
            found.setdefault(fold, set()).add(row)
    dropped = {fold: np.array(sorted(rows), dtype=np.int64) for fold, rows in sorted(found.items())}
    problems += [] if problems else _lost_classes(dropped, train, folds)
    if problems:
        most = [*problems[:10], *([f"and {len(problems) - 10:,} more."] if len(problems) > 10 else [])]
        raise InputError("\n  ".join([f"{KEY} is wrong:", *most, "Correct the file, or remove the key."]))
    return dropped


def dropped_notes(path: str | None, dropped: Mapping[int, NDArray[np.int64]]) -> list[str]:
    """A line on the rows that are not trained on; none without such a file."""
    if path is None:
        return []
    counts = [
        f"{len(rows):,} of {'all rows' if fold == ALL_ROWS else f'fold {fold}'}" for fold, rows in dropped.items()
    ]
    return [f"{path}: rows that are scored, and not trained on: {listed(counts) or 'none'}."]


def _lines(path: Path) -> list[dict[str, Any]]:
    """The lines of the file.

    Raises:
        InputError: It is missing, not text, or lacks a column.
    """
    if not path.is_file():
        place = "" if path.is_absolute() else f" in the working folder, {Path.cwd()}"
        raise InputError(f"{KEY}: there is no file {path}{place}.")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            lines = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{KEY}: {path} is no CSV: {error}.") from None
    if lacking := [name for name in COLUMNS if name not in (reader.fieldnames or [])]:
        raise InputError(f"{KEY}: {path} has no column {listed(lacking)}: it needs the columns {listed(COLUMNS)}.")
    return lines


def _lost_classes(dropped: Dropped, train: Rows, folds: Folds) -> list[str]:
    """Folds that would train on no row, or on none of a class that they train on otherwise."""
    assert train.targets is not None
    classes = train.targets if train.targets.ndim == 1 else np.zeros(len(train.table), dtype=np.int64)
    problems = []
    for fold, rows in dropped.items():
        before = train.is_used & train.has_target & (folds != fold) & ~train.is_extra
        after = before.copy()
        after[rows] = False
        if lost := set(classes[before].tolist()) - set(classes[after].tolist()):
            where = "the training on every row" if fold == ALL_ROWS else f"fold {fold}"
            problems.append(f"{where} would train on no row of {number_of(len(lost), 'class', 'classes')}.")
    return problems
