"""The fold of every row of the training table: made by a kind of split, or read from a file or a column of the table.

Shapes: N rows.
"""

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swinft.data.fold_settings import FoldConfig
from swinft.data.folds import NO_FOLD, Folds, fold_numbers, make_folds, read_folds, scored_folds, with_rare_joined
from swinft.data.inspection.duplicates import cluster_groups
from swinft.data.inspection.image_files import ImageFiles
from swinft.data.samples import Rows
from swinft.data.tables.table import DataError, Problem, Table
from swinft.errors import InputError, number_of

TOLERANCE = 0.02  # by how much of it the share of a hold-out may differ from `fraction`, so that its parts stay few
MOST_PARTS = 1000


def assign_folds(config: FoldConfig, rows: Rows, image_files: ImageFiles) -> Folds:
    """The fold of each row of the training table, int64 (N,); `NO_FOLD` for rows that no fold scores.

    Args:
        config: How.
        rows: Of the training table, and of extra ones, which have none.
        image_files: The images behind the rows.

    Raises:
        InputError: There are too few rows or groups, or the kind does not fit.
        DataError: A file or a column does not give each row its fold.
    """
    num_main = int((~rows.is_extra).sum())
    folds = np.full(len(rows.table), NO_FOLD, dtype=np.int64)
    if config.file or config.column:
        table = rows.table.take(np.arange(num_main)) if rows.is_extra.any() else rows.table
        folds[:num_main] = _given(config, table)
    else:
        used = rows.is_used & ~rows.is_extra
        folds[used] = _made(config, rows, used, image_files)
    return folds


def _given(config: FoldConfig, table: Table) -> Folds:
    """Folds of a file or of a column."""
    if config.file:
        folds, source = read_folds(Path(config.file), table), config.file
    else:
        problems: list[Problem] = []
        folds, source = fold_numbers(table, str(config.column), problems), f"column '{config.column}'"
        if problems:
            raise DataError(problems)
    found = int(folds.max()) + 1
    if config.num not in (None, found):
        raise InputError(f"data.folds.num is {config.num}, and {source} has {number_of(found, 'fold')}: remove one.")
    return folds


def _made(config: FoldConfig, rows: Rows, used: NDArray[np.bool_], image_files: ImageFiles) -> Folds:
    """Folds of the rows that are used; of rare classes only where they are an error."""
    assert rows.targets is not None
    groups, grouped_by = rows.groups, "data.folds.group"
    if config.duplicates == "group":
        grouped_by = f"{grouped_by} and data.folds.duplicates" if groups else "data.folds.duplicates: group"
        groups = cluster_groups(image_files.clusters(rows), groups)
    make = scored_folds if config.rare_classes == "train" else make_folds
    names = [groups[row] for row in np.flatnonzero(used)] if groups else None
    targets = rows.targets[used]
    if config.spreads:
        targets = with_rare_joined(targets, config.planned)
    if config.kind != "holdout":
        return make(config.kind, config.planned, config.seed, targets, names, grouped_by)
    parts, of = parts_of(config.share)
    size = int(used.sum()) if names is None else len({*names})
    if size < of:
        what = number_of(size, "row") if names is None else f"{number_of(size, 'group')} ({grouped_by})"
        raise InputError(
            f"data.folds.fraction is {config.share:g}, {number_of(parts, 'part')} of {of}, and there are only {what}. "
            f"Set it to a share of fewer parts, such as 0.2, 0.25 or 0.5."
        )
    with warnings.catch_warnings():  # scikit-learn's on classes with fewer rows than parts: one is held out, not all
        warnings.filterwarnings("ignore", "The least populated class")
        found = make("auto", of, config.seed, targets, names, grouped_by)
    # Evenly spaced ones: rows of a class that has fewer than parts are in parts that follow one another.
    return np.where((found >= 0) & (found * parts % of < parts), 0, NO_FOLD)


def parts_of(share: float) -> tuple[int, int]:
    """A share as so many of so many equal parts, of the fewest that are near enough: 0.2 as 1 of 5, 0.15 as 3 of 20.

    Raises:
        InputError: The share is not from 0.001 to 0.999.
    """
    for of in range(2, MOST_PARTS):
        parts = round(share * of)
        if 0 < parts < of and abs(parts / of - share) <= TOLERANCE * min(share, 1 - share):
            return parts, of
    raise InputError(f"data.folds.fraction is {share:g}; give a share from 0.001 to 0.999.")
