"""Allowed values of settings: the check and its error message come from the same range."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from numbers import Integral
from pathlib import PurePath
from typing import Any, TypeVar

from swinft.errors import InputError, suggest, together

Settings = TypeVar("Settings")
MOST = 2**32 - 1  # of anything that is counted, and of numpy's seeds: what is beyond it overflows somewhere
LARGEST = 2**63 - 1  # whole number of torch and numpy
MOST_PROCESSES = 1024  # each imports torch
LARGEST_SIDE = 2**13  # of an image in pixels
LARGEST_AREA = 2**24  # of an image in pixels: with four times as many, a Swin-T needs 24 GB for one of them
SHOWN_DIGITS = 20


class SettingsError(InputError):
    """Settings are wrong or contradict each other.

    Args:
        problems: One sentence per problem.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        every = list(dict.fromkeys(problems))
        super().__init__(every, every)

    def __str__(self) -> str:
        return "\n  ".join(["settings are wrong:", *self.problems])


@dataclass(frozen=True)
class Range:
    """The allowed values of a number. NaN, infinity and whole numbers beyond int64 are in no range.

    Args:
        low: Lowest value.
        high: Highest value; infinity for no limit.
        above: Whether `low` itself is excluded.
        below: Whether `high` itself is excluded.
    """

    low: float
    high: float = math.inf
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.above else value >= self.low
        is_finite = abs(value) <= LARGEST if is_whole(value) else math.isfinite(value)
        return is_finite and above and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        if math.isinf(self.low):
            return "a finite number"
        start = f"above {self.low:.12g}" if self.above else f"from {self.low:.12g}"
        if self.high in (math.inf, MOST):
            return f"a number {start}"
        return f"a number {start}, below {self.high:.12g}" if self.below else f"a number {start} to {self.high:.12g}"


FINITE = Range(-math.inf)
POSITIVE = Range(0, above=True)
NOT_NEGATIVE = Range(0)
UNIT = Range(0, 1)  # fractions and probabilities
BELOW_ONE = Range(0, 1, below=True)
INSIDE_UNIT = Range(0, 1, above=True, below=True)
COUNT = Range(1, MOST)
SIDE = Range(1, LARGEST_SIDE)


def range_problems(section: str, values: Mapping[str, Any], ranges: Mapping[str, Range]) -> list[str]:
    """Numbers out of their ranges: one sentence each, with the key, its value and what is allowed.

    Args:
        section: Section of the config, such as `model.optim`; empty for none.
        values: By key: a number, several, or None, which is not checked.
        ranges: By key.
    """
    problems = []
    for key, allowed in ranges.items():
        value = values[key]
        numbers = value if isinstance(value, Sequence) else () if value is None else (value,)
        if any(number not in allowed for number in numbers):
            shown = f"[{', '.join(map(short, value))}]" if isinstance(value, Sequence) else short(value)
            each = " each" if isinstance(value, Sequence) else ""
            most = most_of(max(numbers), int(min(allowed.high, LARGEST))) if allowed.high in (math.inf, MOST) else ""
            problems.append(f"{section}{'.' * bool(section)}{key} is {shown}. Allowed: {allowed}{most}{each}.")
    return problems


def short(value: Any) -> str:
    """A value as text; of a long whole number the first digits."""
    text = str(value)
    return text if len(text) <= SHOWN_DIGITS or not text.isdigit() else f"{text[:SHOWN_DIGITS]}… ({len(text)} digits)"


def most_of(value: Any, most: int = MOST) -> str:
    """The largest whole number, ` to 4294967295`, where a value is beyond it."""
    return f" to {most}" if is_whole(value) and value > most else ""


def check_ranges(section: str, values: Mapping[str, Any], ranges: Mapping[str, Range]) -> None:
    """Raises what `range_problems` finds.

    Raises:
        InputError: Numbers are out of their ranges; all of them are listed.
    """
    problems = range_problems(section, values, ranges)
    if problems:
        raise together(problems)


def whole_problems(section: str, values: Mapping[str, Any], lowest: Mapping[str, int]) -> list[str]:
    """Numbers that are not whole or too low; one sentence each.

    Args:
        section: As in `range_problems`.
        values: By key.
        lowest: The lowest allowed number, by key.
    """
    return [
        f"{section}{'.' * bool(section)}{key} is {_wrong_whole(values[key], low)}"
        for key, low in lowest.items()
        if not _is_count(values[key], low)
    ]


def _is_count(value: Any, least: int) -> bool:
    return is_whole(value) and least <= value <= MOST


def _wrong_whole(value: Any, least: int) -> str:
    shown = short(value) if is_whole(value) else repr(value)
    return f"{shown}. Allowed: a whole number from {least}{most_of(value)}."


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number; booleans are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def check_whole(cls: str, name: str, value: Any, least: int = 1) -> None:
    """Checks that an argument of a class is a whole number from `least`.

    Raises:
        InputError: It is not.
    """
    if not _is_count(value, least):
        raise InputError(f"{cls}: {name} is {_wrong_whole(value, least)}")


def word_problems(section: str, values: Mapping[str, Any], words: Mapping[str, Sequence[Any]]) -> list[str]:
    """Values that are none of the allowed words; one sentence each, with the most similar word.

    Args:
        section: As in `range_problems`.
        values: By key.
        words: Allowed words, by key: texts, true and false.
    """
    return [
        f"{section}.{key} is '{values[key]}'.{suggest(str(values[key]), [_in_yaml(word) for word in allowed])}"
        for key, allowed in words.items()
        if not any(values[key] is word or (isinstance(word, str) and values[key] == word) for word in allowed)
    ]


def text_problems(section: str, values: Mapping[str, Any], keys: Sequence[str], optional: Sequence[str]) -> list[str]:
    """Values that are empty, or neither text nor a path; one sentence each.

    Args:
        section: As in `range_problems`.
        values: By key.
        keys: Keys whose value must be text.
        optional: Keys whose value may also be None.
    """
    found = []
    for key in (*keys, *optional):
        value, or_null = values[key], " or null" if key in optional else ""
        if value == "" or not (isinstance(value, str | PurePath) or (value is None and or_null)):
            found.append(f"{section}.{key} is {'empty' if value == '' else repr(value)}; write a text{or_null}.")
    return found


def list_problems(section: str, values: Mapping[str, Any], keys: Sequence[str]) -> list[str]:
    """Values that are neither null nor a list of texts; one sentence each."""
    return [
        f"{section}.{key} is {values[key]!r}; write a list of texts, like ['a', 'b']."
        for key in keys
        if values[key] is not None
        and (isinstance(values[key], str) or not all(isinstance(each, str) for each in values[key]))
    ]


def named_runs(key: str, given: Any) -> list[str]:
    """The folders of a key that takes one, a list of them, or None.

    Raises:
        InputError: It is neither, or a folder is named twice.
    """
    if given is None:
        return []
    names = [given] if isinstance(given, str) else given
    if not names or not isinstance(names, Sequence) or not all(isinstance(name, str) for name in names):
        raise SettingsError([f"{key} is {given!r}; write the folder of a run, or a list of them."])
    if len(set(names)) < len(names):
        raise SettingsError([f"{key} is {given!r}: name each run once."])
    return list(names)


def settings_of(cls: type[Settings], key: str, given: Any) -> Settings:
    """Creates a settings object from a dictionary, as in YAML and in checkpoints; objects are returned unchanged.

    Args:
        cls: The dataclass.
        key: Its config key.
        given: An object of the class, or a dictionary of its fields.

    Raises:
        InputError: A key is unknown, or a value is wrong.
    """
    if isinstance(given, cls):
        return given
    if not isinstance(given, Mapping):
        raise SettingsError([f"{key} is {given!r}; give a {cls.__name__}, or a dictionary of its fields."])
    known = [field.name for field in fields(cls) if field.init]  # type: ignore[arg-type]
    unknown = [f"{key} has no '{name}'.{suggest(str(name), known)}" for name in given if name not in known]
    needed = [
        field.name
        for field in fields(cls)  # type: ignore[arg-type]
        if field.init and field.default is MISSING and field.default_factory is MISSING
    ]
    if lacking := [name for name in needed if name not in given]:
        unknown.append(f"{key} needs {' and '.join(lacking)}.")
    if unknown:
        raise SettingsError(unknown)
    try:
        return cls(**given)
    except TypeError as error:  # from comparisons with a wrong type
        raise SettingsError([f"{key} is {dict(given)!r}, which contains a value of a wrong type: {error}."]) from error


def _in_yaml(word: Any) -> str:
    return str(word).lower() if isinstance(word, bool) else str(word)


def check_image_size(key: str, size: int | Sequence[int]) -> None:
    """Checks the size of an image.

    Args:
        key: Its dotted key.
        size: One side, or height and width, in pixels.

    Raises:
        InputError: A side is out of its range, or the image has too many pixels.
    """
    section, _, name = key.rpartition(".")
    check_ranges(section, {name: size}, {name: SIDE})
    pixels = size**2 if isinstance(size, int) else math.prod(size)
    if pixels > LARGEST_AREA:
        raise InputError(
            f"{key} is {size}, an image of {pixels:,} pixels. Allowed: up to {LARGEST_AREA:,}, as 4096 x 4096; larger "
            "images are cut into tiles by data.image: {path: …, tile: 512}."
        )
