"""Metrics of the values of probabilities.

Shapes: N rows, K classes or labels.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from swinft.model.metrics.base import CLASSES, LABELS, Array, BuiltinMetric, check_binary, row_blocks

EPS = float(np.finfo(np.float64).eps)  # scikit-learn's clip in float64
KAGGLE_EPS = 1e-15


class ProbabilityMetric(BuiltinMetric):
    """Base of metrics of probabilities of classes, hard or soft."""

    kinds = CLASSES
    higher_is_better = False
    wants_probabilities = True
    needs_probabilities = True
    scores_soft = True
    takes_float32 = True


class LogLoss(ProbabilityMetric):
    """Mean negative log probability of the true class, clipped at 2.2e-16, as scikit-learn does in float64.

    With soft targets, the mean cross-entropy.
    """

    name = "log_loss"

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        found = by_block(lambda given, wanted: losses_of(given, wanted, EPS), predictions, targets)
        return float(np.average(found, weights=self.weights))


class KaggleLogLoss(ProbabilityMetric):
    """Log loss as Kaggle's classic scorer has it: each row is divided by its sum, then clipped at 1e-15.

    Undefined if a row's sum is 0. With soft targets, the mean cross-entropy.
    """

    name = "kaggle_log_loss"

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""

        def losses(given: Array, wanted: Array) -> Array:
            sums = given.sum(1, keepdims=True)
            return losses_of(given / sums, wanted, KAGGLE_EPS) if (sums > 0).all() else np.full(len(given), math.nan)

        found = by_block(losses, predictions, targets)
        return math.nan if np.isnan(found).any() else float(np.average(found, weights=self.weights))


class KLDivergence(ProbabilityMetric):
    """Mean Kullback-Leibler divergence of the probabilities from soft targets, clipped at 1e-15.

    Without soft targets, it is the log loss.
    """

    name = "kl_divergence"
    needs_sum_one = True

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        eps = 1e-15

        def divergences(given: Array, wanted: Array) -> Array:
            soft = soft_targets(wanted, given.shape[1])
            ratios: Array = np.log(np.clip(soft, eps, None)) - np.log(np.clip(given, eps, 1))
            return np.asarray((soft * ratios).sum(1))

        return float(np.average(by_block(divergences, predictions, targets), weights=self.weights))


class Brier(ProbabilityMetric):
    """Mean squared difference of the probabilities from the true class; of two classes, that of the second one.

    Of more than two classes, the squares of a row are summed.
    """

    name = "brier"

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        errors = squares_of(predictions, targets, last_of_two=True)
        return float(np.average(errors, weights=self.weights))


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


def by_block(values_of: Callable[[Array, Array], Array], predictions: Array, targets: Array) -> Array:
    """A value of each row, float64 (N,), computed in float64 of some rows at a time.

    Args:
        values_of: Predictions (n, K) and targets of some rows to their values (n,).
        predictions: float32 or float64 (N, K).
        targets: Classes (N,), or soft targets (N, K).
    """
    blocks = row_blocks(len(targets), predictions.shape[1])
    found = [values_of(predictions[rows].astype(np.float64), targets[rows]) for rows in blocks]
    return np.concatenate(found) if found else np.zeros(0)


def soft_targets(targets: Array, num_classes: int) -> Array:
    """Targets as probabilities, float64 (N, K)."""
    if targets.ndim == 2:
        return targets
    soft = np.zeros((len(targets), num_classes))
    soft[np.arange(len(targets)), targets] = 1
    return soft


def squares_of(predictions: Array, targets: Array, last_of_two: bool = False) -> Array:
    """Sum of the squared differences of each row's probabilities from its class or soft target, (N,).

    Args:
        predictions: Probabilities (N, K).
        targets: Classes (N,), or soft targets (N, K).
        last_of_two: Of two classes, the square of the second one alone.
    """

    def squares(given: Array, wanted: Array) -> Array:
        errors: Array = np.square(given - soft_targets(wanted, given.shape[1]))
        return errors[:, 1] if last_of_two and errors.shape[1] == 2 else np.asarray(errors.sum(1))

    return by_block(squares, predictions, targets)


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
