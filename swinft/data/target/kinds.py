"""The built-in kinds of target by name, and checks of the settings for the target."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

from swinft.data.target.base import Target
from swinft.data.target.classification import Classification
from swinft.data.target.custom import checked
from swinft.data.target.multilabel import Multilabel
from swinft.data.target.regression import Regression
from swinft.data.target.segmentation import Segmentation
from swinft.data.target.soft import SoftClassification
from swinft.errors import InputError, listed, suggest

TargetKind = Literal["classification", "regression", "multilabel", "segmentation"]
GivenKind = TargetKind | Target
KINDS = (Classification, Regression, Multilabel, Segmentation)
TARGETS: dict[str, Target] = {kind.kind: kind() for kind in KINDS}
SOFT = SoftClassification()  # `classification` with a column for each class
FACTS = ("kind", "formats", "are_classes", "are_probabilities")  # what heads, metrics and formats rely on


def target_of(given: GivenKind, columns: str | Sequence[str] = "") -> Target:
    """The object of a kind; results of a custom kind are checked.

    Args:
        given: A name, or an object that passed `kind_problem`.
        columns: The target's columns; several columns of `classification` are soft targets.
    """
    if isinstance(given, str):
        is_several = not isinstance(columns, str) and len(columns) > 1
        return SOFT if TARGETS[given].are_classes and is_several else TARGETS[given]
    return checked(given, TARGETS[given.kind]) if is_custom(given) else given


def is_custom(given: Any) -> bool:
    """Whether a kind is custom."""
    return isinstance(given, Target) and type(given) not in KINDS


def kind_problem(given: Any) -> str:
    """A problem of the setting `data.target_kind`, as a sentence; empty if there is none."""
    names = get_args(TargetKind)
    bases = ", ".join(f"swinft.{kind.__name__}" for kind in KINDS)
    if isinstance(given, type) and issubclass(given, Target):
        return f"data.target_kind is the class {given.__name__}; give an object of it: {given.__name__}()."
    if not isinstance(given, Target):
        hint = suggest(given, names) if isinstance(given, str) else f" Give one of {', '.join(names)}."
        return "" if isinstance(given, str) and given in names else f"data.target_kind is '{given}'.{hint}"
    base = next((kind for kind in KINDS if isinstance(given, kind)), None)
    if base is None:
        return f"data.target_kind is a {type(given).__name__}: derive it from one of {bases}."
    other = [fact for fact in FACTS if getattr(given, fact, None) != getattr(base, fact)]
    if other:
        return (
            f"data.target_kind: {type(given).__name__} has a different `{other[0]}` from swinft.{base.__name__}, which "
            f"heads, metrics and submissions rely on: remove it, or derive the class from another one of {bases}."
        )
    return ""


def target_columns(target: Target, given: str | list[str], delimiter: str | None) -> list[str]:
    """The columns that hold a target.

    Args:
        target: Its kind.
        given: `data.target`.
        delimiter: Delimiter between the labels of one cell, or None.

    Raises:
        InputError: The target's form does not fit its kind.
    """
    columns = [given] if isinstance(given, str) else list(given)
    if not columns:
        raise InputError("data.target names no column.")
    if doubled := [name for name in dict.fromkeys(columns) if columns.count(name) > 1]:
        raise InputError(f"data.target names {listed(doubled)} more than once; name each column once.")
    target.check_columns(columns, delimiter)
    if delimiter is not None and (not target.takes_delimiter or len(columns) > 1):
        raise InputError(
            "data.columns.label_delimiter is for multilabel targets in one column; remove it, or name one column."
        )
    if delimiter == "":
        raise InputError("data.columns.label_delimiter is empty; write the delimiter of labels, like ' ' or '|'.")
    return columns
