"""Tables with targets: which rows have one, and which are skipped for want of it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from swinft.data.tables.steps.sequence import StepList
from swinft.data.tables.table import Problem, Table
from swinft.data.target.base import TargetCells, missing_notes, missing_targets

if TYPE_CHECKING:
    from swinft.data.data_settings import DataSettings


def read_labelled(
    settings: "DataSettings",
    given: str | StepList,
    required: Mapping[str, str],
    problems: list[Problem],
    notes: list[str],
) -> tuple[Table, dict[int, str], TargetCells] | None:
    """Reads a table with targets.

    Args:
        settings: Settings of the datamodule.
        given: Its path, relative to `data.root`, or the steps that make it.
        required: Its columns, each with the config key that names it.
        problems: Errors are appended.
        notes: Notes are appended.

    Returns:
        As `labelled`; None also if the table or a column is missing.
    """
    return labelled(settings, settings.read(given, settings.id, required, problems), problems, notes)


def labelled(
    settings: "DataSettings", table: Table | None, problems: list[Problem], notes: list[str]
) -> tuple[Table, dict[int, str], TargetCells] | None:
    """The rows of a table, those that are skipped for want of a target, and the cells of the others' targets.

    Args:
        settings: Settings of the datamodule.
        table: A table with the columns of the targets.
        problems: Errors are appended.
        notes: Notes are appended.

    Returns:
        None if there is no table, or if all rows are missing.
    """
    if table is None or not len(table):
        return None
    skipped = without_target(settings, table, problems, notes)
    if skipped is None:
        return None
    answered = table.take(np.array([row for row in range(len(table)) if row not in skipped], dtype=np.int64))
    columns = settings.columns
    return table, skipped, TargetCells(answered, settings.targets, columns.label_delimiter, columns.rules)


def read_unlabelled(
    settings: "DataSettings",
    given: str | StepList,
    required: Mapping[str, str],
    problems: list[Problem],
    notes: list[str],
) -> tuple[Table, dict[int, str], TargetCells] | None:
    """Reads a table whose rows get their targets later; as `read_labelled`, with no row skipped."""
    table, columns = settings.read(given, settings.id, required, problems), settings.columns
    if table is None or not len(table):
        return None
    return table, {}, TargetCells(table, settings.targets, columns.label_delimiter, columns.rules)


def without_target(
    settings: "DataSettings", table: Table, problems: list[Problem], notes: list[str]
) -> dict[int, str] | None:
    """Rows that are skipped for want of a target; None if all rows are."""
    columns = settings.columns
    if columns.on_missing_target == "error":
        return {}
    notes += missing_notes(table, settings.targets, columns.rules)
    if columns.on_missing_target == "skip" or settings.kind.are_classes:
        missing = missing_targets(table, settings.targets, columns.rules)
    else:  # a row with one of several numbers or labels has a target
        each = [missing_targets(table, [name], columns.rules) for name in settings.targets]
        missing = np.logical_and.reduce(each)
    if missing.all():
        fix = "Name the column of the target, or correct data.columns.missing_words."
        message = "no row has a target"
        problems.append(Problem(str(table.path), message, fix, column=", ".join(settings.targets)))
        return None
    if columns.on_missing_target == "mask" and columns.auxiliary:
        given = [name for name in columns.auxiliary_columns if name in table.columns]  # an extra table may lack them
        for name in given:  # a row with an auxiliary target is trained on
            missing &= missing_targets(table, [name], columns.rules)
    return {int(row): "no target" for row in np.flatnonzero(missing)}
