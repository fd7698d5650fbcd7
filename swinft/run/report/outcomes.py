"""Predictions as answers: the class, or each label, that they say; with rates, curves and calibration.

Shapes: n rows, K outputs, B bins, P points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from swinft.run.report.contents import ReportInput
from swinft.run.report.rows.labels import has_shares

Array = NDArray[np.float64]
BINS = 10
LEAST, MOST_CELLS = 10, 2**27  # of many rows fewer are compared: of so many rows and classes, scores take 1 GB
COMPARED = 200  # classes or labels that have a line in a table of rates: each is ranked several times
GRID = np.linspace(0, 1, 101)
STEEP = GRID**2  # more points where a ROC curve is steep


@dataclass(frozen=True)
class Binary:
    """One class against all others, or one label: the rows whose answer is known.

    Args:
        name: Its name.
        scores: Its probabilities, (n,).
        truth: Whether the rows have it, bool (n,).
        said: Whether the predictions say so, bool (n,).
    """

    name: str
    scores: Array
    truth: NDArray[np.bool_]
    said: NDArray[np.bool_]

    @property
    def is_mixed(self) -> bool:
        """Whether some rows have it and some do not: else no curve is defined."""
        return bool(self.truth.any() and not self.truth.all())

    def auc(self) -> float:
        """The area under its ROC curve."""
        return float(roc_auc_score(self.truth, self.scores)) if self.is_mixed else float("nan")

    def average_precision(self) -> float:
        """The mean of its precision over recall."""
        return float(average_precision_score(self.truth, self.scores)) if self.truth.any() else float("nan")

    def rates(self) -> tuple[float, float, float]:
        """Precision, recall and F1 of what the predictions say; NaN where nothing is said, or nothing is true."""
        right = float((self.truth & self.said).sum())
        said, true = float(self.said.sum()), float(self.truth.sum())
        nan = float("nan")
        both = said + true
        return right / said if said else nan, right / true if true else nan, 2 * right / both if both else nan

    def roc(self) -> tuple[Array, Array]:
        """False and true positive rates of its ROC curve, (P,)."""
        false, true, _ = roc_curve(self.truth, self.scores)
        at = np.searchsorted(false, STEEP, side="right") - 1
        return np.concatenate([[0.0], STEEP]), np.concatenate([[0.0], true[at]])

    def precision_recall(self) -> tuple[Array, Array]:
        """Recall, and the precision with at least this recall, (P,)."""
        precision, recall, _ = precision_recall_curve(self.truth, self.scores)
        precision, recall = precision[::-1], recall[::-1]  # ascending recall
        return GRID, np.asarray(precision[np.minimum(np.searchsorted(recall, GRID), len(recall) - 1)])


def true_classes(report: ReportInput) -> NDArray[np.int64]:
    """The class of each scored row, (n,); of soft targets the most probable one."""
    return np.asarray(report.schema.target.strata(report.targets), dtype=np.int64)


def has_labels(report: ReportInput) -> bool:
    """Whether targets are 0/1 labels, some of which may be missing; and not shares."""
    base = report.schema.base
    if base.are_classes or base.are_maps or not base.are_probabilities:
        return False
    return not has_shares(base, report.targets)


def true_shares(report: ReportInput, k: int) -> Array:
    """What each scored row has of class k, (n,): 1 if it is its class; of soft targets its share."""
    if report.schema.base.is_soft:
        return report.targets[:, k].astype(np.float64)
    return np.asarray(true_classes(report) == k, dtype=np.float64)


def compared(report: ReportInput) -> list[int]:
    """Classes or labels with rates and curves of their own: all, or of many those that most rows have, in order."""
    if len(report.outputs) <= (most := _most(report)):
        return list(range(len(report.outputs)))
    counts = np.array(report.schema.target.counts(report.targets, len(report.outputs)))
    return sorted(np.argsort(-counts, kind="stable")[:most].tolist())


def _most(report: ReportInput) -> int:
    return min(COMPARED, max(LEAST, MOST_CELLS // max(1, len(report.rows))))


def of_many(report: ReportInput) -> str:
    """A sentence on what `compared` leaves out; empty where it is nothing."""
    if len(report.outputs) <= (most := _most(report)):
        return ""
    what = "classes" if report.schema.base.are_classes else "labels"
    return f" Of {len(report.outputs):,} {what} those {most} are shown that most rows have."


def binaries(report: ReportInput, outputs: Sequence[int] | None = None) -> list[Binary]:
    """Each class against all others, or each label; none for numbers and masks.

    Args:
        report: What the report is made of.
        outputs: Positions of the classes or labels; None for those that `compared` gives.
    """
    chosen = compared(report) if outputs is None else outputs
    if report.schema.base.are_classes:
        true, said = true_classes(report), report.values.argmax(1)
        scores = (report.values[:, k].astype(np.float64) for k in chosen)
        return [Binary(report.outputs[k], each, true == k, said == k) for k, each in zip(chosen, scores, strict=True)]
    if not has_labels(report):
        return []
    found = []
    for k in chosen:
        name, known = report.outputs[k], np.isfinite(report.targets[:, k])
        scores = report.values[known, k].astype(np.float64)
        found.append(Binary(name, scores, report.targets[known, k] > 0.5, scores >= 0.5))
    return found


def micro(every: list[Binary]) -> Binary:
    """All of them as one."""
    joined: Any = {
        name: np.concatenate([getattr(each, name) for each in every]) for name in ("scores", "truth", "said")
    }
    return Binary("all together", **joined)


def reliability(probabilities: ArrayLike, is_right: ArrayLike) -> tuple[Array, Array, Array, float]:
    """How often predictions of a probability are right.

    Args:
        probabilities: Probabilities, (n,).
        is_right: Whether what they are of is true, (n,); of soft targets its share.

    Returns:
        Of bins of equal width that are not empty: mean probability, share that is right, number of rows; and the
        expected calibration error: the mean difference of the first two, weighted by the third.
    """
    values, right = np.asarray(probabilities, dtype=np.float64), np.asarray(is_right, dtype=np.float64)
    bins = np.clip((values * BINS).astype(int), 0, BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(bins, values, BINS) / counts
        share = np.bincount(bins, right, BINS) / counts
    full = counts > 0
    error = float(np.sum(np.abs(mean - share)[full] * counts[full]) / max(1, counts.sum()))
    return mean[full], share[full], counts[full].astype(np.float64), error


def mistakes(true: NDArray[np.int64], said: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """The most frequent pairs of a true class and another that was predicted, and their rows, int64 (m, 3).

    Of equally frequent ones the first by their classes come first.

    Args:
        true: The class of each row, (n,).
        said: The predicted class of each row, (n,).
        most: Number of pairs.
    """
    wrong = true != said
    pairs, counts = np.unique(np.stack([true[wrong], said[wrong]], 1), axis=0, return_counts=True)
    order = np.argsort(-counts, kind="stable")[:most]
    return np.column_stack([pairs[order], counts[order]])


def confusion_counts(true: NDArray[np.int64], said: NDArray[np.int64], outputs: int) -> NDArray[np.int64]:
    """Rows by true and predicted class, (K, K)."""
    return np.bincount(true * outputs + said, minlength=outputs**2).reshape(outputs, outputs)
