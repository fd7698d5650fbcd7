"""Scores predictions of training rows, by metrics that may read the table's columns."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.datamodule import CSVDataModule
from swinft.model.scoring import chosen_metrics, reads_table, score
from swinft.run.experiment import Experiment
from swinft.run.inputs import check_inputs
from swinft.run.layout import Run

Values = NDArray[np.floating[Any]]


def training_rows(run: Run, experiment: Experiment) -> CSVDataModule:
    """A run's datamodule, set up with the training rows; no image is read.

    Raises:
        InputError: The training table has changed since the run's start.
    """
    check_inputs(run, experiment.config, ("train",))
    data = experiment.datamodule(run)
    data.image_files.use_known_cache("")
    data.setup("fit")
    return data


def score_rows(
    metrics: Sequence[Any], data: CSVDataModule, rows: NDArray[np.int64], values: NDArray[np.float32]
) -> dict[str, float]:
    """Every metric's value.

    Args:
        metrics: Names, mappings of a name to its arguments, and metrics.
        data: Set up for the training rows.
        rows: Numbers of N training rows.
        values: Their predictions (N, K).

    Raises:
        InputError: A custom metric fails.
    """
    return row_scorer(metrics, data, rows)(values, None)


def row_scorer(metrics: Sequence[Any], data: CSVDataModule, rows: NDArray[np.int64]) -> Callable[..., dict[str, float]]:
    """A function that scores predictions of some of the rows, as often as needed: the table is read once.

    Args:
        metrics: Names, mappings of a name to its arguments, and metrics.
        data: Set up for the training rows.
        rows: Numbers of N training rows.

    Returns:
        A function of predictions (n, K), of their positions (n,) among `rows`, None for all of them, and of the names
        of the outputs, None for those of the run.
    """
    schema, targets = data.schema, data.targets[rows]
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
