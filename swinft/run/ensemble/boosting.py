"""Gradient boosting on the predictions of members and the metadata columns.

Shapes: M members, N rows, K outputs, F metadata features.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from swinft.data.target.base import Target
from swinft.errors import InputError
from swinft.run.ensemble.engines import ENGINES, EXTRAS, EngineName, grow, is_installed, predict
from swinft.run.ensemble.method import Array, Fitted, Method, Rows


class Boosting(Method):
    """Gradient boosting: trees for each output.

    Args:
        engine: The library that grows them; what was learned by another one is applied all the same.
    """

    name, is_automatic, fewest = "gbdt", False, 1

    def __init__(self, engine: EngineName = ENGINES[0]) -> None:
        self.engine = engine

    def refusal(self, members: Array, target: Target, compares_order: bool) -> str:
        """The library is not installed."""
        return (
            "" if is_installed(self.engine) else f"it needs {self.engine}: pip install 'swinft[{EXTRAS[self.engine]}]'"
        )

    def fit(self, rows: Rows) -> Fitted:
        """The trees as text; for an output without two different targets, its mean."""
        columns, are_probabilities = inputs(rows.members, rows.features), rows.target.are_probabilities
        trees: list[str | float] = []
        for wanted in rows.targets.T:
            known = ~np.isnan(wanted) & (rows.weights > 0)
            if len(np.unique(wanted[known])) < 2:
                trees.append(float(wanted[known].mean()) if known.any() else 0.0)
                continue
            trees.append(grow(self.engine, columns[known], wanted[known], rows.weights[known], are_probabilities))
        found = {"engine": self.engine, "are_probabilities": are_probabilities}
        return {**found, "trees": trees, "features": columns.shape[1]}

    def apply(self, fitted: Fitted, members: Array, features: Array | None) -> Array:
        """The trees' predictions.

        Raises:
            InputError: The rows have other metadata columns than those of the fit.
        """
        columns = inputs(members, features)
        if columns.shape[1] != fitted["features"]:
            raise InputError(
                f"the ensemble's trees have {fitted['features']} inputs, and the rows have {columns.shape[1]}: the "
                f"metadata columns have changed. Run `swinft ensemble` again."
            )
        engine, are_probabilities = engine_of(fitted), bool(fitted.get("are_probabilities"))
        found = [
            np.full(len(columns), trees)
            if isinstance(trees, float)
            else predict(engine, trees, columns, are_probabilities)
            for trees in fitted["trees"]
        ]
        return np.stack(found, 1).astype(np.float64)


def engine_of(fitted: Mapping[str, Any]) -> EngineName:
    """The library of fitted trees."""
    found: EngineName = fitted.get("engine", ENGINES[0])  # ensembles of before there were several name none
    return found


def inputs(members: Array, features: Array | None) -> Array:
    """The columns that trees see: each member's outputs, then the metadata, (N, M · K + F)."""
    flat = np.concatenate(list(members), 1)
    return flat if features is None else np.concatenate([flat, features], 1)
