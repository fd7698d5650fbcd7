"""What prediction must know of the training table: names of outputs and categories, and what leads back to cells.

Shapes: N rows, K outputs, F metadata features.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.tables.numbers import NUMBER, is_boolean
from swinft.data.tables.table import Table
from swinft.data.tables.text import TEXT_RULES, TextRules
from swinft.data.target.base import Target, TargetCells
from swinft.data.target.kinds import TARGETS, target_columns
from swinft.data.target.names import in_order, names_in

MISSING_CATEGORY = ""  # the category of a missing cell, where the training table has missing ones


@dataclass(frozen=True)
class Schema:
    """What prediction must know of the training table.

    Args:
        kind: Kind of target.
        outputs: Names of the K prediction columns: classes, target columns, or labels.
        numeric_features: Metadata columns used as numbers.
        categories: Metadata columns used as categories, with their values in the training table, `MISSING_CATEGORY`
            last.
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
    def target(self) -> Target:
        """What its kind of target means."""
        return TARGETS[self.kind]

    def captions(self, targets: NDArray[Any]) -> list[str]:
        """The targets of some rows in words."""
        return self.target.captions(targets, self.outputs)

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
        return self.target.are_classes and all(map(NUMBER.fullmatch, self.outputs))

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
    columns = target_columns(TARGETS[kind], target, delimiter)
    outputs = TARGETS[kind].outputs(TargetCells(table, columns, delimiter, rules), class_order)
    categories = {}
    for name in categorical_features:
        has_gaps = any(map(rules.is_missing, set(table.names(name))))
        categories[name] = in_order(names_in(table, name, rules)) + [MISSING_CATEGORY] * has_gaps
    booleans = [name for name in numeric_features if is_boolean(set(table.column(name)), rules)]
    is_ordered = class_order is not None
    return Schema(kind, outputs, list(numeric_features), categories, are_ordered=is_ordered, booleans=booleans)


def with_prior(schema: Schema, targets: NDArray[Any]) -> Schema:
    """The schema with the mean and, for numbers, the range of each output over the training rows' targets."""
    prior = schema.target.prior(targets, len(schema.outputs))
    return replace(schema, prior=prior, ranges=schema.target.ranges(targets))
