"""Rules as a config names them: by a word, a word with arguments, or as objects of custom classes."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from swinft.errors import InputError, suggest
from swinft.inference.rules.builtin import (
    AnyRule,
    ClipRule,
    ExclusiveRule,
    GroupRule,
    HierarchyRule,
    NormalizeRule,
    PowerRule,
    SumRule,
)
from swinft.inference.rules.calibration import AffineRule, CalibrateRule, ClipFittedRule, TemperatureRule
from swinft.inference.rules.class_weights import ClassWeightsRule
from swinft.inference.rules.rule import KEY, Rule
from swinft.inference.rules.thresholds import CutsRule, ThresholdsRule

RuleName = Literal[
    "affine",
    "any",
    "calibrate",
    "class_weights",
    "clip",
    "clip_fitted",
    "cuts",
    "exclusive",
    "group",
    "hierarchy",
    "normalize",
    "power",
    "sum",
    "temperature",
    "thresholds",
]
# A word, or a word with its arguments. Others than mappings are errors, which are explained here: the parser would read
# them as a class that lacks its path.
NamedRule = RuleName | dict[RuleName, dict[str, Any] | list[Any] | float | None]
BUILTIN = (AnyRule, ClipRule, ExclusiveRule, GroupRule, HierarchyRule, NormalizeRule, PowerRule, SumRule)
FITTED = (AffineRule, CalibrateRule, ClassWeightsRule, ClipFittedRule, CutsRule, TemperatureRule, ThresholdsRule)
RULES: dict[str, type[Rule]] = {rule.name: rule for rule in (*BUILTIN, *FITTED)}


def rules_of(given: Sequence[Any]) -> list[Rule]:
    """The rules of a config.

    Args:
        given: Rules; names of built-in rules; and mappings of a name to its arguments, `{"clip": {"min": 0}}`.

    Raises:
        InputError: One is not a rule, or its arguments are wrong; all of them are listed.
    """
    found, problems = list[Rule](), list[str]()
    if isinstance(given, str | Mapping) or not isinstance(given, Sequence):
        raise InputError(f"{KEY} is {given!r}; write a list of rules: [{{clip: {{min: 0}}}}].")
    for number, each in enumerate(given, start=1):
        try:
            found.append(_rule_of(each))
        except InputError as error:
            problems.append(f"{KEY}: rule {number}: {error}")
    if problems:
        raise InputError("\n  ".join(["the rules are wrong:", *problems]) if len(problems) > 1 else problems[0])
    return found


def _rule_of(given: Any) -> Rule:
    """A rule of a config.

    Raises:
        InputError: It is not a rule, or its arguments are wrong.
    """
    if isinstance(given, Rule):
        return given
    if isinstance(given, Mapping) and len(given) != 1:
        raise InputError(f"it has the names {', '.join(map(str, given)) or 'of no rule'}: write one rule per entry.")
    name, arguments = next(iter(given.items())) if isinstance(given, Mapping) else (given, {})
    if not isinstance(name, str) or name not in RULES:
        raise InputError(f"'{name}' is not a rule.{suggest(str(name), RULES)}")
    parameters = inspect.signature(RULES[name]).parameters
    shown = f"its arguments are {', '.join(parameters)}"
    if not isinstance(arguments or {}, Mapping):
        raise InputError(f"{name} is given {arguments!r}; {shown}.")
    given_names = list(map(str, arguments or {}))
    if unknown := [each for each in given_names if each not in parameters]:
        raise InputError(f"{name} has no '{unknown[0]}'.{suggest(unknown[0], parameters)}")
    needed = [each for each, known in parameters.items() if known.default is known.empty and each not in given_names]
    if needed:
        raise InputError(f"{name} needs {' and '.join(needed)}; {shown}.")
    return RULES[name](**(arguments or {}))
