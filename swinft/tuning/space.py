"""The search space: config keys with ranges or choices, as they are written in YAML."""

import itertools
import json
import math
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from swinft.errors import InputError, suggest
from swinft.run.config.explain import unknown_key
from swinft.run.config.yaml_text import read_yaml

SECTION = "tune"
MOST_VALUES = 100  # of a parameter in a grid
BOUNDS = ("low", "high", "log", "step", "when")
# Keys that decide what is scored: with other rows, folds, targets or metrics, scores cannot be compared.
REFUSED = (
    *("name", "runs", "seed", "seeds", "max_hours", "config", "allow_code", "trainer.fast_dev_run"),
    *("data.root", "data.train", "data.test", "data.sample_submission", "data.target", "data.target_kind", "data.id"),
    *("data.folds", "data.columns.class_order", "data.columns.missing_words", "data.loading.on_bad_image"),
    *("model.metrics", "submission"),
)
ALLOWED_BELOW = ("data.folds.extra",)  # rows that no fold scores


@dataclass(frozen=True)
class Parameter:
    """One key of the config, and the values that are tried.

    Args:
        key: The dotted key.
        choices: The values of a list; empty for a range.
        low: Lowest number of a range.
        high: Highest number.
        log: Whether the logarithm is uniform.
        step: Distance of the numbers; None for any between the bounds.
        is_whole: Whether they are whole numbers.
        when: Labels of other parameters' choices, by key, with one of which the parameter exists.
    """

    key: str
    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    step: float | None = None
    is_whole: bool = False
    when: dict[str, list[str]] = field(default_factory=dict)

    @property
    def labels(self) -> list[str]:
        """The choices as distinct texts."""
        return [label_of(choice) for choice in self.choices]

    def value(self, found: Any) -> Any:
        """The value of a label, or a number as it is."""
        return self.choices[self.labels.index(found)] if self.choices else found

    def extremes(self) -> list[Any]:
        """Every choice, or both bounds."""
        bounds = [int(each) if self.is_whole else float(each) for each in (self.low, self.high)]
        return list(self.choices) or bounds

    def grid(self) -> list[Any]:
        """Every label or number.

        Raises:
            InputError: The range is continuous, or has too many numbers.
        """
        if self.choices:
            return list(self.labels)
        step = self.step or (1 if self.is_whole else None)
        number = math.inf if step is None else math.floor((self.high - self.low) / step + 1e-9) + 1
        if step is None or number > MOST_VALUES:
            raise InputError(
                f"{SECTION}: {self.key}: a grid needs a list of choices, or a `step` of at most 100 values."
            )
        values = [self.low + step * count for count in range(int(number))]
        return [round(each) if self.is_whole else each for each in values]

    def described(self) -> dict[str, Any] | list[Any]:
        """As in YAML."""
        when = {key: [read_yaml(label) for label in labels] for key, labels in self.when.items()}
        if self.choices:
            return {"choices": list(self.choices), "when": when} if when else list(self.choices)
        low, high = self.extremes()
        found: dict[str, Any] = {"low": low, "high": high} | ({"log": True} if self.log else {})
        found |= {"step": self.step} if self.step else {}
        return found | ({"when": when} if when else {})


@dataclass(frozen=True)
class Space:
    """The parameters of a search, each after those that it depends on."""

    parameters: tuple[Parameter, ...]

    def described(self) -> dict[str, Any]:
        """As in YAML."""
        return {each.key: each.described() for each in self.parameters}

    def active(self, labels: Mapping[str, Any]) -> Iterator[Parameter]:
        """The parameters that exist beside the labels of those before them; reads `labels` as it goes."""
        for each in self.parameters:
            if all(labels.get(key) in allowed for key, allowed in each.when.items()):
                yield each

    def values(self, found: Mapping[str, Any]) -> dict[str, Any]:
        """Values of the config by key, from labels and numbers."""
        return {each.key: each.value(found[each.key]) for each in self.parameters if each.key in found}

    def grid(self) -> dict[str, list[Any]]:
        """Every value of each parameter.

        Raises:
            InputError: A range is continuous, or a parameter depends on another.
        """
        if conditional := [each.key for each in self.parameters if each.when]:
            raise InputError(f"{SECTION}: {conditional[0]}: a grid has all combinations: remove `when`.")
        return {each.key: each.grid() for each in self.parameters}


def label_of(value: Any) -> str:
    """A choice as text; a text that YAML reads as another value has quotes."""
    if isinstance(value, str) and read_yaml(value or "''") == value and value.isprintable() and value:
        return value
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def parse_space(given: Any, types: Mapping[str, Any], managed: Mapping[str, str]) -> Space:
    """Checks how a space is written.

    Args:
        given: Its YAML as plain values.
        types: The type of every config key; None for a section.
        managed: Keys that swinft sets itself, with the reason.

    Raises:
        InputError: A key is unknown, or a range or a list is wrong; all of them are listed.
    """
    if not isinstance(given, Mapping) or not given:
        raise InputError(f"{SECTION} is {given!r}; give a mapping of config keys to ranges or lists of choices.")
    problems: list[str] = []
    found: list[Parameter] = []
    for key, value in _flat(given, types):
        try:
            found.append(_parameter(key, value, _hint(key, types, managed)))
        except InputError as error:
            problems.append(str(error))
    keys = [each.key for each in found]
    problems += [f"{key} is given twice." for key in {key for key in keys if keys.count(key) > 1}]
    problems += [f"{a} is a part of {b}: give one of them." for a in keys for b in keys if a.startswith(f"{b}.")]
    ordered, more = _ordered(found)
    problems += more
    if problems:
        raise InputError("\n  ".join(["the search space is wrong:", *(f"{SECTION}: {each}" for each in problems)]))
    return Space(tuple(ordered))


def hint_of(key: str, types: Mapping[str, Any]) -> Any:
    """The type of a key; `Any` below a mapping or the arguments of a class; None if there is no such key."""
    if types.get(key) is not None:
        return types[key]
    parts = key.split(".")
    for length in range(len(parts) - 1, 0, -1):
        owner = ".".join(parts[:length])
        if owner in types:
            return Any if types[owner] is not None and _holds_keys(types[owner]) else None
    return None


def _holds_keys(hint: Any) -> bool:
    """Whether values of a type may be mappings: dictionaries, dataclasses, and classes by their path."""
    plain = (str, int, float, bool, type(None), list, tuple)
    return any(kind not in plain and typing.get_origin(kind) is not list for kind in _members(hint))


def _hint(key: str, types: Mapping[str, Any], managed: Mapping[str, str]) -> Any:
    """The type of a key.

    Raises:
        InputError: There is no such key, or it must not differ between trials.
    """
    below = any(key == each or key.startswith(f"{each}.") for each in ALLOWED_BELOW)
    if not below and any(key == each or key.startswith(f"{each}.") for each in REFUSED):
        raise InputError(f"{key} decides what is scored or where a run is: it must be the same in every trial.")
    hint = hint_of(key, types)
    if hint is None and key in types:
        raise InputError(f"{key} is a section: give the keys in it.")
    if hint is None:
        raise InputError(unknown_key("key '{}'", key, types, managed))
    return hint


def _flat(given: Mapping[Any, Any], types: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys with what is written for them; sections may be nested."""
    for name, value in given.items():
        key = f"{prefix}{name}"
        if key in types and types[key] is None and isinstance(value, Mapping) and not set(value) & set(BOUNDS):
            yield from _flat(value, types, f"{key}.")
        else:
            yield key, value


def _parameter(key: str, given: Any, hint: Any) -> Parameter:
    if isinstance(given, list):
        return _choices(key, given, {})
    if isinstance(given, Mapping) and "choices" in given and set(given) <= {"choices", "when"}:
        return _choices(key, given["choices"], _when(key, given.get("when")))
    if not isinstance(given, Mapping) or not {"low", "high"} <= set(given):
        raise InputError(f"{key} is {given!r}; give {{low: …, high: …}}, with log and step if wanted, or a list.")
    if unknown := [str(name) for name in given if name not in BOUNDS]:
        raise InputError(f"{key} has no '{unknown[0]}'.{suggest(unknown[0], BOUNDS)}")
    low, high, step, log = given["low"], given["high"], given.get("step"), given.get("log", False)
    numbers = {"low": low, "high": high} | ({} if step is None else {"step": step})
    for name, number in numbers.items():
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise InputError(f"{key}: {name} is {number!r}; give a finite number.")
    if not isinstance(log, bool):
        raise InputError(f"{key}: log is {log!r}; give true or false.")
    are_whole = all(isinstance(number, int) for number in numbers.values())
    kinds = set(_members(hint))
    if not are_whole and int in kinds and float not in kinds:
        raise InputError(f"{key} takes whole numbers: write {low:g} to {high:g} without a decimal point.")
    is_whole = are_whole and (float not in kinds or int in kinds)
    return _range(key, given, is_whole)


def _range(key: str, given: Mapping[str, Any], is_whole: bool) -> Parameter:
    low, high, step, log = given["low"], given["high"], given.get("step"), given.get("log", False)
    if low >= high:
        raise InputError(f"{key}: low is {low} and high {high}; low must be lower.")
    if log and low <= 0:
        raise InputError(f"{key}: low is {low}; with log it must be above 0.")
    if step is not None and (log or step <= 0):
        raise InputError(f"{key}: step is {step}; it must be above 0, and without log.")
    if step is not None and abs((high - low) / step - round((high - low) / step)) > 1e-9:
        raise InputError(f"{key}: from {low} to {high} there is no whole number of steps of {step}.")
    return Parameter(key, (), low, high, log, step, is_whole, _when(key, given.get("when")))


def _choices(key: str, given: Any, when: dict[str, list[str]]) -> Parameter:
    if not isinstance(given, list) or not given:
        raise InputError(f"{key}: give at least one choice.")
    labels = [label_of(choice) for choice in given]
    if twice := [label for label in dict.fromkeys(labels) if labels.count(label) > 1]:
        raise InputError(f"{key}: the choice {twice[0]} is given twice.")
    return Parameter(key, tuple(given), when=when)


def _when(key: str, given: Any) -> dict[str, list[str]]:
    if given is None:
        return {}
    if not isinstance(given, Mapping) or not given:
        raise InputError(f"{key}: when is {given!r}; give a choice, or a list of some, of other parameters.")
    return {str(name): [label_of(e) for e in (v if isinstance(v, list) else [v])] for name, v in given.items()}


def _ordered(found: Sequence[Parameter]) -> tuple[list[Parameter], list[str]]:
    """Parameters after those that they depend on, and what is wrong with `when`."""
    by_key = {each.key: each for each in found}
    problems = []
    for each, (other, labels) in itertools.chain.from_iterable(
        zip(itertools.repeat(each), each.when.items(), strict=False) for each in found
    ):
        known = by_key[other].labels if other in by_key else []
        if not known:
            problems.append(f"{each.key}: when names {other}, which is no parameter with choices.")
        problems += [
            f"{each.key}: when: {other} has no choice {label}.{suggest(label, known)}"
            for label in labels
            if known and label not in known
        ]
    ordered: list[Parameter] = []
    while not problems and len(ordered) < len(found):
        placed = {each.key for each in ordered}
        ready = [each for each in found if each.key not in placed and set(each.when) <= placed]
        if not ready:
            problems.append(f"{listed_keys(found, placed)} depend on one another.")
        ordered += ready
    return ordered, problems


def listed_keys(found: Sequence[Parameter], placed: set[str]) -> str:
    """Keys of parameters that are not placed yet."""
    return ", ".join(each.key for each in found if each.key not in placed)


def _members(hint: Any) -> Iterator[Any]:
    """The types in an annotation."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        yield from map(type, arguments)
    elif typing.get_origin(hint) in (list, tuple, dict, Callable):
        yield typing.get_origin(hint)
    elif arguments:
        for argument in arguments:
            yield from _members(argument)
    else:
        yield hint
