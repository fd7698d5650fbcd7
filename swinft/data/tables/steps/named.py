"""Steps as a config names them: by a word with its arguments, or as objects of custom classes."""

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

from swinft.class_spec import AsWritten, from_spec
from swinft.data.tables.steps.coco import COCOStep
from swinft.data.tables.steps.columns import (
    DropStep,
    ExtractStep,
    FormatStep,
    KeepStep,
    MapStep,
    NumberStep,
    RenameStep,
)
from swinft.data.tables.steps.csv import CSVStep
from swinft.data.tables.steps.files import FilesStep
from swinft.data.tables.steps.formats import HDF5Step, ParquetStep
from swinft.data.tables.steps.group import GroupStep
from swinft.data.tables.steps.json import JSONStep
from swinft.data.tables.steps.rows import ConcatStep, ExplodeStep, UniqueStep, WhereStep
from swinft.data.tables.steps.sequence import StepList
from swinft.data.tables.steps.shapes import JoinStep, MeltStep, PivotStep
from swinft.data.tables.steps.step import BuiltinStep, CustomStep, TableStep, built
from swinft.errors import InputError, suggest

BUILTIN = (
    CSVStep,
    FilesStep,
    ParquetStep,
    HDF5Step,
    COCOStep,
    JSONStep,
    JoinStep,
    ConcatStep,
    PivotStep,
    MeltStep,
    ExplodeStep,
    ExtractStep,
    FormatStep,
    RenameStep,
    MapStep,
    WhereStep,
    KeepStep,
    DropStep,
    NumberStep,
    UniqueStep,
    GroupStep,
)
STEPS: dict[str, type[BuiltinStep]] = {step.word: step for step in BUILTIN}
# A table as a config gives it: the path of a CSV, or a list of steps: mappings of a word to its arguments, or custom
# steps.
GivenTable = str | list[AsWritten]


def steps_of(key: str, given: Any) -> StepList:
    """The steps of a table.

    Args:
        key: What names the table in messages, such as `data.train`.
        given: The list of a config, or the path of a CSV for the step `csv`.

    Raises:
        InputError: A step is unknown, its arguments are wrong, or it is not where it can be; all of them are listed.
    """
    if isinstance(given, str | PurePath):
        given = [{"csv": str(given)}]
    if not isinstance(given, Sequence) or not given:
        raise InputError(f"{key} is {given!r}; write the path of a CSV, or a list of steps like [{{csv: train.csv}}].")
    found, problems = list[BuiltinStep](), list[str]()
    for number, each in enumerate(given, start=1):
        try:
            step = _step_of(each)
            step.nest(f"{key}: step {number}, {step.word}", steps_of)
            if problem := _position_problem(step, number):
                raise InputError(problem)
            found.append(step)
        except InputError as error:
            named = f"{key}: step {number}"
            problems.append(str(error) if str(error).startswith(named) else f"{named}: {error}")
    if problems:
        raise InputError("\n  ".join(problems))
    return StepList(key, found)


def _step_of(given: Any) -> BuiltinStep:
    """One step.

    Raises:
        InputError: It is none, or its arguments are wrong.
    """
    given = from_spec(given, TableStep, "it")  # type: ignore[type-abstract]
    if isinstance(given, TableStep):
        return CustomStep(given)
    if not isinstance(given, Mapping) or len(given) != 1:
        names = f"it has the words {', '.join(map(str, given))}" if isinstance(given, Mapping) else f"it is {given!r}"
        raise InputError(f"{names}; write one word with its arguments, like {{csv: train.csv}}.")
    word, arguments = next(iter(given.items()))
    if word not in STEPS:
        raise InputError(f"'{word}' is not a step.{suggest(str(word), STEPS)}")
    try:
        return built(STEPS[word], arguments)
    except InputError as error:
        raise InputError(f"{word}: {error}") from error


def _position_problem(step: BuiltinStep, number: int) -> str:
    """Why a step cannot be where it is in its list; empty if it can."""
    if number == 1 and step.position == "later":
        first = [each.word for each in BUILTIN if each.position != "later"]
        return f"{step.word} changes a table, and there is none yet: start with {', '.join(first)}, or a class."
    if number > 1 and step.position == "first":
        return f"{step.word} reads a table, and there is one already: read further ones inside of join or concat."
    return ""
