"""Rows that lack some of their targets: −1 for a class, NaN for numbers, labels and soft targets.

Shapes: N rows, K outputs.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.tables.table import Problem
from swinft.data.target.base import Target, TargetCells, missing_targets


def has_target(targets: NDArray[Any]) -> NDArray[np.bool_]:
    """Rows with a class, or with at least one number, bool (N,)."""
    if targets.dtype.kind == "i":
        found: NDArray[np.bool_] = targets >= 0
    else:
        found = ~np.isnan(targets).all(1)
    return found


def encode_known(
    kind: Target,
    cells: TargetCells,
    outputs: Sequence[str],
    problems: list[Problem],
    notes: list[str] | None = None,
    is_answer: bool = False,
) -> NDArray[Any]:
    """The targets as `kind.encode` gives them, with −1 or NaN where a cell is missing.

    Several numbers or labels may be missing individually; soft targets are missing as a whole if one cell is.

    Args:
        kind: One of swinft's kinds.
        cells: Where the targets stand.
        outputs: Names of the K outputs.
        problems: Whatever is wrong with the cells that are not missing is appended.
        notes: As in `kind.encode`.
        is_answer: Whether the table is another one than the training table, as for `kind.encode_answers`: it must not
            have other classes, and a column may be empty.
    """
    encode: Any = kind.encode_answers if is_answer else partial(kind.encode, notes=notes)
    if cells.delimiter is not None:  # an empty cell has no label
        found: NDArray[Any] = encode(cells, outputs, problems)
        return found
    is_whole = kind.are_classes
    parts = []
    for columns in [cells.columns] if is_whole else [[name] for name in cells.columns]:
        is_missing = missing_targets(cells.table, columns, cells.rules)
        part = all_missing(kind, len(cells.table), len(outputs) if is_whole else 1)
        if not is_missing.all():
            known = TargetCells(cells.table.only(columns).take(np.flatnonzero(~is_missing)), columns, None, cells.rules)
            part[~is_missing] = encode(known, outputs if is_whole else columns, problems)
        elif not is_answer:
            fix = "Name another column, or correct data.columns.missing_words."
            problems.append(Problem(str(cells.table.path), "no row has a value", fix, column=", ".join(columns)))
        parts.append(part)
    return parts[0] if is_whole else np.concatenate(parts, axis=1)


def encode_other(
    kind: Target, cells: TargetCells, outputs: Sequence[str], problems: list[Problem], has_gaps: bool
) -> NDArray[Any]:
    """Targets of another table than the training table, some of which may be missing if `has_gaps`."""
    if has_gaps:
        return encode_known(kind, cells, outputs, problems, is_answer=True)
    return kind.encode_answers(cells, outputs, problems)


def all_missing(kind: Target, num_rows: int, num_outputs: int) -> NDArray[Any]:
    """Targets of N rows that have none: −1 (N,), or NaN (N, K)."""
    are_indices = kind.are_classes and not kind.is_soft
    return np.full(num_rows, -1) if are_indices else np.full((num_rows, num_outputs), np.nan, np.float32)


def with_skipped(values: NDArray[Any], skipped: Mapping[int, str]) -> NDArray[Any]:
    """Inserts −1 or NaN for each skipped row, so that accidental use is visible."""
    num_rows = len(values) + len(skipped)
    filler = -1 if values.dtype.kind == "i" else np.nan
    whole = np.full((num_rows, *values.shape[1:]), filler, dtype=values.dtype)
    whole[[row for row in range(num_rows) if row not in skipped]] = values
    return whole
