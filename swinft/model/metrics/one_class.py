"""Metrics of one class against all others, or of one label: what its scores and its rows are."""

from collections.abc import Sequence

import numpy as np

from swinft.errors import InputError, listed
from swinft.model.heads.base import takes_classes
from swinft.model.metrics.base import CLASSES, LABELS, Array, BuiltinMetric, check_binary

POSITIVE = ("1", "true", "yes")  # the positive one of two classes that are named like this


class OneClassMetric(BuiltinMetric):
    """Base of metrics of one class or label.

    Args:
        positive: The class or label that counts as positive. None for the only label, or the class 1, true or yes of
            two; other names need it.
    """

    kinds = (*CLASSES, *LABELS)
    gaps = "own"

    def __init__(self, positive: str | None = None) -> None:
        self.positive = None if positive is None else self._name("positive", positive)

    def refusal(self, kind: str) -> str:
        """An unknown class, or several that may be meant."""
        if self.positive is not None:
            return self._unknown([self.positive])
        if self._position(self.outputs) is not None or not self.outputs:
            return ""
        what = "class" if takes_classes(kind) else "label"
        return f"it scores one {what}, and there are {listed(self.outputs)}: set positive to one of them."

    def of_one(self, predictions: Array, targets: Array) -> tuple[Array, Array, Array | None]:
        """Scores float64 (n,), positive rows bool (n,), and weights (n,) of the rows whose target is known.

        Raises:
            InputError: It is not clear which class, or a label's target is neither 0 nor 1.
        """
        named = self.outputs or [str(k) for k in range(predictions.shape[1])]  # without a table: the last of two
        place = self._position(named)
        if place is None:
            raise InputError(f"{self.name} scores one class or label of {listed(named)}: set `positive`.")
        scores, labels = predictions[:, place], targets == place if targets.ndim == 1 else targets[:, place]
        known = np.ones(len(labels), dtype=bool) if targets.ndim == 1 else ~np.isnan(targets[:, place])
        check_binary(self.name, labels[known])
        weights = None if self.weights is None else self.weights[known]
        return scores[known], labels[known] > 0.5, weights

    def _position(self, outputs: Sequence[str]) -> int | None:
        """Position of the positive class or label; None if it is not clear."""
        if self.positive is not None:
            return list(outputs).index(self.positive) if self.positive in outputs else None
        if len(outputs) == 1:
            return 0
        found = [k for k, name in enumerate(outputs) if name.casefold() in POSITIVE]
        return found[0] if len(outputs) == 2 and len(found) == 1 else None
