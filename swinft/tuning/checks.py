"""Checks every bound and choice of a search space by the parser and the classes of a config, before the first trial."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import timm

from swinft.errors import InputError, suggest
from swinft.inference.tta import check_views
from swinft.model.task import FineTuneTask
from swinft.run.check import check_numbers
from swinft.run.experiment import Experiment
from swinft.run.folds.trainer_checks import check_trainer
from swinft.tuning.base import Base
from swinft.tuning.space import SECTION, Parameter, Space

OTHERS = 3  # other values with which a value is tried that does not fit the config of the search


def check_values(base: Base, space: Space) -> None:
    """Checks type and range of every bound and choice.

    A value is accepted if the config is right with it, or with it and some others of the space: a size may fit only one
    of the backbones. Whether two values fit together is decided when a trial has both.

    Raises:
        InputError: Values are wrong; all of them are listed.
    """
    waiting = {each.key: list(each.extremes()) for each in space.parameters}
    by_key = {each.key: each for each in space.parameters}
    problems: list[str] = []
    while any(waiting.values()):
        chosen = {key: values.pop(0) for key, values in waiting.items() if values}
        chosen = {key: value for key, value in chosen.items() if not by_key[key].when} | _conditional(chosen, space)
        if problem_of(base, chosen) is None:
            continue
        for key, value in chosen.items():
            if problem := _alone(base, space, by_key[key], value):
                problems.append(f"{SECTION}: {key}: {problem}")
    if problems:
        raise InputError("\n  ".join(["the search space is wrong:", *dict.fromkeys(problems)]), dict.fromkeys(problems))


def _conditional(chosen: Mapping[str, Any], space: Space) -> dict[str, Any]:
    """The values that depend on others, with others on which they may depend."""
    found: dict[str, Any] = {}
    for each in space.parameters:
        if each.when and each.key in chosen:
            found |= {**_parents(each, space), each.key: chosen[each.key]}
    return found


def _parents(parameter: Parameter, space: Space) -> dict[str, Any]:
    """Values of other parameters with which one exists."""
    found: dict[str, Any] = {}
    for each in space.parameters:
        if each.key in parameter.when:
            found |= {**_parents(each, space), each.key: each.value(parameter.when[each.key][0])}
    return found


def _alone(base: Base, space: Space, parameter: Parameter, value: Any) -> str | None:
    """Why a value is wrong with every other one that is tried; None if it is right with one."""
    own = {**_parents(parameter, space), parameter.key: value}
    first = problem_of(base, own)
    if first is None:
        return None
    for number in range(OTHERS):
        others = {each.key: each.extremes() for each in space.parameters if not each.when and each.key not in own}
        varied = {key: values[number % len(values)] for key, values in others.items()}
        if problem_of(base, {**varied, **own}) is None:
            return None
    return first


def problem_of(base: Base, values: Mapping[str, Any]) -> str | None:
    """What is wrong with a config that has these values; None if nothing is."""
    try:
        experiment = base.experiment(values)
    except InputError as error:
        return str(error).removeprefix("the config is wrong:").strip()
    problems = list(dict.fromkeys(_problems(experiment)))
    return "; ".join(problems) or None


def _problems(experiment: Experiment) -> Iterator[str]:
    """What the classes of a config's sections refuse, without reading a table or building a network."""
    checks: list[Callable[[], Any]] = [
        lambda: FineTuneTask(**experiment.section("model")),
        lambda: _check_backbone(experiment.config.model.backbone),
        lambda: check_trainer(experiment, 1),
        lambda: check_numbers(experiment.config),
        lambda: check_views(experiment.views(), *experiment.datamodule().settings.shown_to_network),
    ]
    for check in checks:
        try:
            check()
        except InputError as error:
            yield str(error)


def _check_backbone(name: Any) -> None:
    """Checks that timm has a backbone of this name; a class of its own is checked by the parser."""
    if isinstance(name, str) and not timm.is_model(base := name.split(".")[0]) and "." not in base:
        raise InputError(f"timm has no model '{name}' (model.backbone).{suggest(base, timm.list_models())}")
