"""Metrics of the values of probabilities.

Shapes: N rows, K classes or labels.
"""

import math
from typing import Any

import numpy as np

from swinft.model.metrics.base import CLASSES, LABELS, Array, BuiltinMetric, check_binary

EPS = float(np.finfo(np.float64).eps)  # scikit-learn's clip in float64
KAGGLE_EPS = 1e-15


class ProbabilityMetric(BuiltinMetric):
    """Base of metrics of probabilities of classes, hard or soft."""

    kinds = CLASSES
    higher_is_better = False
    wants_probabilities = True
    needs_probabilities = True
    scores_soft = True


class LogLoss(ProbabilityMetric):
    """Mean negative log probability of the true class, clipped at 2.2e-16, as scikit-learn does in float64.

    With soft targets, the mean cross-entropy.
    """

    name = "log_loss"

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        return float(np.average(losses_of(predictions, targets, EPS), weights=self.weights))


class KaggleLogLoss(ProbabilityMetric):
    """Log loss as Kaggle's classic scorer has it: each row is divided by its sum, then clipped at 1e-15.

    Undefined if a row's sum is 0. With soft targets, the mean cross-entropy.
    """

    name = "kaggle_log_loss"

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        sums = predictions.sum(1, keepdims=True)
        if not (sums > 0).all():
            return math.nan
        return float(np.average(losses_of(predictions / sums, targets, KAGGLE_EPS), weights=self.weights))


class KLDivergence(ProbabilityMetric):
    """Mean Kullback-Leibler divergence of the probabilities from soft targets, clipped at 1e-15.

    Without soft targets, it is the log loss.
    """

    name = "kl_divergence"
    needs_sum_one = True

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        eps = 1e-15
        soft = np.eye(predictions.shape[1])[targets] if targets.ndim == 1 else targets
        ratios = np.log(np.clip(soft, eps, None)) - np.log(np.clip(predictions, eps, 1))
        return float(np.average((soft * ratios).sum(1), weights=self.weights))


class Brier(ProbabilityMetric):
    """Mean squared difference of the probabilities from the true class; of two classes, that of the second one.

    Of more than two classes, the squares of a row are summed.
    """

    name = "brier"

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        soft = np.eye(predictions.shape[1])[targets] if targets.ndim == 1 else targets
        errors = np.square(predictions - soft)
        return float(np.average(errors[:, 1] if errors.shape[1] == 2 else errors.sum(1), weights=self.weights))


class MeanColumnLogLoss(BuiltinMetric):
    """Weighted mean over labels of the binary log loss, clipped at 2.2e-16.

    Args:
        weights: Weight of labels, from 0; 1 for labels that it does not name.
    """

    name = "mean_column_log_loss"
    kinds = LABELS
    higher_is_better = False
    wants_probabilities = True
    needs_probabilities = True
    gaps = "own"

    def __init__(self, weights: dict[str, float] | None = None) -> None:
        self.by_name = {} if weights is None else self._weights("weights", weights, others=1)

    def refusal(self, kind: str) -> str:
        """Unknown labels."""
        return self._unknown(list(self.by_name))

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score; missing cells do not count, nor do labels without any."""
        check_binary(self.name, targets)
        found = []
        for given, wanted in zip(predictions.T, targets.T, strict=True):
            known = ~np.isnan(wanted)
            weights = np.ones(int(known.sum())) if self.weights is None else self.weights[known]
            losses = binary_losses(given[known], wanted[known] > 0.5)
            found.append((losses * weights).sum() / weights.sum() if weights.sum() > 0 else math.nan)
        names = self.outputs or [""] * len(found)
        of_labels = np.array([self.by_name.get(name, 1.0) for name in names])
        scores = np.array(found)
        used = ~np.isnan(scores) & (of_labels > 0)
        return float(np.average(scores[used], weights=of_labels[used])) if used.any() else math.nan


def losses_of(predictions: Array, targets: Array, eps: float) -> Array:
    """Negative log probability of each row's class, or its cross-entropy with soft targets, (N,)."""
    if targets.ndim == 2:
        losses: Array = -(targets * np.log(np.clip(predictions, eps, 1 - eps))).sum(1)
        return losses
    found: Array = -np.log(np.clip(predictions[np.arange(len(targets)), targets], eps, 1 - eps))
    return found


def binary_losses(scores: Array, is_positive: Array) -> Array:
    """Negative log probability of what each row is, (N,)."""
    clipped = np.clip(scores, EPS, 1 - EPS)
    losses: Array = -np.log(np.where(is_positive, clipped, 1 - clipped))
    return losses
