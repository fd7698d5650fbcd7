"""Competition metrics on pooled rows.

Each is a function of all predictions and all targets at once, in the competition's units: a mean of batch or fold
scores is another number.

Shapes: N rows, K outputs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchmetrics.functional import classification, mean_absolute_error, mean_squared_error, r2_score

from swinft.errors import InputError, suggest
from swinft.model.rounding import to_grades


@dataclass(frozen=True)
class Metric:
    """A metric.

    Args:
        compute: Predictions (N, K) and targets to a scalar; NaN where it is undefined.
        higher_is_better: Its direction.
        kinds: The kinds of target that it scores.
    """

    compute: Callable[[Tensor, Tensor], Tensor]
    higher_is_better: bool
    kinds: tuple[str, ...]


def accuracy(predictions: Tensor, targets: Tensor) -> Tensor:
    """Share of rows whose most probable class is right."""
    return (predictions.argmax(1) == targets).float().mean()


def macro_f1(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean over classes of the F1 of the most probable class; classes neither present nor predicted do not count."""
    return classification.multiclass_f1_score(predictions, targets, predictions.shape[1], average="macro")


def log_loss(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean negative log probability of the true class, clipped to float32's resolution as scikit-learn does."""
    eps = torch.finfo(torch.float32).eps
    clipped = predictions.double().clamp(eps, 1 - eps)
    return -clipped.gather(1, targets[:, None]).log().mean().float()


def auc(predictions: Tensor, targets: Tensor) -> Tensor:
    """Area under the ROC curve: of the second class for two, else the mean of one against the rest."""
    num_classes = predictions.shape[1]
    if len(torch.unique(targets)) < num_classes:
        return torch.tensor(torch.nan)
    if num_classes == 2:
        return classification.binary_auroc(predictions[:, 1], targets)
    score: Tensor = classification.multiclass_auroc(predictions, targets, num_classes, average="macro")
    return score


def mean_column_auc(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean over labels of the area under the ROC curve; undefined while a label has only one value."""
    if any(len(torch.unique(column)) < 2 for column in targets.T):
        return torch.tensor(torch.nan)
    columns = [classification.binary_auroc(p, t.long()) for p, t in zip(predictions.T, targets.T, strict=True)]
    return torch.stack(columns).mean()


def quadratic_kappa(predictions: Tensor, targets: Tensor) -> Tensor:
    """Quadratically weighted kappa of the most probable class, or of grades; the mean over target columns.

    Numbers become grades as in a submission: rounded, and clipped to the range of the column's targets.
    """
    if predictions.shape[1] > 1 and targets.ndim == 1:
        return _kappa(predictions.argmax(1), targets, predictions.shape[1])
    wanted = targets.round().long().reshape(len(targets), -1)
    grades_of = to_grades(predictions.numpy(), wanted.amin(0).numpy(), wanted.amax(0).numpy())
    rounded = torch.from_numpy(grades_of).long()
    low = torch.minimum(rounded.min(), wanted.min())
    grades = int(torch.maximum(rounded.max(), wanted.max()) - low) + 1
    columns = zip((rounded - low).T, (wanted - low).T, strict=True)
    return torch.stack([_kappa(p, t, max(grades, 2)) for p, t in columns]).mean()


def rmse(predictions: Tensor, targets: Tensor) -> Tensor:
    """Root of the mean squared error; the mean over target columns."""
    return mean_squared_error(predictions, targets, squared=False, num_outputs=predictions.shape[1]).mean()


def mae(predictions: Tensor, targets: Tensor) -> Tensor:
    """Mean absolute error; the mean over target columns."""
    return mean_absolute_error(predictions, targets)


def r2(predictions: Tensor, targets: Tensor) -> Tensor:
    """Share of variance explained; the mean over target columns. Undefined for fewer than two rows."""
    if len(targets) < 2:
        return torch.tensor(torch.nan)
    return r2_score(predictions, targets)


METRICS = {
    "accuracy": Metric(accuracy, True, ("classification",)),
    "macro_f1": Metric(macro_f1, True, ("classification",)),
    "log_loss": Metric(log_loss, False, ("classification",)),
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


def score(names: Sequence[str], kind: str, predictions: Tensor, targets: Tensor) -> dict[str, float]:
    """Scores pooled rows.

    Args:
        names: Metrics of `METRICS`.
        kind: The kind of target.
        predictions: float (N, K), in the competition's units.
        targets: int64 (N,) for classification, else float (N, K).

    Returns:
        Every metric's value; NaN where it is undefined.
    """
    check_metrics(names, kind)
    return {name: METRICS[name].compute(predictions.float().cpu(), targets.cpu()).item() for name in names}


def _kappa(predictions: Tensor, targets: Tensor, grades: int) -> Tensor:
    return classification.multiclass_cohen_kappa(predictions, targets, grades, weights="quadratic")
