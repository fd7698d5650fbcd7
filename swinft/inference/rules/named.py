"""Rules as a config names them: by a word, a word with arguments, or as objects of custom classes."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from swinft.class_spec import AsWritten, from_word
from swinft.errors import InputError
from swinft.inference.rules.builtin import (
    AloneRule,
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
from swinft.inference.rules.expected_cost import ExpectedCostRule
from swinft.inference.rules.rule import KEY, Rule
from swinft.inference.rules.thresholds import CutsRule, NewClassRule, ThresholdsRule

RuleName = Literal[
    "affine",
    "alone",
    "any",
    "calibrate",
    "class_weights",
    "clip",
    "clip_fitted",
    "cuts",
    "exclusive",
    "expected_cost",
    "group",
    "hierarchy",
    "new_class",
    "normalize",
    "power",
    "sum",
    "temperature",
    "thresholds",
]
# A word, or a word with its arguments. Others than mappings are errors, which are explained here: the parser would read
# them as a class that lacks its path.
NamedRule = RuleName | dict[RuleName, dict[str, AsWritten] | list[AsWritten] | float | None]
BUILTIN = (
    AloneRule,
    AnyRule,
    ClipRule,
    ExclusiveRule,
    ExpectedCostRule,
    GroupRule,
    HierarchyRule,
    NormalizeRule,
    PowerRule,
    SumRule,
)
FITTED = (
    AffineRule,
    CalibrateRule,
    ClassWeightsRule,
    ClipFittedRule,
    CutsRule,
    NewClassRule,
    TemperatureRule,
    ThresholdsRule,
)
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
    made: Rule = from_word(given, RULES, "rule")
    return made
