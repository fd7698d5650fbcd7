"""The interface of methods of ensembles, and the rows that they are fitted on.

Shapes: M members, N rows, K outputs, F metadata features.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.target.base import Target

Array = NDArray[np.float64]
Fitted = dict[str, Any]  # plain values, as in JSON


@dataclass(frozen=True)
class Rows:
    """Rows on which a method is fitted.

    Args:
        members: Predictions of each member, (M, N, K), in the competition's units.
        targets: Targets (N, K): 1 for the class of a row; NaN where missing.
        weights: What each row counts, (N,).
        gain: The metric of predictions (N, K) of these rows; higher is better, minus infinity if it is undefined.
        target: The kind of target.
        features: Metadata of the rows, (N, F); None without metadata.
    """

    members: Array
    targets: Array
    weights: Array
    gain: Callable[[Array], float]
    target: Target
    features: Array | None = None


class Method:
    """A method. What it learns are plain values, from which it predicts any rows."""

    name: str
    is_fitted = True
    """Whether it learns from targets; if not, there is nothing to nest."""

    is_automatic = True
    """Whether `auto` tries it."""

    keeps_unit = True
    """Whether its predictions are in the competition's units."""

    is_search = False
    """Whether it searches by scoring rows many times, which takes long for many rows."""

    fewest = 2
    """The fewest members that it combines."""

    def refusal(self, members: Array, target: Target, compares_order: bool) -> str:
        """Why it cannot combine these predictions; empty if it can."""
        return ""

    def fit(self, rows: Rows) -> Fitted:
        """Learns from the targets of some rows."""
        return {}

    def apply(self, fitted: Fitted, members: Array, features: Array | None) -> Array:
        """Predictions (N, K) of any rows, from those of the members, (M, N, K); they may need `Target.valid`."""
        raise NotImplementedError


class Weighted(Method):
    """A weighted mean; the weights are 0 or more and sum to 1."""

    def weights(self, rows: Rows) -> Array:
        """Weights (M,)."""
        raise NotImplementedError

    def fit(self, rows: Rows) -> Fitted:
        """The weights."""
        return {"weights": self.weights(rows).tolist()}

    def apply(self, fitted: Fitted, members: Array, features: Array | None) -> Array:
        """The weighted mean."""
        return np.tensordot(np.array(fitted["weights"]), members, 1)


class PerOutput(Method):
    """A weighted mean of each output, with weights of its own, which are 0 or more and sum to 1."""

    def refusal(self, members: Array, target: Target, compares_order: bool) -> str:
        """There is one output."""
        return "" if members.shape[2] > 1 else "there is one output"

    def weights(self, rows: Rows) -> Array:
        """Weights (M, K)."""
        raise NotImplementedError

    def fit(self, rows: Rows) -> Fitted:
        """The weights."""
        return {"weights_per_output": self.weights(rows).tolist()}

    def apply(self, fitted: Fitted, members: Array, features: Array | None) -> Array:
        """The weighted means; those of classes may not sum to 1."""
        found: Array = np.einsum("mk,mnk->nk", np.array(fitted["weights_per_output"]), members)
        return found
