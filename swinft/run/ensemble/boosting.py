"""Gradient boosting by LightGBM on the predictions of members and the metadata columns.

Shapes: M members, N rows, K outputs, F metadata features.
"""

from importlib.util import find_spec
from typing import Any

import numpy as np

from swinft.data.target.base import Target
from swinft.errors import InputError
from swinft.run.ensemble.method import Array, Fitted, Method, Rows

# Small trees and few rounds: the inputs are predictions, and there is no second held-out part to stop by.
ROUNDS = 150
PARAMETERS: dict[str, Any] = {
    "learning_rate": 0.05,
    "num_leaves": 7,
    "min_data_in_leaf": 20,
    "feature_fraction": 0.8,
    "lambda_l2": 1.0,
    "verbosity": -1,
    # The same trees on every machine and for any number of cores.
    "seed": 0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
}


class Boosting(Method):
    """Gradient boosting: an ensemble of trees for each output."""

    name, is_automatic, fewest = "gbdt", False, 1

    def refusal(self, members: Array, target: Target, compares_order: bool) -> str:
        """LightGBM is not installed."""
        return "" if find_spec("lightgbm") else "it needs LightGBM: pip install 'swinft[gbdt]'"

    def fit(self, rows: Rows) -> Fitted:
        """The trees as text; for an output without two different targets, its mean."""
        import lightgbm  # optional

        columns = inputs(rows.members, rows.features)
        objective = "cross_entropy" if rows.target.are_probabilities else "regression"
        trees: list[str | float] = []
        for wanted in rows.targets.T:
            known = ~np.isnan(wanted) & (rows.weights > 0)
            if len(np.unique(wanted[known])) < 2:
                trees.append(float(wanted[known].mean()) if known.any() else 0.0)
                continue
            data = lightgbm.Dataset(columns[known], wanted[known], weight=rows.weights[known])
            trees.append(lightgbm.train({**PARAMETERS, "objective": objective}, data, ROUNDS).model_to_string())
        return {"trees": trees, "features": columns.shape[1]}

    def apply(self, fitted: Fitted, members: Array, features: Array | None) -> Array:
        """The trees' predictions."""
        import lightgbm

        columns = inputs(members, features)
        if columns.shape[1] != fitted["features"]:
            raise InputError(
                f"the ensemble's trees have {fitted['features']} inputs, and the rows have {columns.shape[1]}: the "
                f"metadata columns have changed. Run `swinft ensemble` again."
            )
        found = [
            np.full(len(columns), trees)
            if isinstance(trees, float)
            else np.asarray(lightgbm.Booster(model_str=trees).predict(columns, num_threads=1))
            for trees in fitted["trees"]
        ]
        return np.stack(found, 1).astype(np.float64)


def inputs(members: Array, features: Array | None) -> Array:
    """The columns that trees see: each member's outputs, then the metadata, (N, M · K + F)."""
    flat = np.concatenate(list(members), 1)
    return flat if features is None else np.concatenate([flat, features], 1)
