"""Rules with parameters that are fitted on out-of-fold predictions, and their cross-fitting.

The parameters that change the test predictions are fitted on all out-of-fold rows. A score of these rows would be too
good, as each row took part in the fit. The score that is shown is therefore cross-fitted: the rows of a fold are
changed by parameters that were fitted on the rows of the other folds.

Shapes: N rows, K outputs.
"""

import copy
import json
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from swinft.data.schema import Schema
from swinft.errors import InputError, listed, suggest
from swinft.inference.predictions import Predictions
from swinft.inference.rules.rule import KEY, Rule, Values, apply_rule, label, numbered, told
from swinft.model.metrics import METRICS, Metric
from swinft.model.scoring import chosen_metrics

SHOWN = 6  # numbers of a list of parameters that are printed
# Metrics, predictions (n, K), numbers of the rows and names of the outputs to each metric's value.
ScoreSome = Callable[[Sequence[str | Metric], NDArray[Any], NDArray[np.int64], list[str]], Mapping[str, float]]


@dataclass(frozen=True)
class Score:
    """The metric that a rule is fitted for, on the rows that it is fitted on; called with predictions of these rows.

    Args:
        name: Name of the metric.
        gain: Predictions (N, K) to the metric, higher is better; NaN if it is undefined.
        weights: What each row counts, (N,).
        compares_order: Whether only the order of the rows by each output counts.
    """

    name: str
    gain: Callable[[Values], float]
    weights: Values
    compares_order: bool = False

    def __call__(self, values: Values) -> float:
        """The metric of predictions (N, K): higher is better, minus infinity if it is undefined."""
        found = self.gain(values)
        return found if math.isfinite(found) else -math.inf


class FittedRule(Rule):
    """A rule with fitted parameters. A custom one derives from it and implements `fit` and `apply`.

    Parameters are plain JSON values, and depend only on what `fit` is given: `check` calls it twice.
    """

    metric: str | None = None
    """Name of the metric that `fit` gets as `score`; None for the run's first one."""

    uses_targets: bool = True
    """Whether the parameters depend on the targets; if not, there is nothing to cross-fit."""

    parameters: Any = None
    """What `fit` returned, set before `apply` is called."""

    @abstractmethod
    def fit(self, values: Values, targets: Values, rows: pd.DataFrame, score: Score) -> dict[str, Any]:
        """Fits the parameters.

        Args:
            values: Out-of-fold predictions, float64 (N, K): a copy.
            targets: Targets, float64 (N, K): 1 for the class of a row and 0 for the others; NaN where missing.
            rows: The `columns` of the N rows, as for `apply`.
            score: The metric of predictions (N, K) of these rows: `score(values)`, higher is better.

        Returns:
            Numbers, texts, lists and dictionaries with text keys.
        """

    def describe(self) -> str:
        """The parameters as text."""
        return ", ".join(f"{name} {_text(value)}" for name, value in (self.parameters or {}).items())

    def with_parameters(self, parameters: Any) -> Self:
        """A copy with parameters."""
        copied = copy.copy(self)
        copied.parameters = parameters
        return copied


@dataclass(frozen=True)
class FitRows:
    """Rows that rules are fitted on.

    Args:
        predictions: Their out-of-fold predictions, with the fold of each row.
        targets: As for `FittedRule.fit`.
        rows: The columns that the rules read, as text.
        schema: The run's outputs.
        scorer: The name of a metric (None for the first one), numbers of some of the rows, and the names of the outputs
            to the metric of predictions of these rows.
    """

    predictions: Predictions
    targets: Values
    rows: pd.DataFrame
    schema: Schema
    scorer: Callable[[str | None, NDArray[np.int64], list[str]], Score]

    def take(self, numbers: NDArray[np.int64]) -> Predictions:
        """The predictions of some rows."""
        found, fold = self.predictions, self.predictions.fold
        folds = None if fold is None else fold[numbers]
        return Predictions([found.ids[row] for row in numbers], found.values[numbers], found.outputs, folds)


def objective(name: str | None, metrics: Sequence[str | Metric], kind: str) -> Metric:
    """The metric that a rule is fitted for.

    Args:
        name: One of the run's metrics, or any other; None for the first one.
        metrics: The run's metrics.
        kind: The kind of target.

    Raises:
        InputError: There is no such metric of this kind.
    """
    of_run = chosen_metrics(metrics, kind)
    found = of_run[0] if name is None else next((each for each in of_run if each.name == name), METRICS.get(name))
    if found is None:
        known = [*(each.name for each in of_run), *METRICS]
        raise InputError(f"{KEY}: there is no metric '{name}'.{suggest(str(name), known)}")
    return chosen_metrics([found if found in of_run else found.name], kind)[0]


def fit_rows(
    predictions: Predictions,
    targets: NDArray[Any],
    rows: pd.DataFrame,
    schema: Schema,
    weights: NDArray[Any] | None,
    metrics: Sequence[str | Metric],
    score: ScoreSome,
) -> FitRows:
    """Rows that rules are fitted on, with the run's metrics.

    Args:
        predictions: Their predictions, and the fold of each.
        targets: Their targets: class indices (N,), or numbers (N, K).
        rows: The columns that the rules read.
        schema: The run's outputs.
        weights: What each row counts, (N,); None where all count the same.
        metrics: The run's metrics.
        score: Scores some of the rows.
    """
    wanted = np.eye(len(schema.outputs))[targets] if targets.ndim == 1 else targets.astype(np.float64)
    counts = np.ones(len(wanted)) if weights is None else weights.astype(np.float64)

    def scorer(name: str | None, numbers: NDArray[np.int64], outputs: list[str]) -> Score:
        metric = objective(name, metrics, schema.kind)
        sign = 1 if metric.higher_is_better else -1
        return Score(
            metric.name,
            lambda values: sign * score([metric], values, numbers, outputs)[metric.name],
            counts[numbers],
            metric.compares_order,
        )

    return FitRows(predictions, wanted, rows, schema, scorer)


def fitted_of(rules: Sequence[Rule]) -> list[FittedRule]:
    """The rules with parameters."""
    return [rule for rule in rules if isinstance(rule, FittedRule)]


def fit_rules(rules: Sequence[Rule], given: FitRows, numbers: NDArray[np.int64]) -> list[Rule]:
    """Fits rules on some of the rows, each on predictions that the rules before it have changed.

    Args:
        rules: Rules that passed `check_rules`.
        given: The rows.
        numbers: Which of them.

    Returns:
        The rules, with parameters.

    Raises:
        InputError: A rule fails, or its parameters are not plain values.
    """
    found = given.take(numbers)
    values, schema, rows = found.values.astype(np.float64), given.schema, given.rows.iloc[numbers]
    done = list[Rule]()
    for number, rule in numbered(rules):
        if isinstance(rule, FittedRule):
            score = given.scorer(rule.metric, numbers, schema.outputs)
            own = rows[list(rule.columns)].copy()
            rule = rule.with_parameters(_fit(number, rule, (values.copy(), given.targets[numbers], own, score), schema))
        done.append(rule)
        values, schema = apply_rule(number, rule, values, found, rows, schema)
    return done


def cross_fit(rules: Sequence[Rule], given: FitRows) -> tuple[Predictions, dict[int, list[Rule]]]:
    """Changes the rows of each fold by rules that were fitted on the rows of the other folds.

    Returns:
        The changed predictions, and the rules of each fold.

    Raises:
        InputError: As `fit_rules`; or all rows are of one fold.
    """
    folds = given.predictions.fold
    if folds is None or len(np.unique(folds)) < 2:
        raise InputError(
            "only one fold is scored: there are no other rows on which the parameters of its rows could be fitted"
        )
    parts, of_fold = list[Values](), dict[int, list[Rule]]()
    schema, order = given.schema, list[NDArray[np.int64]]()
    for fold in np.unique(folds).tolist():
        inside = np.flatnonzero(folds == fold)
        of_fold[fold] = fit_rules(rules, given, np.flatnonzero(folds != fold))
        values, schema = apply_all(of_fold[fold], given.take(inside), given.rows.iloc[inside], given.schema)
        parts.append(values)
        order.append(inside)
    values = np.empty((len(folds), len(schema.outputs)))
    values[np.concatenate(order)] = np.concatenate(parts)
    return replace(given.predictions, values=values.astype(np.float32), outputs=schema.outputs), of_fold


def apply_all(
    rules: Sequence[Rule], predictions: Predictions, rows: pd.DataFrame, schema: Schema
) -> tuple[Values, Schema]:
    """The values after all rules, float64, and the schema with the outputs that rules add."""
    values = predictions.values.astype(np.float64)
    for number, rule in numbered(rules):
        values, schema = apply_rule(number, rule, values, predictions, rows, schema)
    return values, schema


def try_fit(rules: Sequence[Rule], given: FitRows) -> list[Rule]:
    """Fits rules on example predictions, before anything is trained.

    Returns:
        The rules, with parameters.

    Raises:
        InputError: As `fit_rules`; or a rule returns other parameters when it is called again.
    """
    every = np.arange(len(given.predictions))
    once, twice = (fit_rules(rules, given, every) for _ in range(2))
    for (number, one), other in zip(numbered(once), twice, strict=True):
        if isinstance(one, FittedRule) and isinstance(other, FittedRule) and one.parameters != other.parameters:
            raise InputError(f"{label(number, one)}: fit returns other parameters when it is called again.")
    return once


def _fit(number: int, rule: FittedRule, given: tuple[Values, Values, pd.DataFrame, Score], schema: Schema) -> Any:
    """What a rule learns, as it is read back from a file.

    Raises:
        InputError: It fails, or what it returns cannot be stored.
    """
    what = label(number, rule)
    try:
        with np.errstate(all="ignore"):
            found = told(rule, schema).fit(*given)
    except InputError:
        raise
    except Exception as error:  # custom code may raise anything
        raise InputError(f"{what}: fit fails for {len(given[0])} rows: {type(error).__name__}: {error}") from error
    try:
        stored = json.loads(json.dumps(found, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"{what}: fit returns {found!r}, which cannot be stored as JSON: {error}.") from error
    if not isinstance(found, dict) or stored != found:
        raise InputError(
            f"{what}: fit returns {found!r}; it must return a dictionary of numbers, texts, lists and dictionaries "
            f"with text keys."
        )
    return stored


def _text(value: Any) -> str:
    """A parameter as short text."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return listed([f"{name} {_text(each)}" for name, each in value.items()], SHOWN)
    return listed([_text(each) for each in value], SHOWN) if isinstance(value, list) else str(value)
