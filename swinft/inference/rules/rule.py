"""The base class of all rules, and their application to predictions, with checks of what they return.

Rules act on predictions that are averaged over folds, seeds and views, in the competition's units, before the format of
the submission. Out-of-fold predictions are changed fold by fold: a rule that compares rows must not join the
predictions of a network that was trained on a row with that row's own.

Shapes: N rows, K outputs.
"""

import copy
import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from swinft.class_spec import InitArgsMixin, class_path_of, spec_name, to_spec
from swinft.data.schema import Schema
from swinft.errors import InputError, listed, number_of
from swinft.inference.predictions import Predictions

KEY = "submission.rules"
SLACK = 1e-5  # a mean of probabilities may exceed 1 by float32's rounding
NUM_EXAMPLES = 200  # rows with which rules are tried before a training

Values = NDArray[np.float64]
AnyRule = TypeVar("AnyRule", bound="Rule")


class Rule(InitArgsMixin, ABC):
    """Changes predictions. A custom rule derives from it and implements `apply`.

    The result must depend only on the arguments: `check` calls it twice. A rule with parameters that are fitted on
    out-of-fold predictions derives from `swinft.FittedRule`.
    """

    name: ClassVar[str]
    """Its name in `submission.rules`; for a custom rule its class path."""

    kinds: Sequence[str] = ("classification", "regression", "multilabel")
    """The kinds of target that it supports."""

    columns: Sequence[str] = ()
    """Columns that it reads; the training table and the table of the rows to predict must have them."""

    schema: Schema
    """The run's outputs and kind of target, set before `refusal` and `apply` are called."""

    is_own: NDArray[np.bool_]
    """Which rows have a prediction of their own, bool (N,), set before `apply` is called: a row whose image cannot be
    used has the mean of the training rows."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in vars(cls):
            cls.name = class_path_of(cls)

    def __str__(self) -> str:
        """Its name with its arguments: `clip(min=0)`."""
        return spec_name({"class_path": self.name, "init_args": self._given})

    @property
    def spec(self) -> Any:
        """What `submission.rules` contains for it: `{"clip": {"min": 0}}`, or class path and arguments."""
        return to_spec(self) if "." in self.name else {self.name: self._given}

    @property
    def _given(self) -> dict[str, Any]:
        """The arguments that are not at their defaults."""
        known = inspect.signature(type(self).__init__).parameters
        return {name: each for name, each in self.arguments.items() if name not in known or each != known[name].default}

    @property
    def outputs(self) -> list[str]:
        """Names of the K outputs."""
        return self.schema.outputs

    @property
    def added(self) -> list[str]:
        """Names of outputs that it adds after the others."""
        return []

    def refusal(self) -> str:
        """Why it cannot change predictions of these outputs, as a sentence; empty if it can."""
        return ""

    @abstractmethod
    def apply(self, values: Values, rows: pd.DataFrame) -> Values:
        """Changes predictions.

        Args:
            values: float64 (N, K) in the competition's units: a copy, which may be changed.
            rows: The `columns` of the N rows as text, `""` where a cell is missing; its index are the ids.

        Returns:
            float64 (N, K), with a column more for each output in `added`; finite; probabilities of classes or labels in
            0–1. Row i is still the row with id i.
        """


def columns_of(rules: Sequence[Rule]) -> dict[str, str]:
    """The columns that rules read, each with the rule that names it."""
    return {name: label(number, rule) for number, rule in reversed(numbered(rules)) for name in rule.columns}


def numbered(rules: Sequence[Rule]) -> list[tuple[int, Rule]]:
    """The rules with their numbers, from 1."""
    return list(enumerate(rules, start=1))


def label(number: int, rule: Rule) -> str:
    """`submission.rules: rule 2, clip(min=0)`."""
    return f"{KEY}: rule {number}, {rule}"


def check_rules(rules: Sequence[Rule], schema: Schema) -> None:
    """Checks that rules can change the predictions of a run.

    Raises:
        InputError: A rule is for another kind of target, or names an unknown output; all problems are listed.
    """
    problems = []
    for number, rule in numbered(rules):
        if isinstance(rule.kinds, str) or not isinstance(rule.columns, Sequence) or isinstance(rule.columns, str):
            problems.append(f"{label(number, rule)}: `kinds` and `columns` must be lists of texts.")
        elif schema.kind not in rule.kinds:
            problems.append(f"{label(number, rule)}: it is for {' and '.join(rule.kinds)}, not for {schema.kind}.")
        elif refusal := told(rule, schema).refusal():
            problems.append(f"{label(number, rule)}: {refusal}")
        else:
            schema = _extended(schema, number, rule)
    if problems:
        raise InputError("\n  ".join(["the rules are wrong:", *problems]), problems)


def apply_rules(
    rules: Sequence[Rule], predictions: Predictions, rows: pd.DataFrame, schema: Schema
) -> tuple[Predictions, list[str]]:
    """Changes predictions by rules, one after the other.

    Args:
        rules: Rules that passed `check_rules`.
        predictions: The predictions, of each fold alone if they have a fold.
        rows: The columns that the rules read, as text, in the order of the predictions.
        schema: The outputs.

    Returns:
        The predictions with changed values, and what each rule changed, one line each.

    Raises:
        InputError: A rule fails, or returns anything but finite numbers of the same shape in the range of the kind.
    """
    values = predictions.values.astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError(f"{KEY}: a prediction is NaN or infinite, so that no rule is applied.")
    lines = []
    for number, rule in numbered(rules):
        before = values
        values, schema = apply_rule(number, rule, values, predictions, rows, schema)
        added = schema.outputs[before.shape[1] :]
        lines.append(f"rule {number}, {rule}: {_change(before, values, added)}")
    return replace(predictions, values=values.astype(np.float32), outputs=schema.outputs), lines


def apply_rule(
    number: int, rule: Rule, values: Values, predictions: Predictions, rows: pd.DataFrame, schema: Schema
) -> tuple[Values, Schema]:
    """Changes values by one rule.

    Args:
        number: Its number in the list of rules.
        rule: The rule.
        values: The values, changed by the rules before it, float64 (N, K).
        predictions: Their ids, folds and status.
        rows: The columns that the rules read.
        schema: The outputs of `values`.

    Returns:
        The changed values, and the schema with the outputs that the rule adds.

    Raises:
        InputError: As `apply_rules`.
    """
    own, rows = is_own_of(predictions), rows.set_axis(predictions.ids, axis=0)
    after = _extended(schema, number, rule)
    changed = np.empty((len(values), len(after.outputs)))
    for part in _parts(predictions):
        changed[part] = _applied(number, rule, values[part], rows.iloc[part], own[part], schema, len(after.outputs))
    return changed, after


def after_rules(rules: Sequence[Rule], schema: Schema) -> Schema:
    """The schema with the outputs that rules add.

    Raises:
        InputError: A rule adds an output that is there already.
    """
    for number, rule in numbered(rules):
        schema = _extended(schema, number, rule)
    return schema


def _extended(schema: Schema, number: int, rule: Rule) -> Schema:
    """The schema with the outputs that a rule adds.

    Raises:
        InputError: One of them exists.
    """
    added = list(told(rule, schema).added)
    if taken := [name for name in added if name in schema.outputs]:
        raise InputError(f"{label(number, rule)}: it adds '{taken[0]}', which is already an output.")
    prior = [*schema.prior, *[0.0] * len(added)] if schema.prior else []
    return replace(schema, outputs=[*schema.outputs, *added], prior=prior) if added else schema


def try_rules(rules: Sequence[Rule], targets: NDArray[Any], rows: pd.DataFrame, schema: Schema) -> None:
    """Tries rules with the table's first rows, before anything is trained.

    Args:
        rules: As for `apply_rules`.
        targets: Targets of training rows, which stand for predictions of numbers.
        rows: The columns that the rules read; at least one row.
        schema: The outputs.

    Raises:
        InputError: As `apply_rules`; or a rule returns other numbers when it is called again.
    """
    tried = examples(targets, rows, schema)
    for number, rule in numbered(rules):
        once, twice = (apply_rules(rules[:number], tried, rows[:NUM_EXAMPLES], schema)[0].values for _ in range(2))
        if not np.array_equal(once, twice):
            raise InputError(f"{label(number, rule)}: it returns other values when it is called again.")


def examples(targets: NDArray[Any], rows: pd.DataFrame, schema: Schema) -> Predictions:
    """Predictions of the first `NUM_EXAMPLES` rows that a network might give. Arguments as for `try_rules`."""
    rows, numbers, width = rows[:NUM_EXAMPLES], np.random.default_rng(0), len(schema.outputs)
    if schema.base.are_classes:
        values = numbers.dirichlet(np.ones(width), len(rows))
        values[: len(rows) // 4] = np.eye(width)[np.arange(len(rows) // 4) % width]  # of a network without a doubt
    elif schema.base.are_probabilities:
        values = numbers.uniform(size=(len(rows), width))
    else:
        known = targets[~np.isnan(targets).any(axis=1)]
        values = numbers.permuted(np.resize(known if len(known) else np.zeros((1, width)), (len(rows), width)), axis=0)
    return Predictions(rows.index.tolist(), values.astype(np.float32), schema.outputs)


def told(rule: AnyRule, schema: Schema, is_own: NDArray[np.bool_] | None = None) -> AnyRule:
    """A copy with the outputs and the rows: one object may be used for several runs."""
    copied = copy.copy(rule)
    copied.schema, copied.is_own = schema, np.ones(0, dtype=bool) if is_own is None else is_own
    return copied


def is_own_of(predictions: Predictions) -> NDArray[np.bool_]:
    """Which rows have a prediction of their own, bool (N,)."""
    if predictions.status is None:
        return np.ones(len(predictions), dtype=bool)
    from swinft.data.splits import OK  # slow to import

    return np.array([word == OK for word in predictions.status])


def _parts(predictions: Predictions) -> Iterator[NDArray[np.int64]]:
    """The rows that one network or one set of networks predicted."""
    if predictions.fold is None:
        yield np.arange(len(predictions))
        return
    for fold in np.unique(predictions.fold):
        yield np.flatnonzero(predictions.fold == fold)


def _applied(
    number: int, rule: Rule, values: Values, rows: pd.DataFrame, own: NDArray[np.bool_], schema: Schema, width: int
) -> Values:
    """What a rule returns for some rows, checked."""
    what, asked = label(number, rule), told(rule, schema, own)
    try:
        with np.errstate(all="ignore"):  # what is not finite is an error below
            found: Any = asked.apply(values.copy(), rows[list(rule.columns)].copy())
    except InputError:
        raise
    except Exception as error:  # custom code may raise anything
        raise InputError(
            f"{what}: it fails for {number_of(len(values), 'row')}: {type(error).__name__}: {error}"
        ) from error
    wanted = (len(values), width)
    if not isinstance(found, np.ndarray) or found.shape != wanted or found.dtype.kind not in "fiu":
        given = (
            f"an array {found.shape} of {found.dtype}" if isinstance(found, np.ndarray) else f"a {type(found).__name__}"
        )
        raise InputError(f"{what}: it returns {given} for predictions {values.shape}: return numbers of {wanted}.")
    with np.errstate(over="ignore"):
        is_wrong = ~np.isfinite(found.astype(np.float32))
    how = "NaN or infinite"
    if not is_wrong.any() and schema.base.are_probabilities:
        is_wrong, how = (found < -SLACK) | (found > 1 + SLACK), "outside 0–1"
    if is_wrong.any():
        row, k = (int(place[0]) for place in np.nonzero(is_wrong))
        before, shown = [f"{value:.6g}" for value in values[row]], [*schema.outputs, *asked.added][k]
        raise InputError(
            f"{what}: {number_of(int(is_wrong.sum()), 'value is', 'values are')} {how} after it, as "
            f"{found[row, k]:.6g} for output '{shown}' of id '{rows.index[row]}', which was "
            f"{[*before, 'not there'][min(k, len(before))]} (all outputs: {listed(before)})."
        )
    return found.astype(np.float64)


def _change(before: Values, after: Values, added: Sequence[str]) -> str:
    """`3 of 600 values change, by at most 0.25`."""
    more, after = f"; adds {listed(added, 3)}" if added else "", after[:, : before.shape[1]]
    largest, changed = np.abs(after - before).max(initial=0), int((after != before).sum())
    return f"{changed:,} of {number_of(before.size, 'value changes', 'values change')}" + (
        f", by at most {largest:.4g}{more}" if changed else more
    )
