"""Models on embeddings by name, and gradient boosting.

Shapes: N rows, I inputs, K outputs.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swinft.data.target.base import Target
from swinft.run.embed.inputs import Array, Arrays
from swinft.run.embed.linear import SVR, Logistic, Ridge
from swinft.run.embed.model import Learnt, Model
from swinft.run.embed.neighbours import KNN, Retrieval
from swinft.run.ensemble.boosting import Boosting
from swinft.run.ensemble.engines import EngineName
from swinft.run.ensemble.method import Rows


@dataclass(frozen=True)
class Trees(Model):
    """Gradient boosting, as of ensembles: trees of each output.

    Args:
        normalize: As of `Scaling`.
        standardize: As of `Scaling`.
        pca: As of `Scaling`; trees of fewer inputs are faster.
        engine: `lightgbm`, `xgboost` or `catboost`.
    """

    name = "gbdt"

    standardize: bool = False
    engine: EngineName = "lightgbm"

    def refusal(self, target: Target, has_metadata: bool) -> str:
        """The library is not installed."""
        return Boosting(self.engine).refusal(np.empty((0, 0, 0)), target, False)

    def fit(self, inputs: Array, rows: Learnt) -> Arrays:
        """The trees as text, or a constant."""
        given = Rows(inputs[None], rows.targets, rows.weights, lambda values: 0.0, rows.target)
        found = Boosting(self.engine).fit(given)
        texts = {f"trees.{k}": _bytes(tree) for k, tree in enumerate(found["trees"]) if isinstance(tree, str)}
        constants = [np.nan if isinstance(tree, str) else float(tree) for tree in found["trees"]]
        kind = np.array(found["are_probabilities"])
        return {**texts, "constants": np.array(constants), "width": np.array(inputs.shape[1]), "is_probability": kind}

    def apply(self, learned: Arrays, inputs: Array) -> Array:
        """The trees' predictions."""
        trees = [
            bytes(learned[f"trees.{k}"]).decode() if np.isnan(value) else float(value)
            for k, value in enumerate(learned["constants"])
        ]
        fitted = {"trees": trees, "features": learned["width"].item(), "engine": self.engine}
        fitted["are_probabilities"] = learned["is_probability"].item()
        return Boosting().apply(fitted, inputs[None], None)


def _bytes(text: str) -> NDArray[np.uint8]:
    return np.frombuffer(text.encode(), dtype=np.uint8)


MODELS: dict[str, type[Model]] = {each.name: each for each in (SVR, Ridge, Logistic, KNN, Retrieval, Trees)}
