"""The kinds of target by their names."""

from typing import Literal

from swinft.data.target.base import Target
from swinft.data.target.classification import Classification
from swinft.data.target.multilabel import Multilabel
from swinft.data.target.regression import Regression
from swinft.errors import InputError

TargetKind = Literal["classification", "regression", "multilabel"]
TARGETS: dict[str, Target] = {target.kind: target for target in (Classification(), Regression(), Multilabel())}


def target_columns(target: Target, given: str | list[str], delimiter: str | None) -> list[str]:
    """The columns that hold a target.

    Args:
        target: Its kind.
        given: `data.target`.
        delimiter: What stands between the labels of one cell.

    Raises:
        InputError: The target's form does not fit its kind.
    """
    columns = [given] if isinstance(given, str) else list(given)
    if not columns:
        raise InputError("data.target names no column.")
    target.check_columns(columns, delimiter)
    if delimiter is not None and (not target.takes_delimiter or len(columns) > 1):
        raise InputError(
            "data.columns.label_delimiter is for multilabel targets in one column; remove it, or name one column."
        )
    if delimiter == "":
        raise InputError(
            "data.columns.label_delimiter is empty; write what stands between two labels, like ' ' or '|'."
        )
    return columns
