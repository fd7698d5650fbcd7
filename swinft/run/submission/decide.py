"""Decides the format of a submission from the sample submission, the run's outputs and its first metric.

Settings override what is found. Columns that cannot be filled, or are ambiguous, are an error that names the setting.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from swinft.class_spec import errors_of, from_word
from swinft.data.schema import Schema
from swinft.errors import InputError
from swinft.inference.rules.builtin import ClipRule, NormalizeRule
from swinft.inference.rules.named import rules_of
from swinft.inference.rules.rule import Rule
from swinft.model.metrics import METRICS, Traits
from swinft.run.submission.checks import (
    check_acts,
    check_cells,
    check_config,
    check_halves,
    check_without_sample,
    format_word,
    outputs_after,
)
from swinft.run.submission.formats import Flags, LabelSets, Numbers, OneClass, SubmissionFormat
from swinft.run.submission.long import long_sample
from swinft.run.submission.matching import in_yaml, knows_words, match_columns, positive_class, resolve_words
from swinft.run.submission.plan import SubmissionConfig, SubmissionPlan, checked_cells
from swinft.run.submission.ranked import FORMATS, USUAL, TopK, ranked_tokens
from swinft.run.submission.run_lengths import RunLengths
from swinft.run.submission.sample import Sample

SIGNS = ("|", ",", ";", "/", "&", "+", "_", "-")
DELIMITERS = (" ", *(f" {sign} " for sign in SIGNS), *(f"{sign} " for sign in SIGNS), *SIGNS)


def plan_submission(
    sample: Sample,
    schema: Schema,
    metric: Traits,
    config: SubmissionConfig,
    label_delimiter: str | None = None,
    predicted: Sequence[str] | None = None,
) -> SubmissionPlan:
    """Decides what `submit` writes.

    Args:
        sample: The sample submission.
        schema: The run's outputs.
        metric: Traits of the run's first metric, which should be that of the competition.
        config: Settings that override the decision.
        label_delimiter: The delimiter between labels in the training table.
        predicted: Ids of the rows to predict, or of their groups; None if they are not known.

    Raises:
        InputError: The columns cannot be filled or are ambiguous, or a setting has no effect.
    """
    rules = rules_of(config.rules)
    schema = outputs_after(rules, config.group, schema)
    if not sample.is_file:
        check_without_sample(config)
    long = None if predicted is None else long_sample(sample, config.keep, config.rows, predicted)
    sample = long.wide if long else sample
    check_config(sample, schema, config, long.sample if long else sample)
    kept = list(config.keep)
    free = [column for column in sample.targets if long or column not in kept]
    if not free:
        raise InputError(f"{sample.source} has no column to fill: {sample.columns}, of which {kept} are kept.")
    inputs = _Inputs(sample, schema, metric, config, label_delimiter, free, rules)
    if isinstance(config.format, SubmissionFormat):
        decision = _custom(inputs, config.format)
    elif inputs.given == TopK.name:
        decision = _ranked(inputs, from_word(config.format, FORMATS, "format"), "as submission.format says")
    else:
        of_probabilities = _masks if schema.base.are_maps else _classes if schema.base.are_classes else _labels
        decision = (of_probabilities if schema.base.are_probabilities else _numbers)(inputs)
        if not schema.base.are_maps:  # samples have placeholders like 1 1, or empty cells
            check_cells(sample, decision.format)
    check_acts(config, schema, decision.format)
    check_halves(rules, config, decision.format)
    return SubmissionPlan(sample, schema, decision.format, decision.reason, kept, decision.notes, long)


@dataclass(frozen=True)
class _Inputs:
    """Everything on which the format depends; `free` are the columns to fill."""

    sample: Sample
    schema: Schema
    metric: Traits
    config: SubmissionConfig
    label_delimiter: str | None
    free: list[str]
    rules: list[Rule]

    @property
    def given(self) -> str | None:
        """The format in the settings; None for auto."""
        return None if self.config.format == "auto" else format_word(self.config.format)

    def is_output(self, column: str) -> bool:
        """Whether a column is meant for one output."""
        return column in self.config.columns or column in self.schema.outputs

    def match(self) -> dict[str, int]:
        """The position of each column's output."""
        return match_columns(self.sample, self.schema, self.config.columns, self.config.keep, self.config.drop)


@dataclass(frozen=True)
class _Decision:
    format: SubmissionFormat
    reason: str
    notes: list[str] = field(default_factory=list)


def _custom(inputs: _Inputs, given: SubmissionFormat) -> _Decision:
    """A custom format, tested with the mean of the training rows.

    Raises:
        InputError: It is for another kind of target, refuses the columns, fails, or rejects its own cells.
    """
    sample, schema = inputs.sample, inputs.schema
    what = f"submission.format: {given.name}"
    if isinstance(given.kinds, str) or schema.kind not in given.kinds:
        hint = "write a list" if isinstance(given.kinds, str) else f"data.target_kind is {schema.kind}"
        raise InputError(f"{what} has `kinds` {given.kinds!r}, and {hint}.")
    filling = given.filling(inputs.free, schema.outputs, {column: sample.words(column) for column in inputs.free})
    values = np.array([schema.prior or [0.0] * len(schema.outputs)] * 2)
    with errors_of(f"{what} fails"):
        if refusal := filling.refusal():
            raise InputError(f"{what} cannot fill {sample.source}: {refusal}")
        for column, cells in checked_cells(filling, values).items():
            if problem := filling.problem(column, cells[0]):
                raise InputError(f"{what} rejects its own cell in column '{column}': {problem}")
        described, changes = filling.describe(), cast(Any, filling.changes(values))
    if isinstance(changes, str) or not all(isinstance(text, str) for text in (described, *changes)):
        raise InputError(f"{what}: `describe` must return a text, and `changes` a list of texts.")
    return _Decision(filling, "as submission.format says")


def _ranked(inputs: _Inputs, given: SubmissionFormat, reason: str) -> _Decision:
    """Ranked classes: their number and words are those of the sample's cells.

    Raises:
        InputError: There are several columns, or the sample has other words.
    """
    assert isinstance(given, TopK)
    sample, free, outputs = inputs.sample, inputs.free, inputs.schema.outputs
    cells = sample.words(free[0])
    tokens = ranked_tokens(cells, given.delimiter) or [[cell] for cell in cells]
    vocabulary = [word for word in dict.fromkeys(word for row in tokens for word in row) if word != given.new]
    words, notes = resolve_words(sample, free[0], outputs, vocabulary, inputs.config.words)
    found = len(tokens[0]) if tokens and len(tokens[0]) > 1 else USUAL
    count = min(given.k or found, len(set(words) | ({given.new} - {None})))
    filled = given.with_words(words, count).filling(free, outputs, {column: sample.words(column) for column in free})
    if refusal := filled.refusal():
        raise InputError(f"submission.format: top_k cannot fill {sample.source}: {refusal}")
    if given.k and cells and found not in (USUAL, given.k):
        notes.append(f"the sample's cells have {found} classes each, and k is {given.k}")
    return _Decision(filled, reason, notes)


def _numbers(inputs: _Inputs) -> _Decision:
    """The format of a regression."""
    sample = inputs.sample
    filled = inputs.match()
    found = [numbers for column in filled if (numbers := sample.numbers(column)) is not None]
    are_whole = all(np.all(numbers == np.rint(numbers)) for numbers in found)
    name, reason, notes = inputs.given or "number", "as submission.format says", []
    if inputs.given is None and inputs.metric.scores_grades and are_whole:
        name = "integer"
        reason = f"the first metric is {inputs.metric.name}" + (", and the sample's cells are whole" if found else "")
    elif inputs.given is None:
        reason = "regression"
        if found and are_whole and not any("." in word for column in filled for word in sample.words(column)):
            notes = [
                "the sample's cells are whole numbers: if the competition wants these, set submission.format to integer"
            ]
    format_ = _values(inputs, name, filled)
    if format_.sums_to_one and not any(isinstance(rule, NormalizeRule) for rule in inputs.rules):
        notes.append("the sample's rows sum to 1, those of a regression need not: see the rule `normalize`")
    return _Decision(format_, reason, notes)


def _labels(inputs: _Inputs) -> _Decision:
    """The format of a multi-label target."""
    sample, free = inputs.sample, inputs.free
    is_one = len(free) == 1 and not inputs.is_output(free[0])
    name = inputs.given or ("labels" if is_one else "probabilities")
    reason = "as submission.format says" if inputs.given else "one column" if is_one else "one column per label"
    if name == "probabilities" or not is_one:
        filled = inputs.match()
        if name == "labels":
            return _Decision(Flags(filled, inputs.config.threshold), reason)
        return _Decision(_values(inputs, "probabilities", filled), reason)
    cells = sample.words(free[0])
    delimiter = _delimiter(inputs, cells)
    vocabulary = list(dict.fromkeys(word for cell in cells for word in cell.split(delimiter) if word))
    words, notes = resolve_words(sample, free[0], inputs.schema.outputs, vocabulary, inputs.config.words)
    holding = [word for word in words if delimiter in word]
    if holding:
        raise InputError(
            f"the labels {holding} contain {delimiter!r}, the delimiter between labels (submission.delimiter): the "
            f"competition would read them as several. Set submission.delimiter, or submission.words for these labels."
        )
    return _Decision(LabelSets(free[0], words, inputs.config.threshold, delimiter), reason, notes)


def _masks(inputs: _Inputs) -> _Decision:
    """The format of masks.

    Raises:
        InputError: There are rules, which change numbers.
    """
    if inputs.rules:
        raise InputError(f"submission.rules change numbers, and {inputs.schema.kind} predicts masks: remove them.")
    filled = {inputs.free[0]: 0} if len(inputs.free) == len(inputs.schema.outputs) == 1 else inputs.match()
    return _Decision(RunLengths.of(inputs.schema, filled, inputs.config.threshold), "masks")


def _classes(inputs: _Inputs) -> _Decision:
    """The format of a classification."""
    sample, free, outputs = inputs.sample, inputs.free, inputs.schema.outputs
    name, reason = _class_format(inputs)
    if name == TopK.name:
        return _ranked(inputs, TopK(), reason)
    if name == "label":
        if len(free) != 1:
            raise InputError(
                f"format 'label' fills one column, but {sample.source} has {free}. List those that keep the sample's "
                f"cells in submission.keep, or set submission.format to probabilities."
            )
        words, notes = resolve_words(sample, free[0], outputs, sample.words(free[0]), inputs.config.words)
        if inputs.metric.wants_probabilities and inputs.given is None:
            notes.append(
                f"the first metric is {inputs.metric.name}, which scores probabilities, but the sample's one column "
                f"'{free[0]}' has classes: its score will differ from the run's"
            )
        return _Decision(OneClass(free[0], words), reason, notes)
    if len(free) == 1 and len(outputs) == 2:
        filled = {free[0]: positive_class(sample, free[0], outputs, inputs.config.columns)}
    else:
        filled = inputs.match()
    return _Decision(_values(inputs, "probabilities", filled), reason)


def _are_ranked(inputs: _Inputs, cells: Sequence[str]) -> bool:
    """Whether cells are lists of classes, as many in each, of which one may be none of the run's: a new one."""
    tokens = ranked_tokens(cells, " ") if cells else None
    if tokens is None or knows_words(inputs.schema.outputs, cells, inputs.config.words):
        return False
    known = list(dict.fromkeys(word for row in tokens for word in row))
    others = [word for word in known if not knows_words(inputs.schema.outputs, [word], inputs.config.words)]
    return len(others) <= 1 and len(known) > len(others)


def _class_format(inputs: _Inputs) -> tuple[str, str]:
    """`probabilities` or `label`, and why."""
    sample, free, outputs, metric = inputs.sample, inputs.free, inputs.schema.outputs, inputs.metric
    if inputs.given:
        return inputs.given, "as submission.format says"
    if len(free) > 1 or (inputs.is_output(free[0]) and len(outputs) > 2):
        return "probabilities", "one column per class"
    if free[0] in inputs.config.columns:
        return "probabilities", "submission.columns names the class"
    cells, numbers = sample.words(free[0]), sample.numbers(free[0])
    if _are_ranked(inputs, cells):
        return TopK.name, f"the sample's cells are lists of classes, like '{cells[0]}'"
    shown = f"'{cells[0]}'" if cells else "empty"
    are_classes = knows_words(outputs, cells, inputs.config.words)
    wants_probabilities = metric.wants_probabilities
    if cells and numbers is None:
        return "label", f"the sample's cells are words, like {shown}"
    if len(outputs) > 2:
        if numbers is None or are_classes:
            return "label", f"the sample's cells are {'classes, like ' if cells else ''}{shown}"
        raise InputError(
            f"{sample.source}: column '{free[0]}' has numbers, like {shown}, and the run predicts {len(outputs)} "
            f"classes, {outputs[:5]}…: one column has no room for their probabilities, and {shown} is not a class. "
            f"Point data.sample_submission to the right file; if it wants a number for each class, set "
            f"submission.words: {in_yaml({name: str(k) for k, name in enumerate(outputs)})}."
        )
    if numbers is not None and not are_classes:
        if wants_probabilities or not np.all(np.isin(numbers, (0, 1))):
            return "probabilities", f"the sample's cells are numbers, like {shown}"
        raise InputError(
            f"{sample.source}: column '{free[0]}' has {shown}, and the classes are {outputs}: it may want a 0 or 1 "
            f"for each row, or a probability. Set submission.format to probabilities, or submission.words to "
            f"{{{outputs[0]}: '0', {outputs[1]}: '1'}} (or swapped) for 0 and 1."
        )
    if wants_probabilities:
        return "probabilities", f"the first metric is {metric.name}"
    return (
        "label",
        f"the first metric is {metric.name}, and the sample's cells are {'classes, like ' if cells else ''}{shown}",
    )


def _values(inputs: _Inputs, name: str, filled: dict[str, int]) -> Numbers:
    """Columns of numbers, with their limits."""
    schema = inputs.schema
    limits = np.array(schema.ranges, dtype=np.float64) if schema.ranges else None
    clip = _whole_limits(inputs, limits) if name == "integer" else None
    sums_to_one = inputs.sample.sums_to_one(list(filled))
    metric = METRICS.get(inputs.metric.name)
    sum_metric = inputs.metric.name if sums_to_one and metric is not None and metric.needs_sum_one else ""
    return Numbers(name, schema.outputs, filled, clip, limits, sums_to_one, sum_metric)


def _whole_limits(inputs: _Inputs, limits: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    """Limits of whole numbers, (K, 2): those of the last rule `clip` of an output, or the training targets' range."""
    outputs, clips = inputs.schema.outputs, [rule for rule in inputs.rules if isinstance(rule, ClipRule)]
    if limits is None and not clips:
        return None
    found = np.tile([-np.inf, np.inf], (len(outputs), 1)) if limits is None else limits.copy()
    for rule in clips:
        found[[k for k, name in enumerate(outputs) if rule.of is None or name in rule.of]] = rule.limits
    rounded: NDArray[np.float64] = np.rint(found)
    return rounded


def _delimiter(inputs: _Inputs, cells: list[str]) -> str:
    """The delimiter between labels: that of the settings, the sample, or the training table."""
    outputs, config = inputs.schema.outputs, inputs.config
    usual = config.delimiter or inputs.label_delimiter or " "

    def splits_into_labels(delimiter: str) -> bool:
        tokens = [word for cell in cells for word in cell.split(delimiter)]
        return all(word == word.strip() for word in tokens) and knows_words(outputs, tokens, config.words)

    if not cells or splits_into_labels(usual):
        return usual
    others = [mark for mark in DELIMITERS if splits_into_labels(mark) and any(mark in cell for cell in cells)]
    if not others:
        return usual
    if config.delimiter is not None:
        raise InputError(
            f"submission.delimiter is {usual!r}, but {inputs.sample.source} has {others[0]!r} between labels: "
            f"'{next(cell for cell in cells if others[0] in cell)}'. Remove submission.delimiter."
        )
    return others[0]
