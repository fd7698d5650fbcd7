"""F1 of sets of labels, and of the most probable class, averaged over rows, cells or outputs.

Labels are chosen as in a submission: those of a threshold and more, and the most probable one if there are none.

Shapes: N rows, K labels.
"""

import math
from typing import Any

import numpy as np

from swinft.model.grades import to_label_sets
from swinft.model.heads.base import takes_classes
from swinft.model.metrics.base import CLASSES, LABELS, Array, BuiltinMetric, check_binary
from swinft.ranges import POSITIVE, UNIT


class LabelSetMetric(BuiltinMetric):
    """Base of metrics of sets of labels.

    Args:
        threshold: Labels with at least this probability are chosen, in 0–1; by default `submission.threshold`, 0.5.
        never_empty: Whether the most probable label is chosen where none reaches the threshold, as in a submission with
            one column of labels. One with a column per label does not: set it to false.
        beta: Weight of recall against precision, above 0: 2 for F2.
    """

    kinds: tuple[str, ...] = LABELS
    higher_is_better = True
    gaps = "none"

    def __init__(self, threshold: float | None = None, never_empty: bool = True, beta: float = 1.0) -> None:
        self.threshold = 0.5 if threshold is None else self._number("threshold", threshold, UNIT)
        self.never_empty = self._word("never_empty", never_empty, (True, False))
        self.beta = float(self._number("beta", beta, POSITIVE))

    def counts(self, predictions: Array, targets: Array, axis: int) -> tuple[Array, Array, Array]:
        """Labels that are right, chosen and true, by row (axis 1) or, weighted, by label (axis 0).

        Raises:
            InputError: A target is neither 0 nor 1.
        """
        check_binary(self.name, targets)
        chosen, true = to_label_sets(predictions, self.threshold, self.never_empty), targets > 0.5
        weights: Any = 1 if axis == 1 or self.weights is None else self.weights[:, None]
        right, given, wanted = (np.sum(each * weights, axis=axis) for each in (chosen & true, chosen, true))
        return right, given, wanted

    def f_score(self, right: Any, given: Any, wanted: Any, empty: float) -> Array:
        """(1 + β²)·TP / (chosen + β²·true), elementwise; `empty` where neither is there."""
        below = np.asarray(given + self.beta**2 * wanted, np.float64)
        return np.where(below > 0, (1 + self.beta**2) * right / np.where(below > 0, below, 1), empty)


class SamplesF1(LabelSetMetric):
    """Mean over rows of the F1 of their set of labels: 2|T ∩ P| / (|T| + |P|).

    Args:
        threshold: Labels with at least this probability are chosen, in 0–1; by default `submission.threshold`, 0.5.
        never_empty: Whether the most probable label is chosen where none reaches the threshold, as in a submission with
            one column of labels. One with a column per label does not: set it to false.
        beta: Weight of recall against precision, above 0: 2 for F2.
        both_empty: The F1 of a row that neither has nor gets a label, in 0–1; by default 0, as in scikit-learn.
    """

    name = "samples_f1"

    def __init__(
        self, threshold: float | None = None, never_empty: bool = True, beta: float = 1.0, both_empty: float = 0.0
    ) -> None:
        super().__init__(threshold, never_empty, beta)
        self.both_empty = float(self._number("both_empty", both_empty, UNIT))

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        scores = self.f_score(*self.counts(predictions, targets, axis=1), self.both_empty)
        return float(np.average(scores, weights=self.weights))


class MicroF1(LabelSetMetric):
    """F1 of all cells of all labels together: 2TP / (2TP + FP + FN). Undefined if no label is there or chosen.

    Args:
        threshold: Labels with at least this probability are chosen, in 0–1; by default `submission.threshold`, 0.5.
        never_empty: Whether the most probable label is chosen where none reaches the threshold, as in a submission with
            one column of labels. One with a column per label does not: set it to false.
        beta: Weight of recall against precision, above 0: 2 for F2.
    """

    name = "micro_f1"

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        right, given, wanted = (each.sum() for each in self.counts(predictions, targets, axis=0))
        return float(self.f_score(right, given, wanted, math.nan))


class MacroF1(LabelSetMetric):
    """Mean over classes of the F1 of the most probable class; classes neither present nor predicted are left out.

    For labels, the mean over labels of the F1 of those that are chosen.

    Args:
        threshold: Labels with at least this probability are chosen, in 0–1; by default `submission.threshold`, 0.5.
        never_empty: Whether the most probable label is chosen where none reaches the threshold, as in a submission with
            one column of labels. One with a column per label does not: set it to false.
        beta: Weight of recall against precision, above 0: 2 for F2.
    """

    name = "macro_f1"
    kinds = (*CLASSES, *LABELS)
    takes_float32 = True  # of classes

    def __init__(self, threshold: float | None = None, never_empty: bool | None = None, beta: float = 1.0) -> None:
        super().__init__(threshold, never_empty is not False, beta)
        self._word("never_empty", never_empty, (True, False, None))
        self._for_labels = threshold is not None or never_empty is not None or beta != 1

    def refusal(self, kind: str) -> str:
        """Arguments that are for labels."""
        if takes_classes(kind) and self._for_labels:
            return "threshold, never_empty and beta are for labels; of classes the most probable one counts."
        return ""

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score."""
        if targets.ndim == 1:
            from sklearn.metrics import f1_score

            given = predictions.argmax(1)
            return float(f1_score(targets, given, average="macro", zero_division=0, sample_weight=self.weights))
        scores = self.f_score(*self.counts(predictions, targets, axis=0), math.nan)
        return float(np.nanmean(scores)) if not np.isnan(scores).all() else math.nan
