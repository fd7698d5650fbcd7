"""Competition metrics on pooled rows.

Each is a function of all predictions and all targets at once, in the competition's units and in float64: a mean of
batch or fold scores is another number, and float32 is too coarse for years and prices. Definitions are scikit-learn's.

Shapes: N rows, K outputs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from swinft.errors import InputError, suggest
from swinft.model.grades import to_grades

Array = NDArray[Any]
# How far a probability may lie outside 0–1: rounding of a softmax in bf16, and no more.
TOLERANCE = 1e-2


@dataclass(frozen=True)
class Metric:
    """A metric.

    Args:
        compute: Predictions float64 (N, K), targets, and grades to a number; NaN where it is undefined.
        higher_is_better: Its direction.
        kinds: The kinds of target that it scores.
        needs: What it reads of predictions: "probabilities", which must lie in 0–1, or nothing in particular.
    """

    compute: Callable[[Array, Array, Array | None], float]
    higher_is_better: bool
    kinds: tuple[str, ...]
    needs: str = ""


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
    """Mean over labels of the area under the ROC curve; labels that no row has, or that all have, do not count."""
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
    "accuracy": Metric(accuracy, True, ("classification",)),
    "macro_f1": Metric(macro_f1, True, ("classification",)),
    "log_loss": Metric(log_loss, False, ("classification",), "probabilities"),
    "auc": Metric(auc, True, ("classification",)),
    "mean_column_auc": Metric(mean_column_auc, True, ("multilabel",)),
    "quadratic_kappa": Metric(quadratic_kappa, True, ("classification", "regression")),
    "rmse": Metric(rmse, False, ("regression",)),
    "mae": Metric(mae, False, ("regression",)),
    "r2": Metric(r2, True, ("regression",)),
}


def check_metrics(names: Sequence[str], kind: str) -> None:
    """Checks metric names for a kind of target.

    Raises:
        InputError: There is none, one is unknown, doubled, or for another kind; all of them are listed.
    """
    allowed = [name for name, metric in METRICS.items() if kind in metric.kinds]
    wrong = [name for name in names if name not in allowed]
    if wrong:
        lines = [f"'{name}' does not score {kind} (model.metrics).{suggest(name, allowed)}" for name in wrong]
        known = f"Metrics of {kind}: {', '.join(allowed)}; `swinft metrics` defines them."
        raise InputError("\n  ".join(["wrong metrics:", *lines, known]))
    if not names or len(set(names)) < len(names):
        raise InputError(f"model.metrics is {list(names)}: name at least one, each once, of {', '.join(allowed)}.")


def score(
    names: Sequence[str],
    kind: str,
    predictions: Tensor | ArrayLike,
    targets: Tensor | ArrayLike,
    grades: ArrayLike | None = None,
) -> dict[str, float]:
    """Scores pooled rows.

    Args:
        names: Metrics of `METRICS`.
        kind: The kind of target.
        predictions: Float (N, K), in the competition's units.
        targets: Whole numbers (N,) for classification, else float (N, K).
        grades: What a schema's `grades` says: the number that each class stands for (K,), or the lowest and the highest
            training target of each column (2, K). None for the classes' positions, or for the range of `targets`.

    Returns:
        Every metric's value; NaN where it is undefined, as it is for a prediction that is NaN or infinite.

    Raises:
        InputError: A name is wrong, or a metric of probabilities is given other numbers.
    """
    check_metrics(names, kind)
    given, wanted = (_array(values) for values in (predictions, targets))
    wanted = wanted.astype(np.int64 if kind == "classification" else np.float64)
    if not len(given) or not np.isfinite(given).all():
        return dict.fromkeys(names, math.nan)
    _check_probabilities(names, given)
    scale = None if grades is None else np.asarray(grades, np.float64)
    return {name: METRICS[name].compute(given, wanted, scale) for name in names}


def _array(values: Tensor | ArrayLike) -> Array:
    """Float64 on the CPU, where every float32 is exact."""
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values).astype(np.float64)


def _check_probabilities(names: Sequence[str], predictions: Array) -> None:
    """Refuses to call a number a probability that is none.

    Raises:
        InputError: One lies outside 0–1.
    """
    low, high = float(predictions.min()), float(predictions.max())
    wrong = [name for name in names if METRICS[name].needs == "probabilities"]
    if wrong and not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        raise InputError(
            f"{', '.join(wrong)} needs probabilities in 0–1, and the predictions reach from {low:.4g} to {high:.4g}. "
            f"A head's `decode` must end in a softmax or a sigmoid; or choose another metric (model.metrics)."
        )


def names_by_kind() -> str:
    """The metrics' names for help: `classification: accuracy, …; regression: …`."""
    kinds = dict.fromkeys(kind for metric in METRICS.values() for kind in metric.kinds)
    names = {kind: ", ".join(name for name, metric in METRICS.items() if kind in metric.kinds) for kind in kinds}
    return "; ".join(f"{kind}: {listed}" for kind, listed in names.items())
