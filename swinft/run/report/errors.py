"""The error of every out-of-fold prediction, the largest first: `errors.csv`."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from swinft.data.datamodule import CSVDataModule


def row_errors(values: NDArray[np.float32], targets: NDArray[Any], kind: str) -> NDArray[np.float64]:
    """The error of each row (N,).

    It is one minus the true class's probability, the largest absolute difference in units of each target's standard
    deviation, or the largest absolute difference over labels.
    """
    if kind == "classification":
        found: NDArray[np.float64] = 1 - values[np.arange(len(values)), targets].astype(np.float64)
        return found
    scale = targets.std(0) + 1e-12 if kind == "regression" else 1
    errors: NDArray[np.float64] = (np.abs(values.astype(np.float64) - targets) / scale).max(1)
    return errors


def error_table(values: NDArray[np.float32], data: CSVDataModule) -> pd.DataFrame:
    """Id, fold, error, truth and prediction of every scored row, the largest error first."""
    scored = np.flatnonzero(data.is_scored)
    targets, values, outputs = data.targets[scored], values[scored], data.schema.outputs
    columns: dict[str, Any] = {"id": np.array(data.train_table.ids)[scored], "fold": data.fold_of_row[scored]}
    columns["error"] = row_errors(values, targets, data.schema.kind)
    if data.schema.kind == "classification":
        columns |= {"true": np.array(outputs)[targets], "predicted": np.array(outputs)[values.argmax(1)]}
    else:
        columns |= {f"true {name}": targets[:, k] for k, name in enumerate(outputs)}
        columns |= {f"predicted {name}": values[:, k] for k, name in enumerate(outputs)}
    return pd.DataFrame(columns).sort_values("error", ascending=False, kind="stable", ignore_index=True)
