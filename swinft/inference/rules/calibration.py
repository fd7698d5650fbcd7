"""Fitted calibration of probabilities and numbers: a limit, a temperature, Platt scaling, isotonic regression, a line.

Shapes: N rows, K outputs.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pandas as pd

from swinft.inference.rules.fitted import Score
from swinft.inference.rules.rule import Values
from swinft.inference.rules.thresholds import BuiltinFittedRule
from swinft.ranges import check_whole

CalibrateHow = Literal["platt", "isotonic"]

LEAST = 1e-7  # a probability before its logarithm: float32's resolution below 1
LEAST_SPREAD = 1e-24  # of numbers that differ, relative to their squares: float32 has steps of 1e-7, float64 of 1e-16
LIMITS = np.concatenate([[0.0], np.logspace(-7, -0.7, 64)])  # tried as limits of probabilities, up to 0.2
TEMPERATURES = (0.05, 20.0)  # beyond these a row is certain, or all classes are equal


class ClipFittedRule(BuiltinFittedRule):
    """Limits probabilities to e and 1 − e, with the e from 0 to 0.2 of the best score, for log loss.

    Rows of classes are divided by their sum afterwards.

    Args:
        metric: Metric to fit for; null for the run's first one.
    """

    name = "clip_fitted"
    kinds = ("classification", "multilabel")

    def __init__(self, metric: str | None = None) -> None:
        self._metric(metric)

    def fit(self, values: Values, targets: Values, rows: pd.DataFrame, score: Score) -> dict[str, Any]:
        """The limit; the smallest of several best ones."""
        return {"limit": float(max(LIMITS, key=lambda limit: score(self._clipped(values, limit))))}

    def apply(self, values: Values, rows: pd.DataFrame) -> Values:
        """The probabilities within the limits."""
        return self._clipped(values, self.parameters["limit"])

    def _clipped(self, values: Values, limit: float) -> Values:
        found = np.clip(values, limit, 1 - limit)
        return found / found.sum(1, keepdims=True) if self.schema.base.are_classes else found


class TemperatureRule(BuiltinFittedRule):
    """Divides the logarithms of the probabilities, of labels the log odds, by the temperature of the least log loss.

    Above 1, all rows become less certain.
    """

    name = "temperature"
    kinds = ("classification", "multilabel")

    def __init__(self) -> None:
        """It has no arguments."""

    def fit(self, values: Values, targets: Values, rows: pd.DataFrame, score: Score) -> dict[str, Any]:
        """The temperature."""
        from scipy.optimize import minimize_scalar  # slow to import

        known = ~np.isnan(targets)
        wanted, counts = np.where(known, targets, 0), known * score.weights[:, None]

        def loss(log_temperature: float) -> float:
            found = np.clip(self._cooled(values, float(np.exp(log_temperature))), LEAST, 1 - LEAST)
            losses = wanted * np.log(found)
            if not self.schema.base.are_classes:
                losses = losses + (1 - wanted) * np.log1p(-found)
            return -float((counts * losses).sum())

        found = minimize_scalar(  # type: ignore[no-untyped-call]
            loss, bounds=tuple(np.log(TEMPERATURES)), method="bounded", options={"xatol": 1e-6}
        )
        return {"temperature": float(np.exp(found.x)) if loss(found.x) < loss(0.0) else 1.0}

    def apply(self, values: Values, rows: pd.DataFrame) -> Values:
        """The probabilities at the temperature."""
        return self._cooled(values, self.parameters["temperature"])

    def _cooled(self, values: Values, temperature: float) -> Values:
        inside = np.clip(values, LEAST, 1)
        if self.schema.base.are_classes:
            powers = (inside / inside.max(1, keepdims=True)) ** (1 / temperature)
            shares: Values = powers / powers.sum(1, keepdims=True)
            return shares
        return _sigmoid(log_odds(values) / temperature)


class CalibrateRule(BuiltinFittedRule):
    """Calibrates each class or label alone: its probability becomes the share of positive rows with such a one.

    Of two classes the second is calibrated; of more, each against the rest, and rows are divided by their sum.

    Args:
        how: `platt`: log odds times a factor, plus a constant, of the least log loss; `isotonic`: any function that
            never decreases.
        min_positives: Outputs with fewer positive or fewer negative rows are not changed.
    """

    name = "calibrate"
    kinds = ("classification", "multilabel")

    def __init__(self, how: CalibrateHow = "platt", min_positives: int = 20) -> None:
        self._word("how", how, CalibrateHow)
        check_whole(self.name, "min_positives", min_positives, 0)
        self.how, self.min_positives = how, min_positives

    def fit(self, values: Values, targets: Values, rows: pd.DataFrame, score: Score) -> dict[str, Any]:
        """The function of each output: factor and constant, or its corners; none where it is not changed."""
        curve: Callable[..., list[Any]] = _platt if self.how == "platt" else _isotonic
        found = {}
        for k in range(len(self.outputs)):
            known = ~np.isnan(targets[:, k]) & (score.weights > 0)
            positive = targets[known, k].sum()
            is_pair = self.schema.base.are_classes and len(self.outputs) == 2
            is_rare = min(positive, known.sum() - positive) < max(self.min_positives, 1)
            if not is_rare and not (is_pair and k == 0):
                found[self.outputs[k]] = curve(values[known, k], targets[known, k], score.weights[known])
        return {self.how: found}

    def apply(self, values: Values, rows: pd.DataFrame) -> Values:
        """The calibrated probabilities; of classes, they sum to 1."""
        before = values.copy()
        for name, found in self.parameters[self.how].items():
            k = self.outputs.index(name)
            if self.how == "platt":
                values[:, k] = _sigmoid(found[0] * log_odds(values[:, k]) + found[1])
            else:
                values[:, k] = np.interp(values[:, k], *found)
        if not self.schema.base.are_classes or not self.parameters[self.how]:
            return values
        if len(self.outputs) == 2:
            return np.stack([1 - values[:, 1], values[:, 1]], 1)
        sums = values.sum(1, keepdims=True)
        return np.where(sums > 0, values / np.where(sums > 0, sums, 1), before)


class AffineRule(BuiltinFittedRule):
    """Numbers times a factor plus a constant, for each output those of the least squared error.

    Args:
        constant: Whether there is a constant; false for a factor only.
    """

    name = "affine"
    kinds = ("regression",)

    def __init__(self, constant: bool = True) -> None:
        self._flag("constant", constant)
        self.constant = constant

    def fit(self, values: Values, targets: Values, rows: pd.DataFrame, score: Score) -> dict[str, Any]:
        """Factor and constant of each output."""
        lines = {}
        for k, name in enumerate(self.outputs):
            known = ~np.isnan(targets[:, k]) & (score.weights > 0)
            given, wanted, counts = values[known, k], targets[known, k], score.weights[known]
            is_moved = self.constant and known.any()
            means = [np.average(each, weights=counts) if is_moved else 0.0 for each in (given, wanted)]
            away = given - means[0]
            spread = float(counts @ away**2)
            is_known = spread > LEAST_SPREAD * float(counts @ given**2)  # of equal numbers it is the rounding of a mean
            factor = float(counts @ (away * (wanted - means[1]))) / spread if is_known else 1.0
            lines[name] = [factor, float(means[1] - factor * means[0])]
        return {"line": lines}

    def apply(self, values: Values, rows: pd.DataFrame) -> Values:
        """The numbers on the line."""
        factors, constants = np.array(list(self.parameters["line"].values())).T
        changed: Values = values * factors + constants
        return changed


def log_odds(values: Values) -> Values:
    """Log odds of probabilities."""
    inside = np.clip(values, LEAST, 1 - LEAST)
    odds: Values = np.log(inside) - np.log1p(-inside)
    return odds


def _sigmoid(values: Values) -> Values:
    from scipy.special import expit  # slow to import

    found: Values = expit(values)
    return found


def _platt(values: Values, targets: Values, weights: Values) -> list[float]:
    """Factor (0 or more) and constant of the least log loss, with Platt's targets, which are never 0 or 1."""
    from scipy.optimize import minimize

    odds, positive = log_odds(values), float(weights @ targets)
    negative = float(weights.sum()) - positive
    wanted = targets * (positive + 1) / (positive + 2) + (1 - targets) / (negative + 2)

    def loss(given: Values) -> tuple[float, Values]:
        logits = given[0] * odds + given[1]
        errors = weights * (_sigmoid(logits) - wanted)
        return float(weights @ (np.logaddexp(0, logits) - wanted * logits)), np.array([errors @ odds, errors.sum()])

    found = minimize(loss, np.array([1.0, 0.0]), jac=True, bounds=[(0, None), (None, None)], method="L-BFGS-B")  # type: ignore[no-untyped-call]
    return [float(each) for each in found.x]


def _isotonic(values: Values, targets: Values, weights: Values) -> list[list[float]]:
    """Corners of the function of the least squared error that never decreases: probabilities before and after."""
    from sklearn.isotonic import IsotonicRegression  # slow to import

    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")  # type: ignore[no-untyped-call]
    model.fit(values, targets, weights)
    return [model.X_thresholds_.tolist(), model.y_thresholds_.tolist()]
