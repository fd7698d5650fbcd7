"""Selects and checks the configured metrics, and computes their scores on pooled rows.

Shapes: N rows, K outputs.
"""

import copy
import math
import numbers
import re
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from swinft.class_spec import class_path_of, from_spec
from swinft.errors import InputError, number_of, suggest
from swinft.model.heads.base import takes_classes
from swinft.model.metrics import METRICS, Array, BuiltinMetric, Metric, mean_of_defined, metric_of, word_of

# How far a probability may be outside 0–1: the rounding error of a softmax in bf16.
TOLERANCE = 1e-2


def chosen_metrics(given: Sequence[Any], kind: str) -> list[Metric]:
    """The configured metrics, checked for a kind of target.

    Args:
        given: Names in `METRICS`; mappings of a name to its arguments; and metrics.
        kind: The kind of target.

    Raises:
        InputError: There is none, or one is unknown, given twice, for another kind, or lacks a required attribute. All
            problems are listed.
    """
    allowed = [name for name, metric in METRICS.items() if kind in metric.kinds]
    metrics, wrong = list[Metric](), list[str]()
    for each in given:
        try:
            metrics.append(_chosen(each, kind, allowed))
        except InputError as error:
            wrong.append(str(error))
    if wrong:
        known = f"Metrics of {kind}: {', '.join(allowed)}; `swinft metrics` defines them."
        raise InputError("\n  ".join(["wrong metrics:", *wrong, known]))
    names = [metric.name for metric in metrics]
    if not names or len(set(names)) < len(names):
        hint = "; two of one class need an attribute `name` each" if any(map(is_custom, metrics)) else ""
        hint = hint or ("; give one of the same word another `name`" * any(map(_has_arguments, given)))
        raise InputError(f"model.metrics is {names}: name at least one, each once, of {', '.join(allowed)}{hint}.")
    return metrics


def metric_from_spec(given: Any) -> Any:
    """The metric of a checkpoint's spec; a name, with or without arguments, and an object as they are."""
    return from_spec(given, Metric, "a metric")  # type: ignore[type-abstract]  # a base class, not to be instantiated


def _chosen(given: Any, kind: str, allowed: Sequence[str]) -> Metric:
    """A configured metric.

    Raises:
        InputError: It is unknown, for another kind, or lacks a required attribute, or its arguments are wrong.
    """
    word = word_of(given)
    if word and word not in allowed:
        raise InputError(f"'{word}' does not score {kind} (model.metrics).{suggest(word, allowed)}")
    try:
        metric = metric_of(given)
    except InputError as error:
        raise InputError(f"model.metrics: {error}") from None
    if problem := _problem(metric, kind):
        raise InputError(problem)
    found: Metric = metric
    return found


def _has_arguments(given: Any) -> bool:
    return isinstance(given, Mapping)


def _problem(given: Any, kind: str) -> str:
    """The problem with a metric; empty if there is none."""
    if not isinstance(given, Metric):
        return f"{given!r} is neither a name nor a metric (model.metrics): give an object derived from swinft.Metric."
    what = f"{class_path_of(type(given))} (model.metrics)"
    if not isinstance(getattr(given, "higher_is_better", None), bool):
        return f"{what} has no direction: set `higher_is_better` to True or False."
    if isinstance(given.kinds, str) or not all(isinstance(each, str) for each in given.kinds):
        return f'{what} has `kinds` {given.kinds!r}: write a list of kinds of target, as in `kinds = ["regression"]`.'
    if isinstance(given.columns, str) or not all(isinstance(each, str) for each in given.columns):
        return f'{what} has `columns` {given.columns!r}: write a list of columns, as in `columns = ["study"]`.'
    if kind not in given.kinds:
        return f"{what} scores {', '.join(given.kinds)}, and not {kind}."
    if not isinstance(given.name, str) or not re.fullmatch(r"[\w.@-]+", given.name) or given.name == "loss":
        return f"{what} has the name {given.name!r}: write letters, digits, `_`, `-`, `.` and `@`, and not `loss`."
    is_taken = METRICS.get(given.name) not in (None, type(given))
    return f"{what} has the name of another metric: '{given.name}'." if is_taken else ""


def is_custom(metric: Metric) -> bool:
    """Whether a metric is custom: it may read all of the table's columns, and may fail."""
    return not isinstance(metric, BuiltinMetric)


def reads_table(metrics: Sequence[Metric]) -> bool:
    """Whether any of the metrics reads columns of the table."""
    return any(is_custom(metric) or metric.columns for metric in metrics)


def refusals(metrics: Sequence[Metric], kind: str, outputs: Sequence[str]) -> list[str]:
    """Why metrics cannot score targets of a kind, one sentence each.

    Args:
        metrics: Metrics of this kind.
        kind: The kind of target.
        outputs: Names of the K outputs; empty if they are not known.
    """
    problems = []
    for metric in metrics:
        told = copy.copy(metric)
        told.outputs = list(outputs)
        if refusal := told.refusal(kind):
            problems.append(f"{metric.name} (model.metrics): {refusal}")
    return problems


def score(
    metrics: Sequence[Any],
    kind: str,
    predictions: Tensor | ArrayLike,
    targets: Tensor | ArrayLike,
    grades: ArrayLike | None = None,
    *,
    outputs: Sequence[str] = (),
    rows: Any = None,
    weights: ArrayLike | None = None,
    unseen: ArrayLike | None = None,
) -> dict[str, float]:
    """Scores pooled rows.

    Args:
        metrics: As for `chosen_metrics`.
        kind: The kind of target.
        predictions: Float (N, K), in the competition's units.
        targets: Whole numbers (N,) for classification, or soft targets (N, K); else float (N, K), NaN where a
            row lacks one of several targets.
        grades: A schema's `grades`: the grade of each class (K,), or the lowest and the highest training target of each
            column (2, K). None for the positions of the classes, or the range of `targets`.
        outputs: Names of the K outputs, if they are known.
        rows: pandas DataFrame (N rows) of the table's columns as text, in the order of the predictions; None if there
            is no table.
        weights: Weight of each row in the metrics, (N,), from 0; None for equal weights.
        unseen: Rows whose class no training row of their fold has, bool (N,); None if not known.

    Returns:
        The score of every metric; NaN if it is undefined or any prediction is NaN or infinite.

    Raises:
        InputError: A name is wrong, a metric cannot score these rows, needs probabilities and gets other numbers, or
            reads a column that the table does not have; or a custom metric fails.
    """
    chosen = chosen_metrics(metrics, kind)
    _check_rows(chosen, kind, outputs, rows, weights is not None)
    given = _numpy(predictions)
    if not (given.dtype == np.float32 and takes_classes(kind) and all(map(takes_float32, chosen))):
        given = given.astype(np.float64)
    wanted = _array(targets)
    wanted = wanted.astype(np.int64 if wanted.ndim == 1 else np.float64)  # (N,) are class indices
    counted = None if weights is None else _array(weights)
    if not len(given) or not np.isfinite(given).all() or (counted is not None and not counted.any()):
        return {metric.name: math.nan for metric in chosen}
    _check_probabilities(chosen, given)
    scale = None if grades is None else np.asarray(grades, np.float64)
    new = None if unseen is None else np.asarray(unseen, bool)
    told = {metric.name: _with_context(metric, outputs, scale, counted, new) for metric in chosen}
    return {name: _value(metric, given, wanted, rows, kind) for name, metric in told.items()}


def _check_rows(metrics: Sequence[Metric], kind: str, outputs: Sequence[str], rows: Any, is_weighted: bool) -> None:
    """Checks that metrics can score these rows.

    Raises:
        InputError: One cannot, or the table lacks a column; all problems are listed.
    """
    problems = refusals(metrics, kind, outputs)
    for metric in metrics:
        what = f"{metric.name} (model.metrics)"
        if is_weighted and not metric.takes_weights:
            problems.append(f"{what} has no weighted form: set data.columns.weight without in_score, or remove it.")
        if metric.columns and rows is None and not is_custom(metric):
            problems.append(f"{what} reads the column '{metric.columns[0]}', and there is no table.")
        for name in metric.columns if rows is not None else ():
            if name not in rows.columns:
                problems.append(
                    f"{what} reads the column '{name}', which the table lacks.{suggest(name, rows.columns)}"
                )
    if problems:
        raise InputError("\n  ".join(problems))


def _with_context(
    metric: Metric, outputs: Sequence[str], grades: Array | None, weights: Array | None, unseen: Array | None
) -> Metric:
    """A copy of the metric with what it may use; one object may be used for several runs."""
    copied = copy.copy(metric)
    copied.outputs, copied.grades, copied.weights, copied.unseen = list(outputs), grades, weights, unseen
    return copied


def _of_known(metric: BuiltinMetric, predictions: Array, targets: Array, rows: Any, kind: str) -> float:
    """The score of a built-in metric, in which missing targets do not count.

    Raises:
        InputError: Some are missing, and the metric scores whole rows.
    """
    if takes_classes(kind) and targets.ndim == 2 and not metric.scores_soft:
        targets = targets.argmax(1)
    if targets.ndim == 1 or metric.gaps == "own" or not np.isnan(targets).any():
        return metric.compute(predictions, targets, rows)
    if metric.gaps == "none":
        raise InputError(
            f"{metric.name} (model.metrics) scores whole rows, and some lack some of their targets. Choose another "
            f"metric, or set data.columns.on_missing_target to skip."
        )
    scores = []
    for k, is_known in enumerate(~np.isnan(targets).T):
        alone = copy.copy(metric)
        alone.grades = None if metric.grades is None else metric.grades[:, [k]]
        alone.weights = None if metric.weights is None else metric.weights[is_known]
        column = (predictions[is_known][:, [k]], targets[is_known][:, [k]])
        counts = is_known.any() and (alone.weights is None or alone.weights.any())
        scores.append(alone.compute(*column, None) if counts else math.nan)
    return mean_of_defined(scores)


def _value(metric: Metric, predictions: Array, targets: Array, rows: Any, kind: str) -> float:
    """The score of one metric.

    Raises:
        InputError: A custom metric fails, or does not return a number; or a built-in one cannot score the rows.
    """
    if isinstance(metric, BuiltinMetric):
        value = _of_known(metric, predictions, targets, rows, kind)
        return value if math.isfinite(value) else math.nan
    what = f"model.metrics: {class_path_of(type(metric))}.compute"
    try:
        # Copies: a change in place by one metric must not affect the next one.
        found: Any = metric.compute(predictions.copy(), targets.copy(), None if rows is None else rows.copy())
        number = found.item() if getattr(found, "shape", None) == () else found
    except InputError:
        raise
    except Exception as error:  # custom code may raise anything
        last = traceback.extract_tb(error.__traceback__)[-1]
        note = "; `rows` is None, as there is no table" if rows is None else ""
        raise InputError(
            f"{what} fails for {number_of(len(targets), 'row')}: {type(error).__name__}: {error} "
            f"({Path(last.filename).name}:{last.lineno}{note})."
        ) from error
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
        raise InputError(f"{what} returns {number!r}, a {type(number).__name__}; it must return one number.")
    return float(number) if math.isfinite(number) else math.nan


def _array(values: Tensor | ArrayLike) -> Array:
    """Values as float64 on the CPU, which represents every float32 exactly."""
    return _numpy(values).astype(np.float64)


def _numpy(values: Tensor | ArrayLike) -> Array:
    return np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)


def takes_float32(metric: Metric) -> bool:
    """Whether predictions of classes need no copy in float64 for a metric."""
    return isinstance(metric, BuiltinMetric) and metric.takes_float32


def _check_probabilities(metrics: Sequence[Metric], predictions: Array) -> None:
    """Checks that predictions are in 0–1 if a metric needs probabilities.

    Raises:
        InputError: One is outside.
    """
    low, high = float(predictions.min()), float(predictions.max())
    wrong = [metric.name for metric in metrics if metric.needs_probabilities]
    if wrong and not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        raise InputError(
            f"{', '.join(wrong)} needs probabilities in 0–1, and the predictions are from {low:.4g} to {high:.4g}. "
            f"A head's `decode` must end in a softmax or a sigmoid; or choose another metric (model.metrics)."
        )
