"""Several predicted rows that are one row of the submission: the images of a breast, the slices of a study.

Shapes: N rows, G groups, K outputs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from swinft.data.sample_rows import group_column
from swinft.data.schema import Schema
from swinft.data.tables.numbers import NUMBER
from swinft.data.tables.table import Table
from swinft.errors import InputError, listed, number_of, suggest
from swinft.inference.predictions import Predictions
from swinft.inference.rules.rule import Values, is_own_of
from swinft.run.submission.sample import Sample

KEY = "submission.group"
How = Literal["mean", "median", "max", "min", "noisy_or", "weighted"]


@dataclass(frozen=True)
class GroupConfig:
    """How the predictions of several rows become one row of the submission.

    Args:
        by: Column of both tables with the id of the submission's row.
        how: `mean`, `median`, `max` or `min` of the predictions; `noisy_or`: one minus the product of one minus each
            probability; `weighted`: mean with the weights in a column. Of two classes, `max`, `min` and `noisy_or` are
            of the second. Probabilities of more classes are divided by their sum afterwards.
        weight: Column of the weights, numbers from 0, for `weighted`.
    """

    by: str
    how: How = "mean"
    weight: str | None = None

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.how not in get_args(How):
            raise InputError(f"{KEY}.how is '{self.how}'.{suggest(str(self.how), get_args(How))}")
        if (self.how == "weighted") != (self.weight is not None):
            raise InputError(f"{KEY}: how: weighted and weight belong together: name the column of the weights.")

    @property
    def columns(self) -> list[str]:
        """The columns that it reads."""
        return [self.by, *([self.weight] if self.weight else [])]

    def refusal(self, schema: Schema) -> str:
        """Why predictions cannot be joined so, as a sentence; empty if they can."""
        if self.how != "noisy_or":
            return ""
        if not schema.base.are_probabilities:
            return "noisy_or is for probabilities, and these outputs are numbers."
        several = schema.base.are_classes and len(schema.outputs) > 2
        return "noisy_or is for labels and for two classes, of which the second is joined." if several else ""


def join_groups(
    config: GroupConfig, predictions: Predictions, rows: pd.DataFrame, schema: Schema
) -> tuple[Predictions, NDArray[np.int64]]:
    """Joins the predictions of each group; of out-of-fold predictions, those of each fold alone.

    Args:
        config: How.
        predictions: Predictions of N rows.
        rows: Their columns `config.columns` as text, in the same order.
        schema: The outputs.

    Returns:
        Predictions of G groups in the order in which they appear, and the number of the first row of each (G,).

    Raises:
        InputError: A row has no group, or a weight is not a number from 0.
    """
    names = rows[config.by].tolist()
    if empty := [id for id, name in zip(predictions.ids, names, strict=True) if not name]:
        raise InputError(f"{KEY}: column '{config.by}' is empty for {number_of(len(empty), 'id')}: {listed(empty, 5)}.")
    folds = np.zeros(len(names), np.int64) if predictions.fold is None else predictions.fold
    members: dict[tuple[str, int], list[int]] = {}
    for row, key in enumerate(zip(names, folds.tolist(), strict=True)):
        members.setdefault(key, []).append(row)
    weights = _weights(config, rows, predictions.ids)
    own = is_own_of(predictions)
    values = predictions.values.astype(np.float64)
    joined = np.empty((len(members), values.shape[1]))
    for group, found in enumerate(members.values()):
        chosen = np.array(found)
        chosen = chosen[own[chosen]] if own[chosen].any() else chosen  # a bad image says nothing about its group
        joined[group] = _joined(config.how, values[chosen], weights[chosen], schema)
    first = np.array([found[0] for found in members.values()], dtype=np.int64)
    fold = None if predictions.fold is None else folds[first]
    ids = [name for name, _ in members]
    status = None if predictions.status is None else [predictions.status[row] for row in first]
    return Predictions(ids, joined.astype(np.float32), predictions.outputs, fold, status), first


def predicted_ids(table: Table, group: GroupConfig | None) -> list[str]:
    """Ids of the rows to predict, or of their groups, each once; those of a column that is missing are not known."""
    if group is None or group.by not in table.columns:
        return table.ids
    return list(dict.fromkeys(table.names(group.by)))


def check_ids(sample: Sample, table: Table, predicted: Sequence[str], group: GroupConfig | None) -> None:
    """Checks that the rows of the sample are the rows to predict, or their groups.

    Raises:
        InputError: They are not.
    """
    wanted, known = set(sample.ids), set(predicted)
    if wanted == known:
        return
    absent, more = [id for id in sample.ids if id not in known], [id for id in predicted if id not in wanted]
    lines = [f"{sample.source} has not the ids of {table.path}{f', column {group.by!r}' if group else ''}:"]
    lines += [f"only the sample has {listed(absent, 5)}"] if absent else []
    lines += [f"only the rows to predict have {listed(more, 5)}"] if more else []
    if group is None and (column := group_column(sample.ids, table)):
        lines.append(
            f"The sample's ids are those of column '{column}': set submission.group: {{by: {column}, how: mean}}."
        )
    elif group is None:
        lines.append("If an id is made of that of a row and an output, set submission.rows: '{id}__{output}'.")
    raise InputError("\n  ".join(lines))


def groups_of_several_targets(names: Sequence[str], targets: NDArray[Any]) -> list[str]:
    """Groups whose rows have different targets: class indices (N,), or numbers (N, K)."""
    first: dict[str, int] = {}
    wrong = dict[str, None]()
    for row, name in enumerate(names):
        if not np.array_equal(targets[first.setdefault(name, row)], targets[row], equal_nan=targets.dtype.kind == "f"):
            wrong[name] = None
    return list(wrong)


def _joined(how: How, values: Values, weights: Values, schema: Schema) -> Values:
    """The prediction of a group (K,)."""
    is_pair = schema.base.are_classes and values.shape[1] == 2
    if how in ("mean", "weighted"):
        return np.average(values, axis=0, weights=weights if weights.sum() > 0 else None)
    join: dict[str, Any] = {"median": np.median, "max": np.max, "min": np.min}
    found: Values = 1 - (1 - values).prod(0) if how == "noisy_or" else join[how](values, axis=0)
    if is_pair:
        return np.array([1 - found[1], found[1]])
    return found / found.sum() if schema.base.are_classes and found.sum() > 0 else found


def _weights(config: GroupConfig, rows: pd.DataFrame, ids: Sequence[str]) -> Values:
    """The weight of each row, (N,)."""
    if config.weight is None:
        return np.ones(len(rows))
    cells = rows[config.weight].tolist()
    wrong = [(id, cell) for id, cell in zip(ids, cells, strict=True) if not NUMBER.fullmatch(cell) or float(cell) < 0]
    if wrong:
        id, cell = wrong[0]
        raise InputError(
            f"{KEY}: column '{config.weight}' is '{cell}' for id '{id}': a weight is a number from 0 "
            f"({number_of(len(wrong), 'such row')})."
        )
    return np.array([float(cell) for cell in cells])
