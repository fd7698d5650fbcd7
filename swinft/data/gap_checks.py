"""Checks that every fold can be trained and scored in spite of missing targets.

Shapes: N rows, K outputs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.folds import Folds
from swinft.data.samples import Rows
from swinft.data.schema import Schema
from swinft.data.tables.table import DataError, Problem, Table
from swinft.data.target.gaps import has_target
from swinft.errors import InputError, listed

SHOWN_LINES = 10  # in a message


def check_gaps(rows: Rows, schema: Schema, folds: Folds) -> None:
    """Checks that every fold has values of every column, and trains on rows with every auxiliary target.

    Raises:
        DataError: A column is empty in a fold; its lines are named.
        InputError: A fold trains on no row with an auxiliary target.
    """
    assert rows.targets is not None
    used = np.flatnonzero(rows.is_used)
    if schema.has_gaps and not schema.base.are_classes:
        table = rows.table.take(used)
        if problems := _empty_column_problems(rows.targets[used], schema.outputs, folds[used], table):
            raise DataError(problems)
    names = [str(each["name"]) for each in schema.auxiliary]
    for fold in range(int(folds.max()) + 1):
        trained = used[folds[used] != fold]
        if without := _untrained_names(names, rows.auxiliary, trained):
            raise InputError(
                f"fold {fold} trains on no row with the auxiliary target {listed(without)}: give more rows a value "
                f"in its columns, or remove it from data.columns.auxiliary."
            )


def _empty_column_problems(
    targets: NDArray[Any], outputs: Sequence[str], folds: NDArray[np.int64], table: Table
) -> list[Problem]:
    """Columns that have no value in a fold, or none in the rows that a fold trains on; with the lines that have one.

    Args:
        targets: Float (N, K), NaN where one is missing.
        outputs: Names of the K outputs.
        folds: Fold of each row, int64 (N,); negative for rows that no fold scores.
        table: The N rows.
    """
    problems = []
    for k, name in enumerate(outputs):
        is_known = ~np.isnan(targets[:, k])
        if is_known.all():
            continue
        held_out = [fold for fold in range(int(folds.max()) + 1) if not is_known[folds == fold].any()]
        untrained = [fold for fold in range(int(folds.max()) + 1) if not is_known[folds != fold].any()]
        lines = table.lines[np.flatnonzero(is_known)]
        shown = ", ".join(str(line) for line in lines[:SHOWN_LINES].tolist())
        shown += f" and {len(lines) - SHOWN_LINES:,} more" if len(lines) > SHOWN_LINES else ""
        where = f"it has values on {'line' if len(lines) == 1 else 'lines'} {shown}" if len(lines) else "it has none"
        fix = "Lower data.folds.num, give more rows a value, or remove the column from data.target."
        for which, what in ((held_out, "is empty in"), (untrained, "is empty in what is trained on without")):
            if which:
                folds_named = f"{'fold' if len(which) == 1 else 'folds'} {', '.join(map(str, which))}"
                problems.append(Problem(str(table.path), f"the column {what} {folds_named}; {where}", fix, column=name))
    return problems


def _untrained_names(names: Sequence[str], targets: Sequence[NDArray[Any]], rows: NDArray[np.int64]) -> list[str]:
    """Auxiliary targets that none of the rows has that a fold trains on.

    Args:
        names: Names of the auxiliary targets.
        targets: Those of all rows, (N, …) each.
        rows: The rows that the fold trains on.
    """
    return [name for name, each in zip(names, targets, strict=True) if not has_target(each[rows]).any()]
