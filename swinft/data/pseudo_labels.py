"""Pseudo-labels: rows of extra tables without targets get what another run's networks predict for them.

Shapes: N training rows with those of extra tables, n rows of one of them, K outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.fold_settings import ExtraTable
from swinft.data.samples import Rows
from swinft.data.schema import Schema
from swinft.errors import InputError

AWAITS = "no label yet"  # why a row is skipped until its fold gets labels


@dataclass(frozen=True, eq=False)
class PseudoLabels:
    """Predictions for the rows of an extra table.

    Args:
        table: Its settings.
        rows: The rows among all training rows, int64 (n,).
        values: Predictions in the competition's units, float32 (n, K).
    """

    table: ExtraTable
    rows: NDArray[np.int64]
    values: NDArray[np.float32]

    def is_confident(self, schema: Schema) -> NDArray[np.bool_]:
        """Which rows are trained on, bool (n,)."""
        least, found = self.table.min_confidence, schema.base.confidence(self.values)
        if least is None or found is None:
            return np.ones(len(self.rows), dtype=bool)
        return np.asarray(found >= np.float32(least))


def rows_to_label(train: Rows, extra: Sequence[ExtraTable]) -> dict[int, NDArray[np.int64]]:
    """The rows of each extra table that gets labels, by the table's number from 0; skipped ones are left out."""
    parts = train.table.part_of_row
    if parts is None:
        return {}
    waiting = np.array([train.skipped.get(row, AWAITS) == AWAITS for row in range(len(train.table))])
    return {k: np.flatnonzero((parts == k + 1) & waiting) for k, each in enumerate(extra) if each.labels}


def awaiting_labels(train: Rows, extra: Sequence[ExtraTable]) -> Rows:
    """The same with the rows marked as skipped that have no labels yet."""
    waiting = [row for rows in rows_to_label(train, extra).values() for row in rows.tolist()]
    return replace(train, skipped={**train.skipped, **dict.fromkeys(waiting, AWAITS)}) if waiting else train


def check_labelled(train: Rows) -> None:
    """Checks that no row waits for a label.

    Raises:
        InputError: One does: its labels are predicted by a command.
    """
    if AWAITS in train.skipped.values():
        raise InputError(
            "data.folds.extra.labels names a run whose networks label the rows of a table before a fold trains, in "
            "`swinft fit` alone. Elsewhere remove the table, or give it targets."
        )


def with_labels(train: Rows, schema: Schema, found: Sequence[PseudoLabels]) -> Rows:
    """The training rows of a fold with the labels of its extra tables.

    Rows whose labels are less confident than their table asks for stay skipped.

    Args:
        train: The N rows.
        schema: Of the training table.
        found: The labels, by table.
    """
    kind, skipped = schema.base, dict(train.skipped)
    targets, weights = np.array(train.targets), train.weights
    for each in found:
        targets[each.rows] = kind.hardened(_inside(each.values, schema))
        confident = each.is_confident(schema)
        for row, is_used in zip(each.rows.tolist(), confident.tolist(), strict=True):
            skipped.pop(row, None)
            if not is_used:
                skipped[row] = f"confidence below {each.table.min_confidence:g}"
        if each.table.weight == "confidence":
            weights = np.ones(len(targets), np.float32) if weights is None else weights.copy()
            weights[each.rows] *= _known(kind.confidence(each.values))
    soft = [each for each in found if each.table.kind == "soft"] if kind.are_probabilities else []
    learnt: NDArray[Any] | None = _softened(targets, len(schema.outputs)) if soft else None
    for each in soft:
        assert learnt is not None
        learnt[each.rows] = each.values
    return replace(train, targets=targets, weights=weights, skipped=skipped, soft=learnt)


def _inside(values: NDArray[np.float32], schema: Schema) -> NDArray[np.float32]:
    """Numbers inside the range of the training targets, which a head may be limited to; others are unchanged."""
    if not schema.ranges:
        return values
    low, high = np.array(schema.ranges, np.float32).T
    return np.clip(values, low, high)


def _softened(targets: NDArray[Any], num_outputs: int) -> NDArray[np.float32]:
    """Targets as soft ones, float32 (N, K); NaN where there is none."""
    if targets.dtype.kind != "i":
        return targets.astype(np.float32)
    found: NDArray[np.float32] = np.eye(num_outputs, dtype=np.float32)[targets]
    found[targets < 0] = np.nan
    return found


def _known(confidence: NDArray[np.float32] | None) -> NDArray[np.float32]:
    assert confidence is not None  # refused with the settings
    return confidence
