"""The error of every out-of-fold prediction, the largest first: `errors.csv`."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from swinft.data.datamodule import CSVDataModule
from swinft.inference.predictions import rows_of


def error_table(
    values: NDArray[np.float32], data: CSVDataModule, more: Mapping[str, Any] | None = None
) -> pd.DataFrame:
    """Id, fold, error, truth and prediction of every scored row, the largest error first.

    Args:
        values: Out-of-fold predictions of the training table, (N, K).
        data: The run's datamodule after `setup("fit")`.
        more: Further columns of the scored rows, by their names; one whose name an output has is left out.
    """
    scored = np.flatnonzero(data.is_scored)
    targets, values, outputs = data.targets[scored], rows_of(values, scored), data.schema.outputs
    columns: dict[str, Any] = {"id": np.array(data.train_table.ids)[scored], "fold": data.fold_of_row[scored]}
    columns["error"] = data.schema.target.row_errors(values, targets)
    columns |= data.schema.target.error_columns(values, targets, outputs)
    columns |= {name: each for name, each in (more or {}).items() if name not in columns}
    return pd.DataFrame(columns).sort_values("error", ascending=False, kind="stable", ignore_index=True)
