"""Notes on columns that look right and may be wrong: metadata that gives the target away, groups of one row each.

Shapes: N rows, F metadata features.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.samples import Rows
from swinft.data.schema import Schema

ROWS_PER_VALUE = 5  # of a column that is said to give a class away: fewer rows may agree by chance
FEWEST_ROWS = 10  # that are compared with numbers
FIRST = 1_000  # rows that are compared before all are: most columns differ there
SAME = 1 - 1e-6  # correlation of two columns that say the same; both are float32


def column_notes(rows: Rows, schema: Schema, target: Sequence[str], group: str | None) -> list[str]:
    """Notes on the target and on other columns of the training table, one line each.

    Args:
        rows: The training rows.
        schema: Their schema.
        target: Names of the target's columns.
        group: Name of the column of groups; None without groups.
    """
    assert rows.targets is not None
    answered = rows.is_used & rows.has_target
    notes = list(schema.target.notes(rows.targets[answered], schema.outputs))
    chosen = np.flatnonzero(answered & ~rows.is_extra)
    if group and rows.groups and len({rows.groups[row] for row in chosen}) == len(chosen):
        notes.append(
            f"{rows.table.path}: column '{group}': each row has a group of its own, so data.folds.group keeps no rows "
            f"together."
        )
    if rows.features is None or schema.base.are_maps:
        return notes
    targets = rows.targets[chosen]
    named = target if len(target) == 1 and schema.base.are_classes else schema.outputs
    for name, values, is_category in _columns(rows.features[chosen], schema):
        if is_category and len(chosen) > 1 and len(np.unique(values)) == len(chosen):
            notes.append(
                f"{rows.table.path}: column '{name}': each row has a category of its own, which tells nothing of other "
                f"rows."
            )
        answers = targets[:, None] if targets.ndim == 1 else targets
        found = [k for k in range(answers.shape[1]) if _gives_away(values, answers[:, k], schema, is_category)]
        if found:
            what = ", ".join(f"'{named[k]}'" for k in found)
            notes.append(
                f"{rows.table.path}: column '{name}' gives {what} away in every row: if it is made from the target, "
                f"remove it from the metadata, as the scores say nothing then."
            )
    return notes


def _columns(features: NDArray[np.float32], schema: Schema) -> Iterator[tuple[str, NDArray[Any], bool]]:
    """Each metadata column with its values (N,), numbers or codes, and whether these are categories."""
    for k, name in enumerate(schema.numeric_features):
        yield name, features[:, k], False
    start = len(schema.numeric_features)
    for name, size in zip(schema.categories, schema.category_sizes, strict=True):
        block = features[:, start : start + size]
        yield name, np.where(block.any(1), block.argmax(1), -1), True
        start += size


def _gives_away(values: NDArray[Any], answers: NDArray[Any], schema: Schema, is_category: bool) -> bool:
    """Whether a column says what the target is, class by class, or as a line of numbers."""
    known = np.flatnonzero(np.isfinite(answers) & np.isfinite(values))
    of_classes = schema.base.are_probabilities and not schema.base.is_soft
    if not of_classes and is_category:
        return False
    holds = _is_pure if of_classes else _is_line
    return holds(values[known[:FIRST]], answers[known[:FIRST]], 1) and holds(
        values[known], answers[known], ROWS_PER_VALUE
    )


def _is_pure(values: NDArray[Any], answers: NDArray[Any], rows_per_value: int) -> bool:
    """Whether all rows of each value are of one class, and values have at least so many rows on average."""
    distinct, codes = np.unique(values, return_inverse=True)
    classes, of_row = np.unique(answers, return_inverse=True)
    pairs = len(np.unique(codes * len(classes) + of_row))
    varies = rows_per_value == 1 or min(len(distinct), len(classes)) > 1
    return varies and pairs == len(distinct) and len(distinct) * rows_per_value <= len(values)


def _is_line(values: NDArray[Any], answers: NDArray[Any], rows_per_value: int) -> bool:
    """Whether two columns of numbers are one, but for a factor and a constant."""
    if len(values) < FEWEST_ROWS:
        return False
    one, other = (each.astype(np.float64) - each.mean(dtype=np.float64) for each in (values, answers))
    size = np.sqrt(np.square(one).sum() * np.square(other).sum())
    return bool(size > 0 and abs((one * other).sum()) >= SAME * size)
