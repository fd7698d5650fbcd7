"""Metrics score pooled rows: which ones a config asks for, and the one place that calls them.

Shapes: N rows, K outputs.
"""

import copy
import math
import numbers
import re
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from swinft.errors import InputError, number_of, suggest
from swinft.model.class_spec import class_path_of
from swinft.model.metrics import METRICS, Array, BuiltinMetric, Metric

# How far a probability may lie outside 0–1: rounding of a softmax in bf16, and no more.
TOLERANCE = 1e-2


def chosen_metrics(given: Sequence[str | Metric], kind: str) -> list[Metric]:
    """The metrics that are asked for, checked for a kind of target.

    Args:
        given: Names of `METRICS`, and metrics of the user's own.
        kind: The kind of target.

    Raises:
        InputError: There is none, one is unknown, doubled, for another kind, or does not say what it must; all of them
            are listed.
    """
    allowed = [name for name, metric in METRICS.items() if kind in metric.kinds]
    wrong = [problem for each in given if (problem := _problem(each, kind, allowed))]
    if wrong:
        known = f"Metrics of {kind}: {', '.join(allowed)}; `swinft metrics` defines them."
        raise InputError("\n  ".join(["wrong metrics:", *wrong, known]))
    metrics = [METRICS[each] if isinstance(each, str) else each for each in given]
    names = [metric.name for metric in metrics]
    if not names or len(set(names)) < len(names):
        own = "; two of one class need an attribute `name` each" if any(map(is_custom, metrics)) else ""
        raise InputError(f"model.metrics is {names}: name at least one, each once, of {', '.join(allowed)}{own}.")
    return metrics


def _problem(given: Any, kind: str, allowed: Sequence[str]) -> str:
    """What is wrong with one metric; empty when nothing is."""
    if isinstance(given, str):
        return "" if given in allowed else f"'{given}' does not score {kind} (model.metrics).{suggest(given, allowed)}"
    if not isinstance(given, Metric):
        return f"{given!r} is neither a name nor a metric (model.metrics): give an object derived from swinft.Metric."
    what = f"{class_path_of(type(given))} (model.metrics)"
    if not isinstance(getattr(given, "higher_is_better", None), bool):
        return f"{what} does not say its direction: set `higher_is_better` to True or False."
    if isinstance(given.kinds, str) or not all(isinstance(each, str) for each in given.kinds):
        return f'{what} has `kinds` {given.kinds!r}: write a list of kinds of target, as in `kinds = ["regression"]`.'
    if kind not in given.kinds:
        return f"{what} scores {', '.join(given.kinds)}, and not {kind}."
    if not isinstance(given.name, str) or not re.fullmatch(r"[\w.@-]+", given.name) or given.name == "loss":
        return f"{what} has the name {given.name!r}: write letters, digits, `_`, `-`, `.` and `@`, and not `loss`."
    is_taken = METRICS.get(given.name) not in (None, given)
    return f"{what} has the name of another metric: '{given.name}'." if is_taken else ""


def is_custom(metric: Metric) -> bool:
    """Whether a metric is a user's own, which may read the table's columns, and may fail."""
    return not isinstance(metric, BuiltinMetric)


def score(
    metrics: Sequence[str | Metric],
    kind: str,
    predictions: Tensor | ArrayLike,
    targets: Tensor | ArrayLike,
    grades: ArrayLike | None = None,
    *,
    outputs: Sequence[str] = (),
    rows: Any = None,
) -> dict[str, float]:
    """Scores pooled rows.

    Args:
        metrics: Names of `METRICS`, and metrics of the user's own.
        kind: The kind of target.
        predictions: Float (N, K), in the competition's units.
        targets: Whole numbers (N,) for classification, else float (N, K).
        grades: What a schema's `grades` says: the number that each class stands for (K,), or the lowest and the highest
            training target of each column (2, K). None for the classes' positions, or for the range of `targets`.
        outputs: Names of the K outputs, where they are known.
        rows: pandas DataFrame (N rows) of the table's columns as text, in the order of the predictions; None where
            there is no table.

    Returns:
        Every metric's value; NaN where it is undefined, as it is for a prediction that is NaN or infinite.

    Raises:
        InputError: A name is wrong, a metric of probabilities is given other numbers, or a user's own fails.
    """
    chosen = chosen_metrics(metrics, kind)
    given, wanted = (_array(values) for values in (predictions, targets))
    wanted = wanted.astype(np.int64 if wanted.ndim == 1 else np.float64)  # (N,) are class indices
    if not len(given) or not np.isfinite(given).all():
        return {metric.name: math.nan for metric in chosen}
    _check_probabilities(chosen, given)
    scale = None if grades is None else np.asarray(grades, np.float64)
    return {metric.name: _value(_with_context(metric, outputs, scale), given, wanted, rows) for metric in chosen}


def _with_context(metric: Metric, outputs: Sequence[str], grades: Array | None) -> Metric:
    """The metric, knowing the outputs and grades: a copy, since those that have a name are shared."""
    told = copy.copy(metric)
    told.outputs, told.grades = list(outputs), grades
    return told


def _value(metric: Metric, predictions: Array, targets: Array, rows: Any) -> float:
    """One metric's value.

    Raises:
        InputError: A user's own fails, or gives no number.
    """
    if not is_custom(metric):
        return metric.compute(predictions, targets, rows)
    what = f"model.metrics: {class_path_of(type(metric))}.compute"
    try:
        # Copies: what one metric changes in place must not reach the next one.
        value: Any = metric.compute(predictions.copy(), targets.copy(), None if rows is None else rows.copy())
        number = value.item() if getattr(value, "shape", None) == () else value
    except InputError:
        raise
    except Exception as error:  # whatever a user's code does not like
        last = traceback.extract_tb(error.__traceback__)[-1]
        without = "; `rows` is None, as there is no table" if rows is None else ""
        raise InputError(
            f"{what} fails for {number_of(len(targets), 'row')}: {type(error).__name__}: {error} "
            f"({Path(last.filename).name}:{last.lineno}{without})."
        ) from error
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        raise InputError(f"{what} gives {number!r}, a {type(number).__name__}; it must give one number.")
    return float(number) if math.isfinite(number) else math.nan


def _array(values: Tensor | ArrayLike) -> Array:
    """Float64 on the CPU, where every float32 is exact."""
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values).astype(np.float64)


def _check_probabilities(metrics: Sequence[Metric], predictions: Array) -> None:
    """Refuses to call a number a probability that is none.

    Raises:
        InputError: One lies outside 0–1.
    """
    low, high = float(predictions.min()), float(predictions.max())
    wrong = [metric.name for metric in metrics if metric.needs_probabilities]
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
