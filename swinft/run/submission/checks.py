"""Checks of a submission's settings: names that exist, values in their range, and none without an effect."""

from collections.abc import Mapping, Sequence
from typing import Any

from swinft.data.schema import Schema
from swinft.data.target.kinds import TARGETS
from swinft.errors import InputError, suggest
from swinft.inference.rules.builtin import AloneRule
from swinft.inference.rules.rule import Rule, after_rules, check_rules
from swinft.inference.rules.thresholds import NewClassRule, ThresholdsRule
from swinft.run.submission.formats import Flags, LabelSets, Numbers, OneClass, SubmissionFormat
from swinft.run.submission.grouping import GroupConfig
from swinft.run.submission.plan import SubmissionConfig
from swinft.run.submission.ranked import TopK
from swinft.run.submission.run_lengths import RunLengths
from swinft.run.submission.sample import Sample


def format_word(given: Any) -> str:
    """The word of a format that is a word, or a word with arguments."""
    return str(next(iter(given), "")) if isinstance(given, Mapping) else str(given)


def outputs_after(rules: Sequence[Rule], group: GroupConfig | None, schema: Schema) -> Schema:
    """The outputs after rules, which are checked, as is how rows are joined.

    Raises:
        InputError: A rule is for another kind of target or names an unknown output, or rows cannot be joined so.
    """
    check_rules(rules, schema)
    changed = after_rules(rules, schema)
    if group and (refusal := group.refusal(changed)):
        raise InputError(f"submission.group: {refusal}")
    return changed


def check_config(sample: Sample, schema: Schema, config: SubmissionConfig, file: Sample) -> None:
    """Refuses invalid settings and unknown names; all of them are listed.

    Args:
        sample: The sample submission, with a column for each output.
        schema: The outputs.
        config: The settings.
        file: The sample submission as it is in the file.

    Raises:
        InputError: Settings are wrong.
    """
    allowed = schema.base.formats
    problems = []
    word = format_word(config.format)
    if not isinstance(config.format, SubmissionFormat) and word not in ("auto", *allowed):
        others = [name for target in TARGETS.values() for name in target.formats]
        hint = "" if word in others else suggest(word, others)
        problems.append(
            f"submission.format is '{word}', but a {schema.kind} run can write {' or '.join(allowed)}.{hint}"
        )
    if not 0 <= config.threshold <= 1:
        problems.append(f"submission.threshold is {config.threshold}; it must be in 0–1.")
    if config.delimiter == "":
        problems.append("submission.delimiter is empty; write the text between labels.")
    named: list[tuple[str, Sequence[str], Sequence[str]]] = [
        ("columns", list(config.columns), sample.targets),
        ("columns", list(config.columns.values()), schema.outputs),
        ("words", list(config.words), schema.outputs),
        ("keep", config.keep, file.targets),
        ("drop", config.drop, schema.outputs),
    ]
    for setting, names, known in named:
        what = "the run" if list(known) == schema.outputs != sample.targets else sample.source
        problems += [
            f"submission.{setting} names '{name}', which {what} does not have.{suggest(name, known)}"
            for name in names
            if name not in known
        ]
    problems += [f"submission names '{name}' in keep and in columns." for name in config.keep if name in config.columns]
    if problems:
        raise InputError("\n  ".join(["the submission's settings are wrong:", *problems]), problems)


def check_without_sample(config: SubmissionConfig) -> None:
    """Refuses settings that are about the sample submission, where there is none.

    Raises:
        InputError: There are some.
    """
    given = {"id": (config.id, "null"), "keep": (config.keep, "[]"), "rows": (config.rows, "null")}
    if idle := {f"submission.{name}": none for name, (value, none) in given.items() if value}:
        does = "do nothing" if len(idle) > 1 else "does nothing"
        others = " and ".join(f"{name} to {none}" for name, none in idle.items())
        raise InputError(
            f"{' and '.join(idle)} {does} without a sample submission: set data.sample_submission to it, or {others}."
        )


def check_halves(rules: Sequence[Rule], config: SubmissionConfig, format_: SubmissionFormat) -> None:
    """Refuses a threshold of the format other than 0.5, to which rules move theirs.

    Raises:
        InputError: There is one.
    """
    for rule in rules:
        of_labels = isinstance(rule, ThresholdsRule | AloneRule) and config.threshold != 0.5
        of_new = isinstance(rule, NewClassRule) and isinstance(format_, TopK) and format_.threshold != 0.5
        if of_labels or of_new:
            key = "submission.threshold" if of_labels else "submission.format: top_k: threshold"
            raise InputError(f"{key} is not 0.5, to which the rule {rule.name} moves a threshold. Remove the key.")
        if isinstance(rule, NewClassRule) and not (isinstance(format_, TopK) and format_.new):
            raise InputError(
                f"submission.rules: {rule.name} moves the threshold of the answer for a new class, and the format "
                f"'{format_.name}' has none. Set submission.format to {{top_k: {{new: WORD}}}}, or remove the rule."
            )


def check_cells(sample: Sample, format_: SubmissionFormat) -> None:
    """Refuses numbers for a column that has words in the sample.

    Raises:
        InputError: The sample has words, and numbers would be written.
    """
    if isinstance(format_, OneClass | LabelSets | TopK):
        return
    for column in format_.columns:
        words = sample.words(column)
        if words and sample.numbers(column) is None:
            raise InputError(
                f"{sample.source}: column '{column}' has words, like '{words[0]}', but submit would write "
                f"{format_.describe()}. Point data.sample_submission to the right file, or set submission.format or "
                f"submission.keep."
            )


def check_acts(config: SubmissionConfig, schema: Schema, format_: SubmissionFormat) -> None:
    """Refuses settings without an effect in a format.

    Raises:
        InputError: A key has no effect in this format.
    """
    writes_labels = isinstance(format_, LabelSets | Flags)
    writes_words = isinstance(format_, LabelSets | OneClass | TopK)
    names_outputs = isinstance(format_, Numbers | Flags | RunLengths)
    has_threshold = writes_labels or (isinstance(format_, RunLengths) and format_.classes == "independent")
    acts: list[tuple[str, bool, bool]] = [
        ("threshold", config.threshold != 0.5, has_threshold),
        ("delimiter", config.delimiter not in (None, " "), isinstance(format_, LabelSets)),
        ("columns", bool(config.columns), names_outputs),
        ("words", bool(config.words), writes_words),
        ("drop", bool(config.drop), names_outputs),
    ]
    dead = [name for name, is_set, can_act in acts if is_set and not can_act]
    if dead:
        raise InputError(
            f"submission.{', submission.'.join(dead)}: no effect in format '{format_.name}', which writes "
            f"{format_.describe()}. Remove it, or set submission.format."
        )
