"""What the columns of a CSV mean, and the rows that come of it: images, targets, metadata and groups.

Shapes: N rows, K outputs, F metadata features.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from swinft.data.features import FILLING, Filling, encode_features
from swinft.data.image_paths import fields
from swinft.data.schema import Schema, TargetKind, make_schema, target_columns
from swinft.data.sources.files import FILES, FileSource
from swinft.data.sources.source import Source
from swinft.data.tables.table import Problem, Table, read_table
from swinft.data.tables.text import TEXT_RULES, Spellings, TextRules, counted
from swinft.data.targets import (
    check_class_sizes,
    encode_targets,
    missing_notes,
    missing_targets,
    twin_problems,
)
from swinft.errors import InputError, suggest


@dataclass(frozen=True)
class Columns:
    """Which columns mean what; the settings of `CSVDataModule` with the same names.

    Raises:
        InputError: The settings contradict each other; all contradictions are listed.
    """

    target: str | list[str]
    target_kind: TargetKind
    label_delimiter: str | None
    id: str
    image: str
    test_image: str | None
    numeric_features: list[str]
    categorical_features: list[str]
    group: str | None
    encoding: str = "utf-8"
    on_missing_target: Literal["error", "skip"] = "error"
    test_id: str | None = None
    sample_id: str | None = None
    rules: TextRules = TEXT_RULES
    filling: Filling = FILLING
    class_order: list[str] | None = None
    follow_links: bool = False

    def __post_init__(self) -> None:
        problems = [
            f"data.{name} '{template}' names no column; write one in braces: 'images/{{id}}.jpg'."
            for name, template in (("image", self.image), ("test_image", self.test_image))
            if template is not None and not fields(template)
        ]
        features = [*self.numeric_features, *self.categorical_features]
        problems += [
            f"'{name}' is in data.target and among the features: the network would be told the answer."
            for name in self.targets
            if name in features
        ]
        problems += [f"'{name}' is named twice among the features." for name in {*features} if features.count(name) > 1]
        if self.on_missing_target == "skip" and self.label_delimiter is not None:
            problems.append("data.on_missing_target does nothing for delimited labels: an empty cell has no label.")
        if self.class_order is not None and self.target_kind != "classification":
            problems.append(f"data.class_order does nothing where data.target_kind is {self.target_kind}; remove it.")
        if problems:
            raise InputError("\n  ".join(["the columns of data are wrong:", *problems]))

    @property
    def targets(self) -> list[str]:
        """The target's columns."""
        return target_columns(self.target_kind, self.target, self.label_delimiter)

    def id_of(self, is_sample: bool) -> tuple[str, str]:
        """The id column of the test table or of the sample submission, and the setting that names it."""
        if is_sample and self.sample_id:
            return self.sample_id, "submission.id"
        return (
            (self.test_id, "data.test_id")
            if self.test_id
            else (self.id, "submission.id" if is_sample else "data.test_id")
        )

    def needed(self, template: str, setting: str) -> dict[str, str]:
        """Columns that training and test rows need alike, each with the setting that names it."""
        return {
            **dict.fromkeys(fields(template), f"data.{setting}"),
            **dict.fromkeys(self.numeric_features, "data.numeric_features"),
            **dict.fromkeys(self.categorical_features, "data.categorical_features"),
        }


@dataclass(frozen=True, eq=False)
class Rows:
    """A table with what its rows become.

    Args:
        table: N rows.
        paths: N images.
        targets: int64 (N,) for classification, float32 (N, K) otherwise; None for rows to predict.
        features: float32 (N, F), None without metadata.
        groups: N names, None without groups.
        skipped: Why a row is neither trained on nor scored, by its position.
        source: Where the images' bytes come from.
    """

    table: Table
    paths: list[str]
    targets: NDArray[Any] | None = None
    features: NDArray[np.float32] | None = None
    groups: list[str] | None = None
    skipped: dict[int, str] = field(default_factory=dict)
    source: Source = FILES

    @property
    def is_used(self) -> NDArray[np.bool_]:
        """Which rows are trained on or scored, bool (N,)."""
        used = np.ones(len(self.table), dtype=bool)
        used[list(self.skipped)] = False
        return used


def read_train(
    path: Path, root: Path, columns: Columns, min_class_rows: int, problems: list[Problem]
) -> tuple[Rows, Schema] | None:
    """Reads the training rows and what prediction must know of them.

    Args:
        path: The CSV.
        root: The data's folder.
        columns: Which columns mean what.
        min_class_rows: Fewest rows of a class; 0 for any number.
        problems: Whatever is wrong is appended.

    Returns:
        None where the table is not there, has no such columns or no rows.
    """
    required = {
        **dict.fromkeys(columns.targets, "data.target"),
        **({columns.group: "data.group"} if columns.group else {}),
        **columns.needed(columns.image, "image"),
    }
    table = read_table(path, columns.id, required, problems, columns.encoding)
    if table is None or not len(table):
        return None
    notes: list[str] = []
    skipped = {}
    if columns.on_missing_target == "skip":
        missing = missing_targets(table, columns.targets, columns.rules)
        skipped = {int(row): "no target" for row in np.flatnonzero(missing)}
        notes += missing_notes(table, columns.targets, columns.rules)
        if missing.all():
            fix = "Name the column of the target, or correct data.missing_words."
            message = "all rows are without a target"
            problems.append(Problem(str(table.path), message, fix, column=", ".join(columns.targets)))
            return None
    answered = table.take(np.array([row for row in range(len(table)) if row not in skipped], dtype=np.int64))
    target = (columns.target, columns.label_delimiter)
    metadata = (columns.numeric_features, columns.categorical_features)
    schema = make_schema(answered, columns.target_kind, *target, *metadata, columns.rules, columns.class_order)
    targets = encode_targets(answered, schema, *target, problems, columns.rules, notes)
    features = _train_features(answered, schema, columns, problems, notes) if schema.num_features else None
    groups = _groups(table, columns.group, columns.rules, problems) if columns.group else None
    if columns.target_kind == "classification" and min_class_rows:
        problems += _rare_classes(table, schema, columns.targets[0], groups, min_class_rows)
    source = FileSource(columns.follow_links)
    paths = source.references(table, columns.image, root, problems, notes)
    table = replace(table, notes=(*table.notes, *notes))
    whole = _with_gaps(features, skipped) if features is not None else None
    return Rows(table, paths, _with_gaps(targets, skipped), whole, groups, skipped, source), schema


def _rare_classes(
    table: Table, schema: Schema, column: str, groups: list[str] | None, min_class_rows: int
) -> list[Problem]:
    cells, known = table.names(column), set(schema.outputs)
    rows = [row for row, cell in enumerate(cells) if cell in known]
    homes = [groups[row] for row in rows] if groups else None
    return check_class_sizes([cells[row] for row in rows], min_class_rows, homes, table, column)


def _train_features(
    table: Table, schema: Schema, columns: Columns, problems: list[Problem], notes: list[str]
) -> NDArray[np.float32]:
    for name in columns.categorical_features:
        problems += twin_problems(table, name, Counter(table.names(name)), columns.rules)
    return encode_features(table, schema, problems, columns.rules, columns.filling, notes=notes)


def _groups(table: Table, column: str, rules: TextRules, problems: list[Problem]) -> list[str]:
    """The group of every row; two spellings of one group would be torn over the folds."""
    groups = table.names(column)
    for row, cell in enumerate(groups):
        if rules.is_missing(cell):
            what = f"is {cell!r}, a word for a missing value" if cell else "is empty"
            fix = "Give the row a group; one of its own where it belongs to none."
            problems.append(table.problem(row, f"the group {what}", fix, column))
    problems += twin_problems(table, column, Counter(groups), rules)
    return groups


def read_test(
    path: Path,
    root: Path,
    columns: Columns,
    schema: Schema | None,
    is_sample: bool,
    problems: list[Problem],
    is_rerun: bool = False,
) -> Rows | None:
    """Reads the rows to predict.

    Args:
        path: The CSV.
        root: The data's folder.
        columns: Which columns mean what.
        schema: Of the training table; None where that could not be read, and this one is only checked.
        is_sample: A sample submission, whose targets are placeholders.
        problems: Whatever is wrong is appended.
        is_rerun: A trained run predicts them: a class that it does not know is noted, as nobody can change the table.

    Returns:
        None where the table is not there or has no such columns.
    """
    id, setting = columns.id_of(is_sample)
    template = columns.test_image or columns.image
    required = columns.needed(template, "test_image")
    if id in required:
        required[id] = f"{setting} and data.test_image"
    table = read_table(path, id, required, problems, columns.encoding, setting)
    unknown = [name for name in fields(template) if is_sample and name in columns.targets]
    if unknown:
        fix = "Set data.test_image to where the images of the rows to predict are."
        problems.append(Problem(str(path), "the image's path holds the target, which is to be predicted", fix))
    if table is None or unknown:
        return None
    notes: list[str] = []
    source = FileSource(columns.follow_links)
    paths = source.references(table, template, root, problems, notes)
    features = None
    if schema is not None and schema.num_features:
        features = encode_features(table, schema, problems, columns.rules, columns.filling, True, notes)
    if schema is not None and not is_sample and schema.kind == "classification":
        notes += _check_answers(table, schema, columns, [] if is_rerun else problems)
    return Rows(replace(table, notes=(*table.notes, *notes)), paths, features=features, source=source)


def _check_answers(table: Table, schema: Schema, columns: Columns, problems: list[Problem]) -> list[str]:
    """Appends classes of a labelled test table that training rows do not have; they are noted as well."""
    column = columns.targets[0]
    if column not in table.columns:
        return []
    known = Spellings(schema.outputs)
    cells = Counter(table.names(column))
    unknown = Counter(
        {cell: n for cell, n in cells.items() if not columns.rules.is_missing(cell) and known.find(cell) is None}
    )
    for row, cell in enumerate(table.names(column) if unknown else []):
        if cell in unknown:
            fix = f"Write one of the training table's, or leave the column out.{suggest(cell, schema.outputs)}"
            problems.append(table.problem(row, "the training table has no such class", fix, column))
    if not unknown:
        return []
    return [f"{table.path}: column '{column}' is not used; the training table lacks some classes: {counted(unknown)}."]


def read_sample(path: Path, columns: Columns, problems: list[Problem]) -> Table | None:
    """Reads a sample submission as any other table: None where it is not there or has no id column."""
    id, setting = columns.id_of(is_sample=True)
    return read_table(path, id, {}, problems, columns.encoding, setting)


def check_sample(sample: Table | None, test: Rows | None, problems: list[Problem]) -> None:
    """Appends every id that only one of test table and sample submission has: submissions need the sample's."""
    if sample is None or test is None:
        return
    for one, other in ((sample, test.table), (test.table, sample)):
        known = Spellings(other.ids)
        for row, id in enumerate(one.ids):
            if id not in known.names:
                near = known.find(id)
                fix = f"Give both files the same ids.{f' It has {near!r}.' if near else ''}"
                problems.append(one.problem(row, f"{other.path} has no such id", fix))


def _with_gaps(values: NDArray[Any], skipped: Mapping[int, str]) -> NDArray[Any]:
    """The same with a −1 or NaN at each skipped row: what is used by mistake is seen."""
    num_rows = len(values) + len(skipped)
    filler = -1 if values.dtype.kind == "i" else np.nan
    whole = np.full((num_rows, *values.shape[1:]), filler, dtype=values.dtype)
    whole[[row for row in range(num_rows) if row not in skipped]] = values
    return whole
