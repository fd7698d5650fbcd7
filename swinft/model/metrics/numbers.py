"""Metrics of numbers.

Shapes: N rows, K outputs.
"""

import math
from typing import Any

import numpy as np

from swinft.errors import InputError, listed, number_of
from swinft.model.metrics.base import NUMBERS, Array, BuiltinMetric


class NumberMetric(BuiltinMetric):
    """Base of metrics of numbers."""

    kinds = NUMBERS
    higher_is_better = False


class RMSE(NumberMetric):
    """Root of the mean squared error; the mean over target columns, which is also called MCRMSE."""

    name = "rmse"

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        return float(np.sqrt(np.average(np.square(predictions - targets), 0, self.weights)).mean())


class PooledRMSE(NumberMetric):
    """Root of the squared error's mean over all rows and target columns together."""

    name = "pooled_rmse"
    gaps = "own"

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score; missing cells do not count."""
        known = ~np.isnan(targets)
        counts = known if self.weights is None else known * self.weights[:, None]
        return math.sqrt(_mean(np.square(np.where(known, predictions - targets, 0)), counts))


class RMSLE(NumberMetric):
    """Root of the mean squared difference of log(1 + y); the mean over target columns. Undefined for −1 and less."""

    name = "rmsle"

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        if min(predictions.min(), targets.min()) <= -1:
            return math.nan
        errors = np.square(np.log1p(predictions) - np.log1p(targets))
        return float(np.sqrt(np.average(errors, 0, self.weights)).mean())


class MAE(NumberMetric):
    """Mean absolute error; the mean over target columns."""

    name = "mae"

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        errors = np.abs(predictions - targets)
        return float(errors.mean() if self.weights is None else np.average(errors.mean(1), weights=self.weights))


class MAPE(NumberMetric):
    """Mean of |error| / |target|, a fraction; the mean over target columns. Undefined if a target is 0."""

    name = "mape"

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        if not targets.all():
            return math.nan
        return float(np.average(np.abs((predictions - targets) / targets), 0, self.weights).mean())


class SMAPE(NumberMetric):
    """Mean of 2·|error| / (|target| + |prediction|) in percent, 0 where both are 0; the mean over target columns."""

    name = "smape"

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score, in 0–200."""
        sizes = np.abs(predictions) + np.abs(targets)
        errors = np.abs(predictions - targets) / np.where(sizes > 0, sizes, 1)
        return float(200 * np.average(errors, 0, self.weights).mean())


class R2(NumberMetric):
    """Fraction of variance explained; the mean over target columns. Undefined for fewer than two rows."""

    name = "r2"
    higher_is_better = True

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        from sklearn.metrics import r2_score

        if len(targets) < 2:
            return math.nan
        return float(r2_score(targets, predictions, sample_weight=self.weights))


class WeightedR2(NumberMetric):
    """Fraction of variance explained of all cells of all target columns together, each with the weight of its target.

    1 − Σ w(y − ŷ)² / Σ w(y − ȳ)² with ȳ = Σ wy / Σ w. Undefined if all targets are equal.

    Args:
        weights: Weight of each output, from 0; or of each name in `column`. None for equal weights.
        column: In long tables, with a row per target and one output, the column that names the target.
    """

    name = "weighted_r2"
    higher_is_better = True
    gaps = "own"

    def __init__(self, weights: dict[str, float] | None = None, column: str | None = None) -> None:
        self.by_name = None if weights is None else self._weights("weights", weights)
        self.columns = [] if column is None else [self._name("column", column)]
        if column is not None and weights is None:
            raise InputError("weighted_r2: column is set without weights. Give each name in it a weight.")

    def refusal(self, kind: str) -> str:
        """Outputs without a weight, or several outputs in a long table."""
        if self.columns:
            return "" if len(self.outputs) < 2 else "column is for tables with one output, a row per target."
        return "" if self.by_name is None else self._unweighted(list(self.by_name))

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score; missing cells do not count.

        Raises:
            InputError: A row's name has no weight.
        """
        counts = ~np.isnan(targets) * self._of_cells(targets, rows)
        if self.weights is not None:
            counts = counts * self.weights[:, None]
        known = np.where(counts > 0, targets, 0)
        if not counts.any():
            return math.nan
        mean = (counts * known).sum() / counts.sum()
        spread = (counts * np.square(known - mean)).sum()
        if np.ptp(targets[counts > 0]) == 0:
            return math.nan
        return float(1 - (counts * np.square(known - predictions)).sum() / spread)

    def _of_cells(self, targets: Array, rows: Any) -> Array:
        """The weight of each cell, to be broadcast to (N, K).

        Raises:
            InputError: A name in the column has no weight.
        """
        if self.by_name is None:
            return np.ones(targets.shape)
        if not self.columns:
            return np.array([[self.by_name[name] for name in self.outputs]])
        names = rows[self.columns[0]]
        if unknown := sorted(set(names) - set(self.by_name)):
            shown = number_of(len(unknown), "name has", "names have")
            raise InputError(
                f"{self.name}: {shown} no weight in column '{self.columns[0]}': {listed(map(repr, unknown), 5)}. Add "
                f"them to weights, 0 to leave them out."
            )
        found: Array = names.map(self.by_name).to_numpy(np.float64)[:, None]
        return found


class Pearson(NumberMetric):
    """Pearson correlation; the mean over target columns. Undefined if a column of either side is constant."""

    name = "pearson"
    higher_is_better = True

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        return _mean_correlation(predictions, targets, self.weights)


class Spearman(NumberMetric):
    """Spearman rank correlation, with mean ranks of ties; the mean over target columns. Undefined as `pearson`."""

    name = "spearman"
    higher_is_better = True
    takes_weights = False
    compares_order = True

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        from scipy.stats import rankdata

        return _mean_correlation(rankdata(predictions, axis=0), rankdata(targets, axis=0), None)


def _mean_correlation(given: Array, wanted: Array, weights: Array | None) -> float:
    """Mean of the columns' correlations; NaN if one is undefined."""
    counted = slice(None) if weights is None else weights > 0
    if (np.ptp(given[counted], axis=0) == 0).any() or (np.ptp(wanted[counted], axis=0) == 0).any():
        return math.nan
    given, wanted = (each - np.average(each, 0, weights) for each in (given, wanted))
    both, one, other = (np.average(each, 0, weights) for each in (given * wanted, given**2, wanted**2))
    return float((both / np.sqrt(one * other)).mean())


def _mean(values: Array, counts: Array) -> float:
    """Mean of values, each counted so often; NaN if none counts."""
    total = counts.sum()
    return float((values * counts).sum() / total) if total else math.nan
