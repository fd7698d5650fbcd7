"""Fitted thresholds of labels, cut points of grades, and weights of classes.

Each changes predictions so that the usual decision is the fitted one: a label from 0.5 on, the nearest whole number,
the most probable class. Metrics and formats of a submission need not know of them.

Shapes: N rows, K outputs.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from swinft.errors import InputError
from swinft.inference.rules.arguments import BuiltinRule
from swinft.inference.rules.f1 import f1_thresholds, recognised, with_best
from swinft.inference.rules.fitted import FittedRule, Score
from swinft.inference.rules.rule import Values
from swinft.inference.rules.searches import (
    MIDDLE,
    candidates,
    global_threshold,
    kappa_cuts,
    lifted,
    scored_thresholds,
    shifted,
)
from swinft.ranges import UNIT, check_whole

RANKED = 5  # classes of a row, from the most probable one, between which a new class is placed
MARGIN = 1e-4  # by which a changed number is away from the half between two grades
STEPS = 4  # rounds of a coordinate ascent on a metric that is not known in closed form


class BuiltinFittedRule(BuiltinRule, FittedRule):
    """A fitted rule with a short name."""

    def _metric(self, given: Any) -> None:
        """The argument `metric`."""
        if given is not None and not isinstance(given, str):
            raise InputError(f"{self.name}: metric is {given!r}. Give the name of a metric, or null for the first one.")
        self.metric = given

    def _check_decides(self, score: Score) -> None:
        """Checks that the metric scores decisions.

        Raises:
            InputError: It compares the order of the rows, which the rule does not change.
        """
        if score.compares_order:
            raise InputError(
                f"submission.rules: {self.name}: {score.name} compares the order of rows, which the rule does not "
                f"change. Set its `metric` to one of decisions, such as samples_f1 or accuracy."
            )


class ThresholdsRule(BuiltinFittedRule):
    """Labels, or the second of two classes, from a fitted threshold on: it becomes 0.5.

    The order of the rows by each label stays the same. For the F1 scores of labels (mean over rows, over cells, over
    labels) the search is exact in each label; for other metrics, 100 thresholds of each label are scored.

    Args:
        per_label: Whether each label has a threshold; false for one of all labels.
        metric: Metric to fit for; null for the run's first one.
        min_positives: Labels with fewer positive rows keep the threshold of all labels.
        never_empty: Whether the most probable label of a row without any becomes positive.
    """

    name = "thresholds"
    kinds = ("classification", "multilabel")

    def __init__(
        self, per_label: bool = True, metric: str | None = None, min_positives: int = 20, never_empty: bool = False
    ) -> None:
        self._metric(metric)
        self._flag("per_label", per_label)
        self._flag("never_empty", never_empty)
        check_whole(self.name, "min_positives", min_positives, 0)
        self.per_label, self.min_positives, self.never_empty = per_label, min_positives, never_empty

    def refusal(self) -> str:
        """More than two classes, or labels that are never empty as they are classes."""
        if self.schema.base.are_classes and len(self.outputs) != 2:
            return f"it is for labels and for two classes, not for {len(self.outputs)}. See `class_weights`."
        if self.schema.base.are_classes and self.never_empty:
            return "never_empty is for labels; a row always has a class."
        return ""

    def fit(self, values: Values, targets: Values, rows: pd.DataFrame, score: Score) -> dict[str, Any]:
        """The thresholds, by label.

        Raises:
            InputError: The score compares the order of rows, which thresholds do not change.
        """
        self._check_decides(score)
        if self.schema.base.are_classes:
            values, targets = values[:, 1:], targets[:, 1:]

        def gain(changed: Values) -> float:
            return score(self._completed(changed))

        def decided(thresholds: Values | float) -> Values:
            return self._decided(values, np.asarray(thresholds, dtype=np.float64))

        known = recognised(values, targets, gain, score.weights)
        if known and self.never_empty:
            known = with_best(known, values)

        def gains_of(cuts: Values) -> Values:
            return known.of_cuts(values, cuts) if known else np.array([gain(decided(cut)) for cut in cuts])

        every = global_threshold(values, gains_of)
        found = np.full(values.shape[1], every)
        searched = np.nansum(targets, 0) >= max(self.min_positives, 1)
        if self.per_label and len(found) > 1 and searched.any():
            if known:
                begun = [np.where(searched, start, every) for start in dict.fromkeys((every, MIDDLE))]
                starts = [f1_thresholds(values, known, start, searched) for start in begun]
            else:
                starts = [
                    scored_thresholds(values, gain, every, searched, lambda given, cuts: self._decided(given, cuts))
                ]
            found = max([*starts, found], key=lambda cuts: gain(decided(cuts)))
        if self.schema.base.are_classes:
            return {"thresholds": {self.outputs[1]: float(found[0])}}
        return {"thresholds": dict(zip(self.outputs, found.tolist(), strict=True))}

    def apply(self, values: Values, rows: pd.DataFrame) -> Values:
        """The probabilities, with the thresholds at 0.5."""
        cuts = np.array(list(self.parameters["thresholds"].values()))
        return self._completed(self._decided(values[:, 1:] if self.schema.base.are_classes else values, cuts))

    def _decided(self, values: Values, thresholds: Values) -> Values:
        changed = shifted(values, thresholds)
        return lifted(changed, values) if self.never_empty else changed

    def _completed(self, changed: Values) -> Values:
        """Of two classes, also the first."""
        return np.concatenate([1 - changed, changed], 1) if self.schema.base.are_classes else changed


class NewClassRule(BuiltinFittedRule):
    """Moves the threshold of a new class to 0.5, where the format `top_k` and the metric `map_at_k` have it.

    A row whose most probable class is below the threshold has the new class first. The order of the classes in a row
    stays the same.

    Args:
        rate: The share of the rows, of those that are submitted together, that get the new class first; null for the
            threshold with the best metric.
        metric: Metric to fit for; null for the run's first one.
    """

    name = "new_class"
    kinds = ("classification", "multilabel")

    def __init__(self, rate: float | None = None, metric: str | None = None) -> None:
        self._number("rate", rate, UNIT)
        self._metric(metric)
        self.rate, self.uses_targets = rate, rate is None

    def fit(self, values: Values, targets: Values, rows: pd.DataFrame, score: Score) -> dict[str, Any]:
        """The threshold, or the rate."""
        if self.rate is not None:
            return {"rate": self.rate}
        likely = np.sort(values, axis=1)[:, -RANKED:]  # no metric looks further
        return {"threshold": global_threshold(likely, lambda cuts: [score(shifted(values, cut)) for cut in cuts])}

    def apply(self, values: Values, rows: pd.DataFrame) -> Values:
        """The probabilities, with the threshold at 0.5."""
        if "threshold" in self.parameters:
            return shifted(values, self.parameters["threshold"])
        best = np.sort(values.max(axis=1))
        place = round(self.parameters["rate"] * len(best))
        between = np.concatenate([[0.0], (best[1:] + best[:-1]) / 2, [1.0]]) if len(best) else np.zeros(1)
        return shifted(values, float(between[place]))


class CutsRule(BuiltinFittedRule):
    """Grades by fitted cut points: numbers are changed so that each cut point is half-way between two whole numbers.

    Between cut points the change is linear. Of ordered classes (`data.columns.class_order`, or classes that are
    numbers), the mean grade is cut, and the class gets probability 1. For quadratic kappa, no cut points have a higher
    kappa on the rows that they are fitted on; for other metrics, a coordinate search from the halves between the mean
    predictions of neighbouring grades.

    Args:
        metric: Metric to fit for; null for the run's first one.
    """

    name = "cuts"
    kinds = ("classification", "regression")

    def __init__(self, metric: str | None = None) -> None:
        self._metric(metric)

    def refusal(self) -> str:
        """Classes without an order, or numbers without a known range of grades."""
        if self.schema.base.are_classes and self.schema.grades is None:
            return "the classes have no order. Set data.columns.class_order."
        if not self.schema.base.are_classes and not self.schema.ranges:
            return "the range of the training targets is not known."
        return ""

    def fit(self, values: Values, targets: Values, rows: pd.DataFrame, score: Score) -> dict[str, Any]:
        """The cut points of each output, ascending."""
        given, wanted = self._numbers(values), self._numbers(targets)
        found = [
            self._start(given[:, k], wanted[:, k], low, high, score.weights)
            for k, (low, high) in enumerate(self._limits)
        ]

        def gain(cuts: list[Values]) -> float:
            return score(self._cut(values, cuts))

        exact = [
            kappa_cuts(given[known, k], np.rint(wanted[known, k]).astype(int), low, high, score.weights[known])
            for k, (low, high) in enumerate(self._limits)
            if (known := ~np.isnan(wanted[:, k])).any()
        ]
        if len(exact) == len(found) and gain(exact) >= gain(found):
            found = exact
        if score.name != "quadratic_kappa":
            found = _searched(given, found, gain)
        names = ["cuts"] if self.schema.base.are_classes else self.outputs
        return {"cuts": {name: cuts.tolist() for name, cuts in zip(names, found, strict=True)}}

    def apply(self, values: Values, rows: pd.DataFrame) -> Values:
        """The changed numbers, or 1 for the class of the mean grade."""
        return self._cut(values, [np.array(cuts) for cuts in self.parameters["cuts"].values()])

    @property
    def _limits(self) -> list[tuple[int, int]]:
        """Lowest and highest grade of each column of numbers: of classes, their positions by grade."""
        if self.schema.base.are_classes:
            return [(0, len(self.outputs) - 1)]
        return [(round(low), round(high)) for low, high in self.schema.ranges]

    @property
    def _order(self) -> NDArray[np.int64]:
        """The positions of classes in the order of their grades."""
        assert self.schema.grades is not None
        return np.argsort(self.schema.grades, kind="stable")

    def _numbers(self, values: Values) -> Values:
        """Numbers to cut: of classes the mean position by grade, (N, 1)."""
        if not self.schema.base.are_classes:
            return values
        return values[:, self._order] @ np.arange(len(self.outputs), dtype=np.float64)[:, None]

    def _start(self, values: Values, targets: Values, low: int, high: int, weights: Values) -> Values:
        """The halves between the mean predictions of neighbouring grades; of grades without rows, plain halves."""
        centres = np.arange(low, high + 1, dtype=np.float64)
        for position in range(len(centres)):
            inside = np.rint(targets) == centres[position]
            if weights[inside].sum() > 0:
                centres[position] = np.average(values[inside], weights=weights[inside])
        centres = np.maximum.accumulate(centres)
        cuts: Values = (centres[1:] + centres[:-1]) / 2
        return cuts

    def _cut(self, values: Values, cuts: list[Values]) -> Values:
        numbers = self._numbers(values)
        grades = [np.searchsorted(each, numbers[:, k], side="right") for k, each in enumerate(cuts)]
        if self.schema.base.are_classes:
            changed = np.zeros_like(values)
            changed[np.arange(len(values)), self._order[grades[0]]] = 1
            return changed
        pairs = enumerate(zip(cuts, grades, self._limits, strict=True))
        return np.stack([_stretched(numbers[:, k], each, grade, low) for k, (each, grade, (low, _)) in pairs], 1)


def _stretched(values: Values, cuts: Values, grades: NDArray[np.int64], low: int) -> Values:
    """Numbers (N,) whose cut points become halves between whole numbers; outside of them they are moved."""
    if not len(cuts):
        return values
    halves = low + np.arange(len(cuts)) + MIDDLE
    inner = np.interp(values, cuts, halves)
    moved = np.where(values < cuts[0], values - cuts[0] + halves[0], inner)
    moved = np.where(values > cuts[-1], values - cuts[-1] + halves[-1], moved)
    # Rounding must give the grade, in float32 too, and where cut points are equal.
    own = low + grades
    moved = np.where(grades > 0, np.maximum(moved, own - MIDDLE + MARGIN), moved)
    found: Values = np.where(grades < len(cuts), np.minimum(moved, own + MIDDLE - MARGIN), moved)
    return found


def _searched(values: Values, cuts: list[Values], gain: Any) -> list[Values]:
    """Cut points by coordinate ascent on a metric."""
    best = gain(cuts)
    for _ in range(STEPS):
        before = best
        for k, g in [(k, g) for k, each in enumerate(cuts) for g in range(len(each))]:
            low = cuts[k][g - 1] if g else -np.inf
            high = cuts[k][g + 1] if g + 1 < len(cuts[k]) else np.inf
            for cut in candidates(values[(values[:, k] >= low) & (values[:, k] <= high), k]):
                tried = [each.copy() for each in cuts]
                tried[k][g] = cut
                if (found := gain(tried)) > best:
                    best, cuts = found, tried
        if best <= before:
            break
    return cuts
