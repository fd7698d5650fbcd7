"""The schema of a training table: names of outputs and categories that prediction needs.

Shapes: N rows, K outputs, F metadata features.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.tables.numbers import are_numbers, is_boolean
from swinft.data.tables.table import Table
from swinft.data.tables.text import TEXT_RULES, TextRules
from swinft.data.target.base import Target, TargetCells
from swinft.data.target.custom import class_path_of, fingerprint, is_same
from swinft.data.target.kinds import SOFT, TARGETS, GivenKind, is_custom, target_columns, target_of
from swinft.data.target.names import in_order, names_in
from swinft.errors import InputError

MISSING_CATEGORY = ""  # the category of missing cells, if the training table has any
OPTIONAL = ("is_soft", "has_gaps", "auxiliary", "masks")  # stored only if set


@dataclass(frozen=True)
class Schema:
    """All that prediction needs from the training table.

    Args:
        kind: Built-in kind of target; for a custom class, the one that it derives from.
        outputs: Names of the K prediction columns: classes, target columns, or labels.
        numeric_features: Metadata columns used as numbers.
        categories: Metadata columns used as categories, with their values in the training table, `MISSING_CATEGORY`
            last.
        prior: Mean of each output over the training rows (class and label frequencies, means of numbers): the
            prediction for an unusable image.
        ranges: Smallest and largest training target of each output; for numbers only.
        are_ordered: Whether `outputs` are classes in the order of `data.columns.class_order`.
        booleans: Columns of `numeric_features` that contain only 0, 1, True and False.
        is_soft: Whether the targets of classes are soft: a column for each class.
        has_gaps: Whether some rows may lack some of their targets.
        auxiliary: The auxiliary targets, each with `name`, `kind`, `outputs`, `weight` and `head`; for training only.
        masks: How masks are written: `order` of their pixels in run-length encoding, `resize`, how images are resized
            for the network, and `classes` of a pixel if they are not independent; and the `sha256` of the training
            masks; for segmentation only.
        kind_class: Class path of a custom kind; None for a built-in kind.
        kind_check: Fingerprint of the training targets that a custom kind encodes, or of the coverage of masks.
        custom: The object of the kind, if one was given; it is not stored.
    """

    kind: str
    outputs: list[str]
    numeric_features: list[str] = field(default_factory=list)
    categories: dict[str, list[str]] = field(default_factory=dict)
    prior: list[float] = field(default_factory=list)
    ranges: list[list[float]] = field(default_factory=list)
    are_ordered: bool = False
    booleans: list[str] = field(default_factory=list)
    is_soft: bool = False
    has_gaps: bool = False
    auxiliary: list[dict[str, Any]] = field(default_factory=list)
    masks: dict[str, Any] = field(default_factory=dict)
    kind_class: str | None = None
    kind_check: list[float] = field(default_factory=list)
    custom: Target | None = field(default=None, compare=False, repr=False)

    @property
    def target(self) -> Target:
        """The object of the kind.

        Raises:
            InputError: The kind is custom, and only its name is known.
        """
        if self.custom is None and self.kind_class is not None:
            raise InputError(
                f"the schema is of data.target_kind {self.kind_class}, and does not contain its object: set it as the "
                f"`schema` of a datamodule with this kind."
            )
        return self.base if self.custom is None else self.custom

    @property
    def base(self) -> Target:
        """The built-in kind that it is or derives from; heads, metrics and submissions rely on it."""
        return SOFT if self.is_soft else TARGETS[self.kind]

    @property
    def auxiliary_heads(self) -> list[dict[str, Any]]:
        """What a network needs of each auxiliary target: `name`, `kind`, `num_outputs`, `weight` and `head`."""
        return [
            {"num_outputs": len(each["outputs"]), **{name: each[name] for name in ("name", "kind", "weight", "head")}}
            for each in self.auxiliary
        ]

    @property
    def unordered_auxiliary(self) -> list[str]:
        """Names of the auxiliary targets whose classes are not numbers, and have no order."""
        return [each["name"] for each in self.auxiliary if not are_numbers(each["outputs"])]

    @property
    def kind_name(self) -> str:
        """Name of the kind, for messages."""
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
        return self.base.are_classes and are_numbers(self.outputs)

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
            del values["kind_class"]
        if not self.kind_check:
            values.pop("kind_check")
        return {name: value for name, value in values.items() if value or name not in OPTIONAL}

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
    meaning = target_of(kind, target)
    columns = target_columns(meaning, target, delimiter)
    outputs = list(meaning.outputs(TargetCells(table, columns, delimiter, rules), class_order))
    categories = {}
    for name in categorical_features:
        has_gaps = any(map(rules.is_missing, set(table.names(name))))
        categories[name] = in_order(names_in(table, name, rules)) + [MISSING_CATEGORY] * has_gaps
    booleans = [name for name in numeric_features if is_boolean(set(table.column(name)), rules)]
    is_ordered = class_order is not None
    schema = Schema(meaning.kind, outputs, list(numeric_features), categories, [], [], is_ordered, booleans)
    return of_kind(replace(schema, is_soft=meaning.is_soft and isinstance(kind, str)), kind)


def of_kind(schema: Schema, kind: GivenKind) -> Schema:
    """The schema, with the object of a custom kind."""
    if isinstance(kind, str):
        return schema
    if not is_custom(kind):
        return replace(schema, custom=kind)  # it may have arguments
    return replace(schema, kind_class=class_path_of(kind), custom=target_of(kind))


def recognised(schema: Schema, kind: GivenKind) -> Schema:
    """A stored schema, with the object of its kind.

    Args:
        schema: Schema of an earlier run.
        kind: Kind of a datamodule.

    Raises:
        InputError: The schema is of another kind.
    """
    found = of_kind(replace(schema, kind=target_of(kind).kind, kind_class=None), kind)
    if (found.kind, found.kind_class) != (schema.kind, schema.kind_class):
        raise InputError(
            f"data.target_kind is {found.kind_name}, and the schema of the earlier run is of {schema.kind_name}: set "
            f"the kind of that run."
        )
    return found


def check_kind(schema: Schema, known: Schema) -> None:
    """Checks that a custom kind encodes the training table as it did for a run, and that masks are the same.

    Args:
        schema: Current schema of the table.
        known: Schema of the run.

    Raises:
        InputError: Outputs or targets differ.
    """
    is_other = schema.kind_class != known.kind_class or schema.outputs != known.outputs
    digests = [each.masks.get("sha256") for each in (schema, known)]  # runs of earlier versions have none
    has_other = None not in digests and digests[0] != digests[1]
    if schema.base.are_maps and (has_other or not is_same(schema.kind_check, known.kind_check)):
        raise InputError(
            "the masks of the training rows have changed since the run was started: restore them, or give a new run "
            "another --name."
        )
    if is_other or not is_same(schema.kind_check, known.kind_check):
        raise InputError(
            f"data.target_kind: {schema.kind_name}, encodes other targets than when the run was started: "
            f"its code, or a file that it reads, has changed. Undo the change, or give a new run another --name."
        )


def with_prior(schema: Schema, targets: NDArray[Any], masks_sha256: str | None = None) -> Schema:
    """The schema with the mean and, for numbers, the range of each output over the training rows' targets.

    Args:
        schema: The schema.
        targets: Targets of the rows.
        masks_sha256: SHA-256 of their masks; None for other kinds of target.

    Raises:
        InputError: There are no such rows.
    """
    if not len(targets):
        raise InputError(
            "no training row is left: each lacks its target, or is skipped for its images (data.loading.on_bad_image "
            "is skip). With it set to error, `swinft check` says what is wrong with each; look at data.image first."
        )
    prior = schema.target.prior(targets, len(schema.outputs))
    check = fingerprint(targets) if schema.kind_class is not None or schema.base.are_maps else []
    masks = schema.masks if masks_sha256 is None else {**schema.masks, "sha256": masks_sha256}
    return replace(schema, prior=prior, ranges=schema.target.ranges(targets), kind_check=check, masks=masks)
