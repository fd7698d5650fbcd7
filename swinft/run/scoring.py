"""Scores predictions of training rows; custom metrics also get the table's columns."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.datamodule import CSVDataModule
from swinft.model.metrics import Metric
from swinft.model.scoring import is_custom, score


def score_rows(
    metrics: Sequence[str | Metric], data: CSVDataModule, rows: NDArray[np.int64], values: NDArray[np.float32]
) -> dict[str, float]:
    """Every metric's value.

    Args:
        metrics: Names, and custom metrics.
        data: Set up for the training rows.
        rows: Numbers of N training rows.
        values: Their predictions (N, K).

    Raises:
        InputError: A custom metric fails.
    """
    reads = any(not isinstance(metric, str) and is_custom(metric) for metric in metrics)
    table = data.train_table.frame(rows.tolist()) if reads else None
    schema, weights = data.schema, data.score_weights
    given: dict[str, Any] = {"outputs": schema.outputs, "rows": table}
    given |= {"weights": None if weights is None else weights[rows]}
    return score(metrics, schema.kind, values, data.targets[rows], schema.grades, **given)
