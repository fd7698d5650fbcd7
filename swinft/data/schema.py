"""What prediction must know of the training table: names of outputs and categories, and what leads back to cells.

Shapes: N rows, K outputs, F metadata features.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from swinft.data.tables.numbers import NUMBER, is_boolean
from swinft.data.tables.table import Table
from swinft.data.tables.text import TEXT_RULES, TextRules
from swinft.errors import InputError, listed

TargetKind = Literal["classification", "regression", "multilabel"]
GAP = ""  # the category of a missing cell, where the training table has missing ones


@dataclass(frozen=True)
class Schema:
    """What prediction must know of the training table.

    Args:
        kind: Kind of target.
        outputs: Names of the K prediction columns: classes, target columns, or labels.
        numeric_features: Metadata columns used as numbers.
        categories: Metadata columns used as categories, with the values they have in the training table, `GAP` last.
        prior: Mean of each output over the training rows, which stands in for an image that cannot be used: shares of
            classes and labels, means of numbers.
        ranges: Smallest and largest training target of each output; of numbers only.
        are_ordered: Whether `outputs` are classes in an order that `data.columns.class_order` gave.
        booleans: Columns of `numeric_features` that hold nothing but 0, 1, True and False.
    """

    kind: str
    outputs: list[str]
    numeric_features: list[str] = field(default_factory=list)
    categories: dict[str, list[str]] = field(default_factory=dict)
    prior: list[float] = field(default_factory=list)
    ranges: list[list[float]] = field(default_factory=list)
    are_ordered: bool = False
    booleans: list[str] = field(default_factory=list)

    @property
    def num_features(self) -> int:
        """F: one per number, one per known value of a category."""
        return len(self.numeric_features) + sum(self.category_sizes)

    @property
    def category_sizes(self) -> list[int]:
        """Number of one-hot columns of each category column: the last of the F features."""
        return [len(known) for known in self.categories.values()]

    @property
    def are_numbers(self) -> bool:
        """Whether all classes are numbers."""
        return self.kind == "classification" and all(map(NUMBER.fullmatch, self.outputs))

    @property
    def grades(self) -> NDArray[Any] | None:
        """What metrics of grades count with, float64; None where there is no order.

        The number that each class stands for, or its position in `data.columns.class_order`, (K,); or the lowest and
        the highest training target of each column (2, K), where they are known.
        """
        if self.are_ordered:
            return np.arange(len(self.outputs), dtype=np.float64)
        if self.are_numbers:
            return np.array(self.outputs, np.float64)
        return np.array(self.ranges, np.float64).T if self.ranges else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Schema":
        """The schema that `to_dict` wrote."""
        return cls(**values)


def target_columns(kind: str, target: str | list[str], delimiter: str | None) -> list[str]:
    """The columns that hold the target.

    Raises:
        InputError: The target's form does not fit its kind.
    """
    columns = [target] if isinstance(target, str) else list(target)
    if not columns:
        raise InputError("data.target names no column.")
    if kind == "classification" and len(columns) > 1:
        raise InputError(
            f"data.target names {columns}, but classification has one column of classes. For several 0/1 columns set "
            f"data.target_kind to multilabel, with the head swinft.MultilabelHead; or write the name of each row's "
            f"column into one column (pandas: table[columns].idxmax(axis=1))."
        )
    if delimiter is not None and (kind != "multilabel" or len(columns) > 1):
        raise InputError(
            "data.columns.label_delimiter is for multilabel targets in one column; remove it, or name one column."
        )
    if delimiter == "":
        raise InputError(
            "data.columns.label_delimiter is empty; write what stands between two labels, like ' ' or '|'."
        )
    if kind == "multilabel" and delimiter is None and len(columns) == 1:
        raise InputError(
            f"data.target names one column, '{columns[0]}'. For a string of labels set data.columns.label_delimiter "
            f"(' ' or '|'); for 0/1 columns name them all."
        )
    return columns


def make_schema(
    table: Table,
    kind: str,
    target: str | list[str],
    delimiter: str | None,
    numeric_features: Sequence[str],
    categorical_features: Sequence[str],
    rules: TextRules = TEXT_RULES,
    class_order: Sequence[str] | None = None,
) -> Schema:
    """The schema of a training table: outputs and categories in a fixed order.

    Raises:
        InputError: `class_order` does not name the table's classes.
    """
    columns = target_columns(kind, target, delimiter)
    if kind == "classification":
        outputs = _in_order(_values(table, columns[0], rules))
        if class_order is not None:
            outputs = _as_asked(outputs, class_order)
    elif delimiter is not None:
        cells = set(table.names(columns[0]))
        outputs = _in_order({token for cell in cells for token in label_tokens(cell, delimiter, rules)} - {""})
    else:
        outputs = columns
    categories = {}
    for name in categorical_features:
        has_gaps = any(map(rules.is_missing, set(table.names(name))))
        categories[name] = _in_order(_values(table, name, rules)) + [GAP] * has_gaps
    booleans = [name for name in numeric_features if is_boolean(set(table.column(name)), rules)]
    is_ordered = class_order is not None
    return Schema(kind, outputs, list(numeric_features), categories, are_ordered=is_ordered, booleans=booleans)


def with_prior(schema: Schema, targets: NDArray[Any]) -> Schema:
    """The schema with the mean and, for numbers, the range of each output over the training rows' targets."""
    if targets.ndim == 1:
        return replace(schema, prior=(np.bincount(targets, minlength=len(schema.outputs)) / len(targets)).tolist())
    ranges = np.stack([targets.min(0), targets.max(0)], axis=1).tolist() if schema.kind == "regression" else []
    return replace(schema, prior=targets.mean(0, dtype=np.float64).tolist(), ranges=ranges)


def label_tokens(cell: str, delimiter: str, rules: TextRules) -> list[str]:
    """The labels of a cell; one that means missing has none, and blanks around a label do not count."""
    if rules.is_missing(cell):
        return []
    blank = re.sub(r"[^\S ]", " ", cell) if delimiter == " " else cell  # a tab or a no-break blank is a blank
    return [token.strip() for token in blank.split(delimiter)]


def _values(table: Table, column: str, rules: TextRules) -> set[str]:
    """The names in a column, without words for a missing value."""
    return {name for name in set(table.names(column)) if not rules.is_missing(name)}


def _as_asked(found: list[str], class_order: Sequence[str]) -> list[str]:
    """The classes in the order that `data.columns.class_order` gives.

    Raises:
        InputError: It leaves a class out, has one that no row has, or has one twice.
    """
    wrong = {
        "without": [name for name in found if name not in class_order],
        "with the unknown": [name for name in class_order if name not in found],
        "twice with": [name for name in dict.fromkeys(class_order) if list(class_order).count(name) > 1],
    }
    said = [f"{what} {listed(names)}" for what, names in wrong.items() if names]
    if said:
        raise InputError(
            f"data.columns.class_order is {' and '.join(said)}. It must name each of {listed(found)} once."
        )
    return list(class_order)


def _in_order(names: set[str]) -> list[str]:
    """Sorted; by number where all are numbers, so that 10 comes after 9."""
    key: Callable[[str], Any] = float if all(re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", name) for name in names) else str
    return sorted(names, key=lambda name: (key(name), name))
