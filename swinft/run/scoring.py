"""Predictions of training rows are scored: with the table's columns where a metric of the user's own may read them."""

from collections.abc import Sequence

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
        metrics: Names, and metrics of the user's own.
        data: Set up for the training rows.
        rows: Numbers of N training rows.
        values: Their predictions (N, K).

    Raises:
        InputError: A metric of the user's own fails.
    """
    reads = any(not isinstance(metric, str) and is_custom(metric) for metric in metrics)
    table = data.train_table.frame(rows.tolist()) if reads else None
    schema = data.schema
    return score(metrics, schema.kind, values, data.targets[rows], schema.grades, outputs=schema.outputs, rows=table)
