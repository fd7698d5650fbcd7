"""Scores predictions of training rows, by metrics that may read the table's columns."""

import copy
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.datamodule import CSVDataModule
from swinft.inference.maps import Maps
from swinft.model.metrics import BuiltinMetric
from swinft.model.scoring import chosen_metrics, reads_table, score
from swinft.run.experiment import Experiment
from swinft.run.inputs import check_inputs
from swinft.run.layout import Run
from swinft.run.mask_counts import MaskCounts, MaskDecision, count_pixels

Values = NDArray[np.floating[Any]]


def training_rows(run: Run, experiment: Experiment) -> CSVDataModule:
    """A run's datamodule, set up with the training rows; no image is read, and none needs to be there.

    Raises:
        InputError: The training table has changed since the run's start.
    """
    check_inputs(run, experiment.config, ("train",))
    data = experiment.datamodule(run, needs_images=False)
    data.setup("fit")
    return data


def score_rows(
    metrics: Sequence[Any],
    data: CSVDataModule,
    rows: NDArray[np.int64],
    values: NDArray[np.float32] | Maps | MaskCounts,
) -> dict[str, float]:
    """Every metric's value.

    Args:
        metrics: Names, mappings of a name to its arguments, and metrics.
        data: Set up for the training rows.
        rows: Numbers of N training rows.
        values: Their predictions (N, K), or maps, of which pixels from 0.5 are in a mask, or their pixels counted.

    Raises:
        InputError: A custom metric fails.
    """
    if isinstance(values, Maps):
        masks = data.splits.train.masks
        assert masks is not None
        values = count_pixels(values, masks, rows, data.settings.loading.resize)
    if not isinstance(values, MaskCounts):
        return row_scorer(metrics, data, rows)(values, None)
    decision = MaskDecision.default(values.true.shape[1])
    return row_scorer(metrics, data, rows, values.true)(values.decided(decision), None)


def scores_by_fold(
    metrics: Sequence[Any], data: CSVDataModule, rows: NDArray[np.int64], values: NDArray[np.float32]
) -> dict[str, Any]:
    """What scores.json holds of predictions that no training made: pooled scores, those of each fold, their spread.

    Args:
        metrics: As for `score_rows`.
        data: Set up for the training rows.
        rows: Numbers of N training rows.
        values: Their predictions (N, K).
    """
    folds, pooled = [], score_rows(metrics, data, rows, values)
    for fold in np.unique(data.fold_of_row[rows]).tolist():
        inside = data.fold_of_row[rows] == fold
        found = score_rows(metrics, data, rows[inside], values[inside])
        folds.append({"fold": fold, "rows": int(inside.sum()), "oof": found})
    spread = {name: float(np.std([each["oof"][name] for each in folds])) for name in pooled}
    spread = spread if len(folds) > 1 else dict.fromkeys(pooled, math.nan)
    return {"pooled": pooled, "spread": spread, "folds": folds, "rows": len(rows)}


def row_scorer(
    metrics: Sequence[Any], data: CSVDataModule, rows: NDArray[np.int64], of_masks: NDArray[np.int64] | None = None
) -> Callable[..., dict[str, float]]:
    """A function that scores predictions of some of the rows, as often as needed: the table is read once.

    Args:
        metrics: Names, mappings of a name to its arguments, and metrics.
        data: Set up for the training rows.
        rows: Numbers of N training rows.
        of_masks: Their targets, if these are pixels of masks; None for those of the table.

    Returns:
        A function of predictions (n, K), of their positions (n,) among `rows`, None for all of them, and of the names
        of the outputs, None for those of the run.
    """
    schema, targets = data.schema, data.targets[rows] if of_masks is None else of_masks
    chosen_ones = chosen_metrics(metrics, schema.kind)
    table = data.train_table.frame(rows.tolist()) if reads_table(chosen_ones) else None
    weights = None if data.score_weights is None else data.score_weights[rows]
    unseen = data.splits.unseen
    of_rows = {"weights": weights, "unseen": None if unseen is None else unseen[rows]}

    def scored(
        values: Values, chosen: NDArray[np.int64] | None, outputs: Sequence[str] | None = None
    ) -> dict[str, float]:
        given: dict[str, Any] = {"outputs": outputs or schema.outputs, "rows": table, **of_rows}
        if chosen is None:
            return score(chosen_ones, schema.kind, values, targets, schema.grades, **given)
        given |= {} if table is None else {"rows": table.iloc[chosen].reset_index(drop=True)}
        given |= {name: None if each is None else each[chosen] for name, each in of_rows.items()}
        return score(chosen_ones, schema.kind, values, targets[chosen], schema.grades, **given)

    return scored


def undefined_outputs(metrics: Sequence[Any], data: CSVDataModule, rows: NDArray[np.int64]) -> dict[str, list[str]]:
    """Outputs that do not count in a metric, since it is undefined for their targets; only metrics with such outputs.

    Args:
        metrics: As for `row_scorer`.
        data: Set up for the training rows.
        rows: Numbers of the rows that are scored.
    """
    found = {}
    for metric in chosen_metrics(metrics, data.schema.kind):
        if isinstance(metric, BuiltinMetric) and type(metric).undefined_outputs is not BuiltinMetric.undefined_outputs:
            told = copy.copy(metric)
            told.outputs = data.schema.outputs
            found[metric.name] = told.undefined_outputs(data.targets[rows])
    return {name: outputs for name, outputs in found.items() if outputs}
