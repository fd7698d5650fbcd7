"""Reads the rows of a competition's tables: images, targets, metadata and groups.

Shapes: N rows, K outputs, F metadata features.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.column_patterns import exact, matched
from swinft.data.columns import Columns
from swinft.data.features import encode_features
from swinft.data.given_rows import GivenRows
from swinft.data.labelled import labelled
from swinft.data.row_images import Shown
from swinft.data.schema import Schema, make_schema
from swinft.data.sources.files import FILES
from swinft.data.sources.source import Source, is_absent
from swinft.data.tables.numbers import precision_problems, weights
from swinft.data.tables.steps.make import table_name
from swinft.data.tables.table import DataError, Problem, Table
from swinft.data.tables.text import TextRules
from swinft.data.target.auxiliary import read_auxiliary
from swinft.data.target.base import TargetCells, twin_problems
from swinft.data.target.custom import try_kind
from swinft.data.target.gaps import encode_known, encode_other, has_target, with_skipped
from swinft.errors import InputError

if TYPE_CHECKING:
    from swinft.data.data_settings import DataSettings
    from swinft.data.masks.masks import Masks


@dataclass(frozen=True, eq=False)
class Rows:
    """A table with the encoded values of its rows.

    Args:
        table: N rows.
        paths: N images; where a row does not show one each, the M distinct ones of all rows.
        targets: int64 (N,) for classification, float32 (N, K) otherwise; None for rows to predict.
        features: float32 (N, F); None without metadata.
        weights: Weight of each row in the training loss, float32 (N,); None for equal weights.
        groups: N group names; None without groups.
        skipped: Why a row is neither trained on nor scored, by its position.
        source: Where the images' bytes come from.
        num_main: Number of the first rows, which are of the training table itself; None for all.
        shown: Which of the distinct images each row shows; None where it shows one each.
        auxiliary: Auxiliary targets: int64 (N,), −1 where missing, or float32 (N, K), NaN where missing.
        soft: Targets of the training loss where some rows have soft labels, float32 (N, K); None for `targets`.
        masks: Masks of the training rows, whose coverage `targets` are; None for other kinds of target.
    """

    table: Table
    paths: list[str]
    targets: NDArray[Any] | None = None
    features: NDArray[np.float32] | None = None
    weights: NDArray[np.float32] | None = None
    groups: list[str] | None = None
    skipped: dict[int, str] = field(default_factory=dict)
    source: Source = FILES
    num_main: int | None = None
    shown: Shown | None = None
    auxiliary: Sequence[NDArray[Any]] = ()
    soft: NDArray[np.float32] | None = None
    masks: "Masks | None" = None

    @property
    def learnt(self) -> NDArray[Any]:
        """The targets of the training loss."""
        found = self.targets if self.soft is None else self.soft
        assert found is not None
        return found

    @property
    def has_target(self) -> NDArray[np.bool_]:
        """Which rows have a target, bool (N,); the others are skipped, or trained on for auxiliary targets only."""
        assert self.targets is not None
        return has_target(self.targets)

    @property
    def is_extra(self) -> NDArray[np.bool_]:
        """Which rows are of extra tables, bool (N,): every fold trains on them, and none scores them."""
        return np.arange(len(self.table)) >= (len(self.table) if self.num_main is None else self.num_main)

    @property
    def is_used(self) -> NDArray[np.bool_]:
        """Which rows are trained on or scored, bool (N,): all that are not skipped."""
        used = np.ones(len(self.table), dtype=bool)
        used[list(self.skipped)] = False
        return used

    @cached_property
    def rows_of_images(self) -> list[list[int]]:
        """The rows that show each image."""
        if self.shown is None:
            return [[row] for row in range(len(self.paths))]
        return self.shown.rows(len(self.paths))

    def images_of(self, rows: Sequence[int]) -> list[int]:
        """Positions of the images that some rows show."""
        if self.shown is None:
            return list(rows)
        return [image for row in rows for image in self.shown.files[row].tolist() if image >= 0]

    @property
    def image_names(self) -> list[str]:
        """What names each image in `images.csv`: the row's id, or its path where rows do not show one each."""
        if self.shown is None:
            return self.table.ids
        paths = list(map(os.path.abspath, self.paths))
        inside = os.path.commonpath(list(map(os.path.dirname, paths))) if paths else ""
        return [os.path.relpath(path, inside) for path in paths]

    @property
    def image_ids(self) -> list[str]:
        """The id of the first row that shows each image."""
        return [self.table.ids[rows[0]] for rows in self.rows_of_images]

    def image_problems(self, errors: Mapping[int, str]) -> list[Problem]:
        """What is wrong with images, by their positions, named by the first row of each.

        Parts that a file does not have are nothing wrong, unless a row has no other.
        """
        real = {image: error for image, error in errors.items() if not is_absent(error)}
        what = "the image cannot be used"
        problems = [self.table.problem(self.rows_of_images[image][0], what, error) for image, error in real.items()]
        if self.shown is not None:
            empty = self.shown.bad_rows(set(), set(errors) - set(real))
            cause = "All its parts are empty" if self.shown.images.cuts else "No file of it is there"
            fix = f"{cause}; restore it, or remove the row."
            problems += [self.table.problem(row, "the row has no image", fix) for row in empty]
        return problems

    def without_images(self, bad: set[int], absent: set[int]) -> "Rows":
        """The same without images that cannot be used, and with the rows marked as skipped that need them.

        Args:
            bad: Positions of images that cannot be used.
            absent: Positions of parts that a file does not have.
        """
        if self.shown is None:
            return replace(self, skipped={**self.skipped, **dict.fromkeys(sorted(bad), "bad image")})
        rows = self.shown.bad_rows(bad, absent)
        return replace(
            self,
            skipped={**self.skipped, **dict.fromkeys(rows, "bad image")},
            shown=self.shown.without(bad | absent),
        )


def needed_columns(settings: "DataSettings", of_images: Sequence[str], setting: str) -> dict[str, str]:
    """Columns that training and test rows both need, each with the config key that names it."""
    return {
        **dict.fromkeys(of_images, setting),
        **dict.fromkeys(exact(settings, settings.columns.numbers), "data.columns.numeric_features"),
        **dict.fromkeys(exact(settings, settings.columns.categories), "data.columns.categorical_features"),
    }


def read_train(
    settings: "DataSettings", min_class_rows: int, problems: list[Problem]
) -> tuple[Rows, Schema, "DataSettings"] | None:
    """Reads the training rows, their schema, and the settings with the names of all columns.

    Args:
        settings: Settings of the datamodule.
        min_class_rows: Minimum rows of a class; 0 for no check.
        problems: Errors are appended.

    Returns:
        None if the table, a column or all rows are missing.
    """
    columns, rules = settings.columns, settings.columns.rules
    required = {
        **dict.fromkeys(exact(settings, settings.kind.table_columns(settings.targets)), "data.target"),
        **dict.fromkeys(columns.auxiliary_columns, "data.columns.auxiliary"),
        **({settings.folds.group: "data.folds.group"} if settings.folds.group else {}),
        **({columns.weight_column: "data.columns.weight"} if columns.weight_column else {}),
        **({settings.folds.column: "data.folds.column"} if settings.folds.column else {}),
        **needed_columns(settings, settings.image.columns, "data.image"),
    }
    notes: list[str] = []
    assert settings.train is not None
    whole = settings.read(settings.train, settings.id, required, problems)
    before = len(problems)
    settings = settings if whole is None else matched(settings, whole, problems)
    read = labelled(settings, whole, problems, notes) if len(problems) == before else None
    if read is None:
        return None
    columns = settings.columns
    table, skipped, cells = read
    answered = cells.table
    target = (settings.target, columns.label_delimiter)
    metadata = (columns.numbers, columns.categories)
    schema = make_schema(answered, settings.target_kind, *target, *metadata, rules, columns.class_order)
    has_gaps = columns.on_missing_target == "mask"
    targets = _encoded(schema, cells, problems, notes, has_gaps)
    given = columns.auxiliary or ()
    others = [read_auxiliary(each, answered, rules, problems, notes) for each in given]
    schema = replace(schema, has_gaps=has_gaps, auxiliary=[kept for kept, _ in others], masks=settings.mask_form)
    features = _train_features(answered, schema, columns, problems, notes) if schema.num_features else None
    weight = weights(answered, columns.weight_column, problems, rules) if columns.weight_column else None
    groups = read_groups(table, settings.folds.group, rules, problems) if settings.folds.group else None
    if min_class_rows:
        of_answered = [name for row, name in enumerate(groups) if row not in skipped] if groups else None
        problems += schema.target.size_problems(cells, targets, schema.outputs, of_answered, min_class_rows)
    finding = settings.finding()
    paths, shown = finding.find(table, problems, notes)
    table = replace(table, notes=(*table.notes, *notes))
    all_features, weight = (None if each is None else with_skipped(each, skipped) for each in (features, weight))
    source, auxiliary = (
        finding.reading(settings.loading.image_rules),
        [with_skipped(each, skipped) for _, each in others],
    )
    values = with_skipped(targets, skipped), all_features, weight, groups, skipped, source
    return Rows(table, paths, *values, shown=shown, auxiliary=auxiliary), schema, settings


def _encoded(
    schema: Schema, cells: TargetCells, problems: list[Problem], notes: list[str], has_gaps: bool
) -> NDArray[Any]:
    """Targets of the training rows; a custom kind is tried where nothing is wrong with them."""
    before = len(problems)
    if has_gaps:
        targets = encode_known(schema.target, cells, schema.outputs, problems, notes)
    else:
        targets = schema.target.encode(cells, schema.outputs, problems, notes)
    problems += schema.target.training_problems(cells, targets, schema.outputs)
    if len(problems) == before:
        try_kind(schema.target, cells, targets, schema.outputs)
    return targets


def read_test(
    settings: "DataSettings",
    schema: Schema | None,
    problems: list[Problem],
    is_rerun: bool = False,
    given: GivenRows | None = None,
) -> Rows | None:
    """Reads the rows to predict.

    Args:
        settings: Settings of the datamodule.
        schema: Schema of the training table; None if that could not be read, and the test table is only checked.
        problems: Errors are appended.
        is_rerun: A trained run predicts the rows: an unknown class is a note, not an error.
        given: Rows in memory, which `data.test` only names.

    Returns:
        None if the table or a column is missing.
    """
    columns, is_sample = settings.columns, settings.predicts_sample
    named = settings.test or settings.sample_submission
    assert named is not None
    id, setting = columns.id_of(settings.id, is_sample)
    finding = settings.finding(is_test=True)
    finding = given.finding(finding) if given else finding
    required = needed_columns(settings, finding.columns, "data.columns.test_image")
    if id in required:
        required[id] = f"{setting} and data.columns.test_image"
    table = settings.read(named, id, required, problems, setting, given.content if given else None)
    unknown = [name for name in finding.columns if is_sample and name in settings.targets]
    if unknown:
        fix = "Set data.columns.test_image to where the images of the rows to predict are."
        message = "the image's path contains the target, which is to be predicted"
        problems.append(Problem(table_name(named, settings.root), message, fix))
    if table is None or unknown:
        return None
    notes: list[str] = []
    paths, shown = finding.find(table, problems, notes)
    features = None
    if schema is not None and schema.num_features:
        features = encode_features(table, schema, problems, columns.rules, columns.fill_rules, True, notes)
    if schema is not None and not is_sample:
        cells = TargetCells(table, settings.targets, columns.label_delimiter, columns.rules)
        notes += schema.target.unknown_answers(cells, schema.outputs, [] if is_rerun else problems)
    source = finding.reading(settings.loading.image_rules)
    return Rows(replace(table, notes=(*table.notes, *notes)), paths, features=features, source=source, shown=shown)


def _train_features(
    table: Table, schema: Schema, columns: Columns, problems: list[Problem], notes: list[str]
) -> NDArray[np.float32]:
    problems += precision_problems(table, columns.numbers)
    for name in columns.categories:
        problems += twin_problems(table, name, Counter(table.names(name)), columns.rules)
    return encode_features(table, schema, problems, columns.rules, columns.fill_rules, notes=notes)


def read_groups(table: Table, column: str, rules: TextRules, problems: list[Problem]) -> list[str]:
    """The group of each row; two spellings of one group would be split over folds."""
    groups = table.names(column)
    for row, cell in enumerate(groups):
        if rules.is_missing(cell):
            what = f"is {cell!r}, a word for a missing value" if cell else "is empty"
            fix = "Give the row a group; a unique one if it belongs to none."
            problems.append(table.problem(row, f"the group {what}", fix, column))
    problems += twin_problems(table, column, Counter(groups), rules)
    return groups


def check_answers(settings: "DataSettings", table: Table) -> None:
    """Checks that a test table is labelled.

    Raises:
        InputError: It has no targets.
    """
    absent = [name for name in settings.kind.table_columns(settings.targets) if name not in table.columns]
    if settings.predicts_sample or absent:
        reason = "is the sample submission" if settings.predicts_sample else f"has no column '{absent[0]}'"
        what = "data.test is not set" if settings.test is None else f"{table.path} {reason}"
        raise InputError(f"there is nothing to test: {what}. Use Trainer.predict for rows without targets.")


def read_test_targets(settings: "DataSettings", table: Table, schema: Schema) -> NDArray[Any]:
    """Targets of a labelled test table: int64 (N,) or float32 (N, K).

    Raises:
        InputError: The table has no targets.
        DataError: Targets are wrong, or unknown to the training table.
    """
    check_answers(settings, table)
    problems: list[Problem] = []
    cells = TargetCells(table, settings.targets, settings.columns.label_delimiter, settings.columns.rules)
    is_masked = schema.has_gaps and not schema.base.are_classes
    targets = encode_other(schema.target, cells, schema.outputs, problems, is_masked)
    if problems:
        raise DataError(problems)
    return targets
