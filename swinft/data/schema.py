"""The schema of a training table: names of outputs and categories that prediction needs.

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
from swinft.data.target.custom import class_path_of, fingerprint, is_same
from swinft.data.target.kinds import TARGETS, GivenKind, is_custom, target_columns, target_of
from swinft.data.target.names import in_order, names_in
from swinft.errors import InputError

MISSING_CATEGORY = ""  # the category of missing cells, if the training table has any


@dataclass(frozen=True)
class Schema:
    """All that prediction needs from the training table.

    Args:
        kind: Kind of target, of swinft's three; of a custom class the one that it derives from.
        outputs: Names of the K prediction columns: classes, target columns, or labels.
        numeric_features: Metadata columns used as numbers.
        categories: Metadata columns used as categories, with their values in the training table, `MISSING_CATEGORY`
            last.
        prior: Mean of each output over the training rows (class and label frequencies, means of numbers): the
            prediction for an unusable image.
        ranges: Smallest and largest training target of each output; for numbers only.
        are_ordered: Whether `outputs` are classes in the order of `data.columns.class_order`.
        booleans: Columns of `numeric_features` that contain only 0, 1, True and False.
        kind_class: Class path of a custom kind; None for one of swinft's.
        kind_check: Numbers that change with what a custom kind makes of the training table.
        custom: The custom kind; None where none is, or only its name is known. It is not written down.
    """

    kind: str
    outputs: list[str]
    numeric_features: list[str] = field(default_factory=list)
    categories: dict[str, list[str]] = field(default_factory=dict)
    prior: list[float] = field(default_factory=list)
    ranges: list[list[float]] = field(default_factory=list)
    are_ordered: bool = False
    booleans: list[str] = field(default_factory=list)
    kind_class: str | None = None
    kind_check: list[float] = field(default_factory=list)
    custom: Target | None = field(default=None, compare=False, repr=False)

    @property
    def target(self) -> Target:
        """What its kind of target means.

        Raises:
            InputError: It is of a custom class, of which only the name is known.
        """
        if self.custom is None and self.kind_class is not None:
            raise InputError(
                f"the schema is of data.target_kind {self.kind_class}, and does not hold its object: set it as the "
                f"`schema` of a datamodule with this kind."
            )
        return self.base if self.custom is None else self.custom

    @property
    def base(self) -> Target:
        """The kind of swinft's that it is or derives from: all that heads, metrics and submissions rely on."""
        return TARGETS[self.kind]

    @property
    def kind_name(self) -> str:
        """Its kind for a message."""
        return self.kind if self.kind_class is None else f"{self.kind_class}, a {self.kind}"

    def captions(self, targets: NDArray[Any]) -> list[str]:
        """Readable targets of some rows."""
        return self.target.captions(targets, self.outputs)

    @property
    def num_features(self) -> int:
        """F: one per number, one per known value of a category."""
        return len(self.numeric_features) + sum(self.category_sizes)

    @property
    def category_sizes(self) -> list[int]:
        """Number of one-hot features of each category column; they come after the numbers."""
        return [len(known) for known in self.categories.values()]

    @property
    def are_numbers(self) -> bool:
        """Whether all classes are numbers."""
        return self.base.are_classes and all(map(NUMBER.fullmatch, self.outputs))

    @property
    def grades(self) -> NDArray[Any] | None:
        """Values for metrics of grades, float64; None without an order.

        For classes: the number of each class, or its position in `data.columns.class_order`, (K,). For numbers: the
        smallest and largest training target of each column, (2, K), if known.
        """
        if self.are_ordered:
            return np.arange(len(self.outputs), dtype=np.float64)
        if self.are_numbers:
            return np.array(self.outputs, np.float64)
        return np.array(self.ranges, np.float64).T if self.ranges else None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(replace(self, custom=None))
        del values["custom"]
        if self.kind_class is None:
            del values["kind_class"], values["kind_check"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Schema":
        """The schema that `to_dict` wrote."""
        return cls(**values)


def make_schema(
    table: Table,
    kind: GivenKind,
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
    meaning = target_of(kind)
    columns = target_columns(meaning, target, delimiter)
    outputs = list(meaning.outputs(TargetCells(table, columns, delimiter, rules), class_order))
    categories = {}
    for name in categorical_features:
        has_gaps = any(map(rules.is_missing, set(table.names(name))))
        categories[name] = in_order(names_in(table, name, rules)) + [MISSING_CATEGORY] * has_gaps
    booleans = [name for name in numeric_features if is_boolean(set(table.column(name)), rules)]
    is_ordered = class_order is not None
    schema = Schema(meaning.kind, outputs, list(numeric_features), categories, [], [], is_ordered, booleans)
    return of_kind(schema, kind)


def of_kind(schema: Schema, kind: GivenKind) -> Schema:
    """The schema with the object of a custom kind."""
    if isinstance(kind, str) or not is_custom(kind):
        return schema
    return replace(schema, kind_class=class_path_of(kind), custom=target_of(kind))


def recognised(schema: Schema, kind: GivenKind) -> Schema:
    """A schema that was written down, with the object of its kind.

    Args:
        schema: Of an earlier run.
        kind: Of a datamodule.

    Raises:
        InputError: The schema is of another kind.
    """
    found = of_kind(replace(schema, kind=target_of(kind).kind, kind_class=None), kind)
    if (found.kind, found.kind_class) != (schema.kind, schema.kind_class):
        raise InputError(
            f"data.target_kind is {found.kind_name}, and the schema of the earlier run is of {schema.kind_name}: give "
            f"the kind that the run was made with."
        )
    return found


def check_kind(schema: Schema, known: Schema) -> None:
    """Compares what a custom kind makes of the training table with what it made of it for a run.

    Args:
        schema: Of the table now.
        known: Of the run.

    Raises:
        InputError: The outputs or targets are others.
    """
    is_other = schema.kind_class != known.kind_class or schema.outputs != known.outputs
    if is_other or not is_same(schema.kind_check, known.kind_check):
        raise InputError(
            f"data.target_kind: {schema.kind_name}, makes other targets of the training table than when the run was "
            f"started: its code, or what it reads, has changed. Undo the change, or give a new run another --name."
        )


def with_prior(schema: Schema, targets: NDArray[Any]) -> Schema:
    """The schema with the mean and, for numbers, the range of each output over the training rows' targets."""
    prior = schema.target.prior(targets, len(schema.outputs))
    check = [] if schema.custom is None else fingerprint(targets)
    return replace(schema, prior=prior, ranges=schema.target.ranges(targets), kind_check=check)
