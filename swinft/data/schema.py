"""Cells become numbers: targets and metadata, and the names that lead back from numbers to cells.

Shapes: N rows, K outputs, F metadata features.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from swinft.data.table import Problem, Table
from swinft.errors import InputError, suggest

TargetKind = Literal["classification", "regression", "multilabel"]
LARGEST = float(np.finfo(np.float32).max)
MISSING = {"", "nan", "na", "n/a", "null", "none"}
# What `float` takes for a number, without `1_000`, `nan` and `inf`.
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*")


@dataclass(frozen=True)
class Schema:
    """What prediction must know of the training table.

    Args:
        kind: Kind of target.
        outputs: Names of the K prediction columns: classes, target columns, or labels.
        numeric_features: Metadata columns used as numbers.
        categories: Metadata columns used as categories, with the values they have in the training table.
        prior: Mean of each output over the training rows, which stands in for a picture that cannot be used: shares of
            classes and labels, means of numbers.
        ranges: Smallest and largest training target of each output; of numbers only.
    """

    kind: str
    outputs: list[str]
    numeric_features: list[str] = field(default_factory=list)
    categories: dict[str, list[str]] = field(default_factory=dict)
    prior: list[float] = field(default_factory=list)
    ranges: list[list[float]] = field(default_factory=list)

    @property
    def num_features(self) -> int:
        """F: one per number, one per known value of a category."""
        return len(self.numeric_features) + sum(map(len, self.categories.values()))

    @property
    def category_sizes(self) -> list[int]:
        """Number of one-hot columns of each category column: the last of the F features."""
        return [len(known) for known in self.categories.values()]

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
        raise InputError(f"data.target names {columns}, but classification has one column of classes.")
    if delimiter is not None and (kind != "multilabel" or len(columns) > 1):
        raise InputError("data.label_delimiter is for multilabel targets in one column; remove it, or name one column.")
    if kind == "multilabel" and delimiter is None and len(columns) == 1:
        raise InputError(
            f"data.target names one column, '{columns[0]}'. For a string of labels set data.label_delimiter (' ' or "
            f"'|'); for 0/1 columns name them all."
        )
    return columns


def make_schema(
    table: Table,
    kind: str,
    target: str | list[str],
    delimiter: str | None,
    numeric_features: Sequence[str],
    categorical_features: Sequence[str],
) -> Schema:
    """The schema of a training table: outputs in a fixed order, categories as they occur."""
    columns = target_columns(kind, target, delimiter)
    if kind == "classification":
        outputs = _in_order(set(table.column(columns[0])) - {""})
    elif delimiter is not None:
        outputs = _in_order({token for cell in table.column(columns[0]) for token in _tokens(cell, delimiter)} - {""})
    else:
        outputs = columns
    categories = {name: _in_order(set(table.column(name)) - {""}) for name in categorical_features}
    return Schema(kind, outputs, list(numeric_features), categories)


def encode_targets(
    table: Table, schema: Schema, target: str | list[str], delimiter: str | None, problems: list[Problem]
) -> NDArray[Any]:
    """Targets as numbers.

    Args:
        table: The training table.
        schema: Its schema.
        target: Target column or columns.
        delimiter: What stands between labels in one cell.
        problems: Whatever is wrong is appended.

    Returns:
        int64 (N,) for classification, else float32 (N, K).
    """
    columns = target_columns(schema.kind, target, delimiter)
    if schema.kind == "regression":
        values = numbers(table, columns, problems)
        for k in np.flatnonzero((values == values[:1]).all(0)):
            message, fix = "all rows have the same number", "There is nothing to learn; name another column."
            problems.append(Problem(str(table.path), message, fix, column=columns[k]))
        return values
    if schema.kind == "classification":
        return _class_indices(table, schema, columns[0], problems)
    if delimiter is not None:
        return _label_rows(table, schema, columns[0], delimiter, problems)
    values = numbers(table, columns, problems)
    for row, k in np.argwhere(~np.isin(values, (0, 1)) & np.isfinite(values)):
        problems.append(table.problem(int(row), "a label must be 0 or 1", "Mend the cell.", columns[k]))
    return values


def encode_features(table: Table, schema: Schema, problems: list[Problem]) -> NDArray[np.float32]:
    """Metadata as float32 (N, F): numbers as they are, categories one-hot. A value unseen in training is a problem."""
    parts = [numbers(table, schema.numeric_features, problems)]
    for name, known in schema.categories.items():
        cells = table.column(name)
        parts.append(np.array([[cell == value for value in known] for cell in cells], dtype=np.float32))
        for row, cell in enumerate(cells):
            if cell not in known:
                message = "the training table has no such value" if cell else "the cell is empty"
                fix = f"Write one of the training table's, or drop the column.{suggest(cell, known)}"
                problems.append(table.problem(row, message, fix, name))
    return np.concatenate([part.reshape(len(table), -1) for part in parts], axis=1)


def numbers(table: Table, columns: Sequence[str], problems: list[Problem]) -> NDArray[np.float32]:
    """Cells as float32 (N, columns); text, empty cells, NaN and infinities are problems."""
    values = np.full((len(table), len(columns)), np.nan, dtype=np.float32)
    for k, name in enumerate(columns):
        for row, cell in enumerate(table.column(name)):
            if NUMBER.fullmatch(cell) and abs(number := float(cell)) <= LARGEST:
                values[row, k] = number
                continue
            message = "the cell is no finite number" if cell.strip() else "the cell is empty"
            fix = "Write a number like -1234.5, or remove the row."
            problems.append(table.problem(row, message, fix, name))
    return values


def with_prior(schema: Schema, targets: NDArray[Any]) -> Schema:
    """The schema with the mean and, for numbers, the range of each output over the training rows' targets."""
    columns = np.eye(len(schema.outputs))[targets] if targets.ndim == 1 else targets
    ranges = np.stack([columns.min(0), columns.max(0)], axis=1).tolist() if schema.kind == "regression" else []
    return replace(schema, prior=columns.mean(0, dtype=np.float64).tolist(), ranges=ranges)


def is_missing(table: Table, columns: Sequence[str]) -> NDArray[np.bool_]:
    """Rows with an empty or NaN cell in one of the columns, bool (N,)."""
    cells = [[cell.strip().lower() in MISSING for cell in table.column(name)] for name in columns]
    missing: NDArray[np.bool_] = np.logical_or.reduce(np.array(cells, dtype=bool))
    return missing


def check_class_sizes(table: Table, column: str, num_folds: int, problems: list[Problem]) -> None:
    """Appends every class with fewer rows than there are folds: some fold could neither learn nor score it."""
    for name, count in Counter(table.column(column)).items():
        if name and count < num_folds:
            fix = f"It has {count}. Merge it into another, lower data.num_folds, or set data.rare_classes to train."
            message = f"the class has fewer rows than the {num_folds} folds"
            problems.append(Problem(str(table.path), message, fix, column=column, value=name))


def check_known_classes(table: Table, schema: Schema, column: str, problems: list[Problem]) -> None:
    """Appends every class of a labelled test table that the training table does not have."""
    for row, cell in enumerate(table.column(column)):
        if cell and cell not in schema.outputs:
            fix = f"Mend it, or leave the column out.{suggest(cell, schema.outputs)}"
            problems.append(table.problem(row, "the training table has no such class", fix, column))


def _class_indices(table: Table, schema: Schema, column: str, problems: list[Problem]) -> NDArray[np.int64]:
    index = {name: k for k, name in enumerate(schema.outputs)}
    cells = table.column(column)
    problems += [
        table.problem(row, "the class is empty", "Give the row a class or remove it.", column)
        for row, cell in enumerate(cells)
        if not cell
    ]
    _report_twins(table, schema.outputs, column, problems)
    if len(schema.outputs) < 2:
        message = f"all rows have the class {schema.outputs}"
        problems.append(Problem(str(table.path), message, "A classifier needs two classes or more.", column=column))
    return np.array([index.get(cell, -1) for cell in cells], dtype=np.int64)


def _label_rows(
    table: Table, schema: Schema, column: str, delimiter: str, problems: list[Problem]
) -> NDArray[np.float32]:
    index = {name: k for k, name in enumerate(schema.outputs)}
    values = np.zeros((len(table), len(schema.outputs)), dtype=np.float32)
    for row, cell in enumerate(table.column(column)):
        tokens = _tokens(cell, delimiter)
        if "" in tokens or len(set(tokens)) < len(tokens):
            fix = f"Write each label once, one {delimiter!r} between two."
            problems.append(table.problem(row, "a label is empty or doubled", fix, column))
        values[row, [index[token] for token in tokens if token]] = 1
    _report_twins(table, schema.outputs, column, problems)
    if not schema.outputs:
        problems.append(Problem(str(table.path), "no row has a label", "Name the column of labels.", column=column))
    return values


def _tokens(cell: str, delimiter: str) -> list[str]:
    """The labels of a cell; an empty cell has none, and blanks around a label do not count."""
    return [token.strip() for token in cell.split(delimiter)] if cell.strip() else []


def _report_twins(table: Table, names: list[str], column: str, problems: list[Problem]) -> None:
    """Names that differ only by case or blanks are one class written in two ways."""
    seen: dict[str, str] = {}
    for name in names:
        whole = re.fullmatch(r"(-?[0-9]+)\.0+", name)  # what pandas makes of whole numbers where one is missing
        twin = seen.setdefault(whole[1] if whole else " ".join(name.casefold().split()), name)
        if twin != name:
            message = f"{twin!r} and {name!r} differ only by case, blanks or .0"
            problems.append(Problem(str(table.path), message, "Write the class in one way.", column=column))


def _in_order(names: set[str]) -> list[str]:
    """Sorted; by number where all are whole numbers, so that 10 comes after 9."""
    key: Callable[[str], Any] = int if all(re.fullmatch(r"-?[0-9]+", name) for name in names) else str
    return sorted(names, key=lambda name: (key(name), name))
