"""Competition metrics on pooled rows: the base class of all metrics, and the built-in ones.

Each is a function of all predictions and targets at once, in the competition's units and in float64. The mean of batch
or fold scores would be another number, and float32 is too coarse for years and prices. Definitions are scikit-learn's.

Shapes: N rows, K outputs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.class_spec import InitArgsMixin
from swinft.errors import InputError
from swinft.model.grades import to_grades
from swinft.model.metrics.pixel_counts import dice, dice_of_present, iou, map_over_iou, pooled_dice

Array = NDArray[Any]


class Metric(InitArgsMixin):
    """Scores predictions. A custom metric derives from it, and must define `higher_is_better` and `compute`."""

    kinds: Sequence[str] = ("classification", "regression", "multilabel")
    """The kinds of target that it can score."""

    higher_is_better: bool
    """Whether a higher score is better."""

    name: str
    """Name of the score, logged as `val_{name}`; by default the name of the class."""

    wants_probabilities: bool = False
    """Whether it scores probabilities, not the most probable class; a submission then has probabilities."""

    needs_probabilities: bool = False
    """Whether it is undefined for predictions outside 0–1, which are then an error."""

    scores_grades: bool = False
    """Whether it measures the distance between grades: classes need an order, and a submission has whole numbers."""

    scores_soft: bool = False
    """Whether a built-in metric takes soft targets; others get the class of the largest value."""

    compares_order: bool = False
    """Whether only the order of the rows by each output counts, so that ranks score like probabilities."""

    outputs: Sequence[str] = ()
    """Names of the K outputs, set before `compute` is called; empty without a table."""

    grades: Array | None = None
    """The schema's `grades`, set before `compute` is called."""

    weights: Array | None = None
    """What each row counts, float64 (N,) from 0, when `compute` is called; None where all count the same."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = cls.__name__

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score of N rows.

        Args:
            predictions: float64 (N, K) in the competition's units: probabilities of classes or labels, or numbers.
            targets: int64 (N,) for classification, or float64 (N, K) if they are soft; else
                float64 (N, K), NaN where a row lacks one of several targets.
            rows: pandas DataFrame of N rows with the table's columns as text, `""` for an empty cell; None if there is
                no table, as with loaders that do not come from a datamodule.

        Returns:
            The score; NaN if it is undefined. Infinity also counts as undefined.
        """
        raise NotImplementedError


class BuiltinMetric(Metric):
    """A built-in metric: it has a name, and does not read the table.

    Args:
        function: Predictions float64 (N, K), targets, grades and weights to a number; NaN if it is undefined.
        higher_is_better: Whether a higher score is better.
        kinds: The kinds of target that it can score.
        needs: Names of the attributes of `Metric` to set to True.
    """

    def __init__(
        self,
        function: Callable[[Array, Array, Array | None, Array | None], float],
        higher_is_better: bool,
        kinds: Sequence[str],
        *needs: str,
    ) -> None:
        self.function, self.higher_is_better = function, higher_is_better
        self.name: str = function.__name__
        self.kinds = tuple(kinds)
        for attribute in needs:
            setattr(self, attribute, True)

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The function's value."""
        return self.function(predictions, targets, self.grades, self.weights)


def accuracy(predictions: Array, targets: Array, grades: Array | None = None, weights: Array | None = None) -> float:
    """Fraction of rows whose most probable class is correct."""
    return float(np.average(predictions.argmax(1) == targets, weights=weights))


def macro_f1(predictions: Array, targets: Array, grades: Array | None = None, weights: Array | None = None) -> float:
    """Mean over classes of the F1 of the most probable class; classes neither present nor predicted are left out."""
    from sklearn.metrics import f1_score

    return float(f1_score(targets, predictions.argmax(1), average="macro", zero_division=0, sample_weight=weights))


def log_loss(predictions: Array, targets: Array, grades: Array | None = None, weights: Array | None = None) -> float:
    """Mean negative log probability of the true class, clipped at 2.2e-16, as scikit-learn does in float64.

    With soft targets, the mean cross-entropy.
    """
    eps = np.finfo(np.float64).eps
    if targets.ndim == 2:
        losses = -(targets * np.log(np.clip(predictions, eps, 1 - eps))).sum(1)
    else:
        losses = -np.log(np.clip(predictions[np.arange(len(targets)), targets], eps, 1 - eps))
    return float(np.average(losses, weights=weights))


def kl_divergence(
    predictions: Array, targets: Array, grades: Array | None = None, weights: Array | None = None
) -> float:
    """Mean Kullback-Leibler divergence of the probabilities from soft targets, clipped at 1e-15.

    Without soft targets, it is the log loss.
    """
    eps = 1e-15
    soft = np.eye(predictions.shape[1])[targets] if targets.ndim == 1 else targets
    ratios = np.log(np.clip(soft, eps, None)) - np.log(np.clip(predictions, eps, 1))
    return float(np.average((soft * ratios).sum(1), weights=weights))


def auc(predictions: Array, targets: Array, grades: Array | None = None, weights: Array | None = None) -> float:
    """Area under the ROC curve: of the second class if there are two, else the one-vs-rest mean over classes.

    Classes that no row has, or that all rows have, are left out.
    """
    if predictions.shape[1] == 2:
        return _binary_auc(predictions[:, 1], targets == 1, weights)
    return mean_of_defined([_binary_auc(column, targets == k, weights) for k, column in enumerate(predictions.T)])


def mean_column_auc(
    predictions: Array, targets: Array, grades: Array | None = None, weights: Array | None = None
) -> float:
    """Mean over labels of the area under the ROC curve; labels that no row has, or that all have, are left out.

    Raises:
        InputError: A target is neither 0 nor 1.
    """
    if not np.isin(targets, (0, 1)).all():
        raise InputError("mean_column_auc needs targets of 0 and 1, and some are between: choose another metric.")
    return mean_of_defined([_binary_auc(p, t > 0.5, weights) for p, t in zip(predictions.T, targets.T, strict=True)])


def quadratic_kappa(
    predictions: Array, targets: Array, grades: Array | None = None, weights: Array | None = None
) -> float:
    """Quadratically weighted kappa of the most probable class, or of grades; the mean over target columns.

    Numbers are converted to grades as in a submission: rounded, and clipped to the range in the training table. The
    grade of a class is the number in its name, or its position in `data.columns.class_order`.
    """
    if targets.ndim == 1:
        values = np.arange(predictions.shape[1]) if grades is None else grades
        return _kappa(values[predictions.argmax(1)], values[targets], weights)
    low, high = (targets.min(0), targets.max(0)) if grades is None else grades
    given = to_grades(predictions, low, high)
    return float(np.mean([_kappa(p, t, weights) for p, t in zip(given.T, np.rint(targets).T, strict=True)]))


def rmse(predictions: Array, targets: Array, grades: Array | None = None, weights: Array | None = None) -> float:
    """Root of the mean squared error; the mean over target columns."""
    return float(np.sqrt(np.average(np.square(predictions - targets), 0, weights)).mean())


def mae(predictions: Array, targets: Array, grades: Array | None = None, weights: Array | None = None) -> float:
    """Mean absolute error; the mean over target columns."""
    errors = np.abs(predictions - targets)
    return float(errors.mean() if weights is None else np.average(errors.mean(1), weights=weights))


def r2(predictions: Array, targets: Array, grades: Array | None = None, weights: Array | None = None) -> float:
    """Fraction of variance explained; the mean over target columns. Undefined for fewer than two rows."""
    from sklearn.metrics import r2_score

    return float(r2_score(targets, predictions, sample_weight=weights)) if len(targets) > 1 else math.nan


def _binary_auc(scores: Array, is_positive: Array, weights: Array | None) -> float:
    """Area under the ROC curve of scores (N,); NaN if all rows are positive, or all negative."""
    if weights is None:
        # The fraction of pairs that are in order, by ranks: the same area, without scikit-learn's checks, which take
        # longer than the sum and matter to searches that score thousands of times.
        from scipy.stats import rankdata

        positive = int(is_positive.sum())
        pairs = positive * (len(scores) - positive)
        above = rankdata(scores)[is_positive].sum() - positive * (positive + 1) / 2
        return float(above / pairs) if pairs else math.nan
    from sklearn.metrics import roc_auc_score

    counts = weights > 0
    both = 0 < is_positive[counts].sum() < counts.sum()
    return float(roc_auc_score(is_positive, scores, sample_weight=weights)) if both else math.nan


def _kappa(given: Array, wanted: Array, weights: Array | None) -> float:
    """1 minus the ratio of the mean squared difference of grades (N,) to that expected by chance.

    It needs no confusion matrix. NaN if all grades are the same: no difference is expected by chance.
    """
    if weights is not None:
        # The mean squared distance of two independent draws: variances, and the distance of the means.
        both = np.stack([given, wanted], 1)
        means = np.average(both, 0, weights)
        by_chance = np.average((both - means) ** 2, 0, weights).sum() + (means[0] - means[1]) ** 2
        return float(1 - np.average((given - wanted) ** 2, 0, weights) / by_chance) if by_chance > 0 else math.nan
    by_chance = given.var() + wanted.var() + (given.mean() - wanted.mean()) ** 2
    return float(1 - np.square(given - wanted).mean() / by_chance) if by_chance > 0 else math.nan


def mean_of_defined(values: list[float]) -> float:
    """Mean of the values that are not NaN; NaN if there is none."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


OF_PROBABILITIES = ("wants_probabilities", "needs_probabilities", "scores_soft")
OF_ORDER = ("wants_probabilities", "compares_order")

METRICS = {
    metric.name: metric
    for metric in (
        BuiltinMetric(accuracy, True, ("classification",)),
        BuiltinMetric(macro_f1, True, ("classification",)),
        BuiltinMetric(log_loss, False, ("classification",), *OF_PROBABILITIES),
        BuiltinMetric(kl_divergence, False, ("classification",), *OF_PROBABILITIES),
        BuiltinMetric(auc, True, ("classification",), *OF_ORDER),
        BuiltinMetric(mean_column_auc, True, ("multilabel",), *OF_ORDER),
        BuiltinMetric(quadratic_kappa, True, ("classification", "regression"), "scores_grades"),
        BuiltinMetric(rmse, False, ("regression",)),
        BuiltinMetric(mae, False, ("regression",)),
        BuiltinMetric(r2, True, ("regression",)),
        BuiltinMetric(dice, True, ("segmentation",)),
        BuiltinMetric(dice_of_present, True, ("segmentation",)),
        BuiltinMetric(pooled_dice, True, ("segmentation",)),
        BuiltinMetric(iou, True, ("segmentation",)),
        BuiltinMetric(map_over_iou, True, ("segmentation",)),
    )
}


@dataclass(frozen=True)
class Traits:
    """Attributes of the first metric that a submission needs, as in `Metric`."""

    name: str = ""
    wants_probabilities: bool = False
    scores_grades: bool = False


def traits_of(metric: str | Metric) -> Traits:
    """The traits of a metric, given by name or as an object; the defaults for an unknown name."""
    found = METRICS.get(metric) if isinstance(metric, str) else metric
    return Traits(found.name, found.wants_probabilities, found.scores_grades) if found else Traits()
