"""Predictions that no run wrote: a blend, or those of another program."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swinft.data.schema import Schema
from swinft.data.tables.csv_lines import UnreadableError, read_bytes, rows_of
from swinft.data.tables.numbers import numbers
from swinft.data.tables.table import DataError, Problem, Table, read_table
from swinft.data.tables.text import normal
from swinft.errors import suggest
from swinft.inference.predictions import FOLD, STATUS, Predictions


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
        return [normal(name) for name in next(rows_of(read_bytes(path), path, outputs, "utf-8")[0])[0]]
    except UnreadableError:  # said by what reads the table
        return []


def _id_column(path: Path, names: Sequence[str], outputs: Sequence[str]) -> str:
    """The first of the names in a CSV's header; if there is none, the first name, whose absence is an error later."""
    known = header(path, outputs)
    return next((name for name in names if name in known), names[0])
