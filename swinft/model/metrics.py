"""Competition metrics on pooled rows: the base class, a user's own included, and those that have a name.

Each is a function of all predictions and all targets at once, in the competition's units and in float64: a mean of
batch or fold scores is another number, and float32 is too coarse for years and prices. Definitions are scikit-learn's.

Shapes: N rows, K outputs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.errors import InputError
from swinft.model.class_spec import InitArgsMixin
from swinft.model.grades import to_grades

Array = NDArray[Any]


class Metric(InitArgsMixin):
    """What scores predictions; a user's own derives from it. `higher_is_better` and `compute` must be given."""

    kinds: Sequence[str] = ("classification", "regression", "multilabel")
    """The kinds of target that it scores."""

    higher_is_better: bool
    """Its direction."""

    name: str
    """What its score is called, and `val_` before it what is logged; the class's own name where none is given."""

    wants_probabilities: bool = False
    """Whether it scores probabilities and not the most probable class: a submission then holds probabilities."""

    needs_probabilities: bool = False
    """Whether it is undefined for predictions outside 0–1, which are then refused."""

    scores_grades: bool = False
    """Whether it counts how far grades are apart: classes need an order, and a submission holds whole numbers."""

    outputs: Sequence[str] = ()
    """Names of the K outputs, when `compute` is called; empty where no table is known."""

    grades: Array | None = None
    """What a schema's `grades` says, when `compute` is called."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = cls.__name__

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score of N rows.

        Args:
            predictions: float64 (N, K) in the competition's units: probabilities of classes or labels, or numbers.
            targets: int64 (N,) for classification, else float64 (N, K).
            rows: pandas DataFrame of N rows with the table's columns as text, `""` where a cell is empty; None where
                there is no table, as with loaders that are no datamodule's.

        Returns:
            The score; NaN where it is undefined, for which infinity counts, too.
        """
        raise NotImplementedError


class BuiltinMetric(Metric):
    """A metric of this module, which has a name of its own and reads no table.

    Args:
        function: Predictions float64 (N, K), targets, and grades to a number; NaN where it is undefined.
        higher_is_better: Its direction.
        kinds: The kinds of target that it scores.
        needs: Which of a metric's attributes are true, by their names.
    """

    def __init__(
        self,
        function: Callable[[Array, Array, Array | None], float],
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
        return self.function(predictions, targets, self.grades)


def accuracy(predictions: Array, targets: Array, grades: Array | None = None) -> float:
    """Share of rows whose most probable class is right."""
    return float((predictions.argmax(1) == targets).mean())


def macro_f1(predictions: Array, targets: Array, grades: Array | None = None) -> float:
    """Mean over classes of the F1 of the most probable class; classes neither present nor predicted do not count."""
    from sklearn.metrics import f1_score

    return float(f1_score(targets, predictions.argmax(1), average="macro", zero_division=0))


def log_loss(predictions: Array, targets: Array, grades: Array | None = None) -> float:
    """Mean negative log probability of the true class, clipped at 2.2e-16, as scikit-learn does in float64."""
    eps = np.finfo(np.float64).eps
    return float(-np.log(np.clip(predictions[np.arange(len(targets)), targets], eps, 1 - eps)).mean())


def auc(predictions: Array, targets: Array, grades: Array | None = None) -> float:
    """Area under the ROC curve: of the second class for two, else the mean over classes of one against the rest.

    Classes that no row has, or that all rows have, do not count.
    """
    if predictions.shape[1] == 2:
        return _binary_auc(predictions[:, 1], targets == 1)
    return _mean([_binary_auc(column, targets == k) for k, column in enumerate(predictions.T)])


def mean_column_auc(predictions: Array, targets: Array, grades: Array | None = None) -> float:
    """Mean over labels of the area under the ROC curve; labels that no row has, or that all have, do not count.

    Raises:
        InputError: Targets are shares, and not 0 or 1.
    """
    if not np.isin(targets, (0, 1)).all():
        raise InputError("mean_column_auc needs targets of 0 and 1, and some lie between: choose another metric.")
    return _mean([_binary_auc(p, t > 0.5) for p, t in zip(predictions.T, targets.T, strict=True)])


def quadratic_kappa(predictions: Array, targets: Array, grades: Array | None = None) -> float:
    """Quadratically weighted kappa of the most probable class, or of grades; the mean over target columns.

    Numbers become grades as in a submission: rounded, and clipped to the training table's lowest and highest grade.
    Classes stand for the numbers that their names are, or for their place in `data.columns.class_order`.
    """
    if targets.ndim == 1:
        values = np.arange(predictions.shape[1]) if grades is None else grades
        return _kappa(values[predictions.argmax(1)], values[targets])
    low, high = (targets.min(0), targets.max(0)) if grades is None else grades
    given = to_grades(predictions, low, high)
    return float(np.mean([_kappa(p, t) for p, t in zip(given.T, np.rint(targets).T, strict=True)]))


def rmse(predictions: Array, targets: Array, grades: Array | None = None) -> float:
    """Root of the mean squared error; the mean over target columns."""
    return float(np.sqrt(np.square(predictions - targets).mean(0)).mean())


def mae(predictions: Array, targets: Array, grades: Array | None = None) -> float:
    """Mean absolute error; the mean over target columns."""
    return float(np.abs(predictions - targets).mean())


def r2(predictions: Array, targets: Array, grades: Array | None = None) -> float:
    """Share of variance explained; the mean over target columns. Undefined for fewer than two rows."""
    from sklearn.metrics import r2_score

    return float(r2_score(targets, predictions)) if len(targets) > 1 else math.nan


def _binary_auc(scores: Array, is_positive: Array) -> float:
    """Area under the ROC curve (N,); NaN where only one side is there."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(is_positive, scores)) if 0 < is_positive.sum() < len(is_positive) else math.nan


def _kappa(given: Array, wanted: Array) -> float:
    """1 less the mean squared disagreement over what chance gives, of numbers (N,): no table of all pairs of grades.

    NaN where there is no chance of disagreement: all grades are the same.
    """
    by_chance = given.var() + wanted.var() + (given.mean() - wanted.mean()) ** 2
    return float(1 - np.square(given - wanted).mean() / by_chance) if by_chance > 0 else math.nan


def _mean(values: list[float]) -> float:
    """Mean of what is defined; NaN where nothing is."""
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


METRICS = {
    metric.name: metric
    for metric in (
        BuiltinMetric(accuracy, True, ("classification",)),
        BuiltinMetric(macro_f1, True, ("classification",)),
        BuiltinMetric(log_loss, False, ("classification",), "wants_probabilities", "needs_probabilities"),
        BuiltinMetric(auc, True, ("classification",), "wants_probabilities"),
        BuiltinMetric(mean_column_auc, True, ("multilabel",), "wants_probabilities"),
        BuiltinMetric(quadratic_kappa, True, ("classification", "regression"), "scores_grades"),
        BuiltinMetric(rmse, False, ("regression",)),
        BuiltinMetric(mae, False, ("regression",)),
        BuiltinMetric(r2, True, ("regression",)),
    )
}


@dataclass(frozen=True)
class Traits:
    """What a submission must know of the first metric; the attributes of a `Metric`."""

    name: str = ""
    wants_probabilities: bool = False
    scores_grades: bool = False


def traits_of(metric: str | Metric) -> Traits:
    """What a submission must know of a metric; nothing of a name that is none."""
    found = METRICS.get(metric) if isinstance(metric, str) else metric
    return Traits(found.name, found.wants_probabilities, found.scores_grades) if found else Traits()
