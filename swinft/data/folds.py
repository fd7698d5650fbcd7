"""Assigns rows to folds from targets and groups, as pure functions, and checks the result.

Shapes: N rows, K outputs, G groups.
"""

import csv
import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold

from swinft.data.grouped import grouped_folds, is_too_large
from swinft.data.iterative import iterative_folds
from swinft.data.strata import classes_of, labels_of
from swinft.data.tables.table import DataError, Problem, Table, read_table
from swinft.data.tables.text import Spellings
from swinft.errors import InputError, number_of

ALL_ROWS = -2  # in the place of a fold that is held out: none is, and every row is trained on
NO_FOLD = -1  # for a row that no fold scores: it is skipped, or every fold trains on it
FoldKind = Literal[
    "auto", "kfold", "stratified", "group", "stratified_group", "multilabel", "multilabel_group", "holdout"
]
Folds = NDArray[np.int64]
SPLITTERS: dict[str, Any] = {
    "kfold": KFold,
    "stratified": StratifiedKFold,
    "group": GroupKFold,
    "stratified_group": StratifiedGroupKFold,
}


def make_folds(
    kind: FoldKind,
    num_folds: int,
    seed: int,
    targets: NDArray[Any],
    groups: Sequence[str] | None = None,
    grouped_by: str = "data.folds.group",
) -> Folds:
    """Splits rows into folds.

    `auto` stratifies: by class, by bins of a single number, or iteratively for several numbers or labels. With groups,
    each group stays in one fold.

    Args:
        kind: How to split.
        num_folds: Number of folds, at least 2.
        seed: Seed of the shuffling.
        targets: int64 (N,) classes, or float (N, K) numbers or 0/1 labels; −1 or NaN if missing.
        groups: N group names, for the group kinds.
        grouped_by: The config key that the groups come from.

    Returns:
        Fold of each row, int64 (N,) in 0 to `num_folds` − 1.

    Raises:
        InputError: There are too few rows or groups, or the kind does not fit.
    """
    _check_counts(kind, num_folds, len(targets), groups, grouped_by)
    classes = classes_of(targets, num_folds)
    if kind == "auto":
        kind = "stratified" if classes is not None else "multilabel"
        kind = f"{kind}_group" if groups is not None else kind  # type: ignore[assignment]
    if kind in ("stratified", "stratified_group") and classes is None:
        raise InputError(f"data.folds.kind '{kind}' needs one target; for several use 'multilabel' or 'auto'.")
    if "stratified" in kind and classes is not None and np.bincount(classes).max() < num_folds:
        if groups is None:  # scikit-learn refuses such classes
            return _dealt_folds(classes, num_folds, seed)
        kind = "multilabel_group"
    if kind == "multilabel_group":
        return _multilabel_group_folds(labels_of(targets, num_folds), np.asarray(groups), num_folds, seed)
    if kind == "multilabel":
        return iterative_folds(labels_of(targets, num_folds).astype(bool), num_folds, seed)
    if kind == "stratified_group" and groups is not None and classes is not None and is_too_large(classes, groups):
        return grouped_folds(classes, groups, num_folds, seed)
    labels = classes if "stratified" in kind else None
    splitter = SPLITTERS[kind](n_splits=num_folds, shuffle=True, random_state=seed)
    folds = np.full(len(targets), -1, dtype=np.int64)
    by_group = groups if "group" in kind else None
    with warnings.catch_warnings():  # rows without a target, or soft targets of a rare class, may be fewer than folds
        warnings.filterwarnings("ignore", "The least populated class")
        for fold, (_, held_out) in enumerate(splitter.split(np.zeros((len(targets), 1)), labels, by_group)):
            folds[held_out] = fold
    return folds


def scored_folds(
    kind: FoldKind,
    num_folds: int,
    seed: int,
    classes: NDArray[np.int64],
    groups: Sequence[str] | None = None,
    grouped_by: str = "data.folds.group",
) -> Folds:
    """Splits so that every fold trains on every class; rows of classes too rare for that get no fold.

    Args:
        kind: How to split.
        num_folds: Number of folds.
        seed: Seed of the shuffling.
        classes: Class of each row, int64 (N,).
        groups: N group names. A group with a row of such a class gets no fold for any of its rows: every fold trains on
            them, so none may score them.
        grouped_by: The config key that the groups come from.

    Returns:
        Fold of each row, int64 (N,); `NO_FOLD` for rows that every fold trains on.

    Raises:
        InputError: No row is left, or as for `make_folds`.
    """
    names, group = np.unique(groups, return_inverse=True) if groups is not None else (classes, np.arange(len(classes)))
    unscored = np.zeros(len(classes), dtype=bool)
    folds = np.full(len(classes), NO_FOLD, dtype=np.int64)
    while True:
        left = np.flatnonzero(~unscored)
        counts = np.bincount(classes[left], minlength=classes.max() + 1)
        spread = _number_of_groups(classes[left], group[left], len(names))
        rare = (counts > 0) & (counts < num_folds)
        rare[np.flatnonzero(spread == 1)] = True
        if not rare[classes[left]].any():
            folds[:] = NO_FOLD
            of_row = None if groups is None else [groups[int(row)] for row in left]
            folds[left] = make_folds(kind, num_folds, seed, classes[left], of_row, grouped_by)
            spread = _number_of_groups(classes[left], folds[left], num_folds)
            rare[np.flatnonzero(spread == 1)] = True  # groups that share a fold
        found = unscored | rare[classes]
        found = np.isin(group, group[found])
        if (found == unscored).all():
            return folds
        if found.all():
            raise InputError(
                f"data.folds.rare_classes is train, and no row is left to score: every class is in one {grouped_by}."
            )
        unscored = found


def with_rare_joined(classes: NDArray[np.int64], num_folds: int) -> NDArray[np.int64]:
    """Classes to stratify by, int64 (N,): those with fewer rows than folds are one class."""
    counts = np.bincount(classes, minlength=1)
    found: NDArray[np.int64] = np.where(counts[classes] < num_folds, len(counts), classes)
    return found


def _number_of_groups(classes: NDArray[np.int64], groups: NDArray[np.int64], num_groups: int) -> NDArray[np.int64]:
    """Number of groups that contain each class, int64 (largest class + 1,)."""
    return np.bincount(np.unique(classes * num_groups + groups) // num_groups)


def folds_csv(ids: Sequence[str], folds: Folds) -> str:
    """The text of a `folds.csv`: `id,fold`."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("id", "fold"), *zip(ids, folds.tolist(), strict=True)])
    return text.getvalue()


def read_folds(path: Path, table: Table) -> Folds:
    """Reads a `folds.csv`.

    Args:
        path: The file, with columns `id` and `fold`.
        table: Its ids must be in the file, each once.

    Returns:
        Fold of each row of the table, int64 (N,).

    Raises:
        DataError: The file is wrong, or its ids are not the table's.
    """
    problems: list[Problem] = []
    read = read_table(path, "id", {"fold": "the file: it needs the columns id and fold"}, problems)
    if read is None or problems:
        raise DataError(problems)
    numbers = fold_numbers(read, "fold", problems)
    fold_of, known = dict(zip(read.ids, numbers.tolist(), strict=True)), Spellings(table.ids)
    for row, id in enumerate(read.ids):
        if id not in known.names:
            near = known.find(id)
            fix = f"It has {near!r}." if near else "These folds are of another table."
            problems.append(read.problem(row, f"{table.path} has no such id", fix))
    for row, id in enumerate(table.ids):
        if id not in fold_of:
            problems.append(table.problem(row, f"{path} has no fold for the id", "These folds are of another table."))
    if problems:
        raise DataError(problems)
    return np.array([fold_of[id] for id in table.ids], dtype=np.int64)


def fold_numbers(table: Table, column: str, problems: list[Problem]) -> Folds:
    """The fold of each row in a column of a table, int64 (N,); what is none is appended."""
    found = np.full(len(table), NO_FOLD, dtype=np.int64)
    for row, cell in enumerate(table.column(column)):
        if cell.isascii() and cell.isdigit() and len(cell) < 10:
            found[row] = int(cell)
        elif cell != str(NO_FOLD):
            fix = f"Write 0, 1, 2, …, or {NO_FOLD} for a row that no fold scores."
            problems.append(table.problem(row, "the fold is no whole number", fix, column))
    return found


def _check_counts(kind: str, num_folds: int, num_rows: int, groups: Sequence[str] | None, grouped_by: str) -> None:
    if num_folds < 2:
        raise InputError(f"data.folds.num is {num_folds}; it must be at least 2.")
    if num_rows < num_folds:
        raise InputError(f"data.folds.num is {num_folds}, but there {number_of(num_rows, 'row', verb='is')} only.")
    if "group" in kind and groups is None:
        raise InputError(f"data.folds.kind '{kind}' needs data.folds.group, the column that names the groups.")
    if kind not in ("auto", "group", "stratified_group", "multilabel_group") and groups is not None:
        raise InputError(f"data.folds.kind '{kind}' would split the groups of {grouped_by}; use 'auto', or remove it.")
    if groups is not None and len(set(groups)) < num_folds:
        raise InputError(
            f"data.folds.num is {num_folds}, but {grouped_by} has only {number_of(len(set(groups)), 'group')}."
        )


def _dealt_folds(classes: NDArray[np.int64], num_folds: int, seed: int) -> Folds:
    """Deals the rows to the folds in turn, class after class: as equal as can be, however few rows a class has."""
    shuffled = np.random.default_rng(seed).permutation(len(classes))
    folds = np.empty(len(classes), dtype=np.int64)
    folds[np.lexsort((shuffled, classes))] = np.arange(len(classes)) % num_folds
    return folds


def _multilabel_group_folds(labels: NDArray[np.int8], groups: NDArray[Any], num_folds: int, seed: int) -> Folds:
    """Assigns whole groups, largest first, to the folds that keep label counts and sizes most equal.

    scikit-learn and iterative-stratification support labels or groups, not both.
    """
    columns = np.column_stack([np.ones(len(labels), dtype=np.int8), labels])  # the first counts the rows
    names, index = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), columns.shape[1]))  # (G, 1 + labels)
    np.add.at(counts, index, columns)
    shares = counts / np.maximum(columns.sum(0), 1)
    shuffled = np.random.default_rng(seed).permutation(len(names))
    order = shuffled[np.argsort(-counts[shuffled, 0], kind="stable")]
    filled = np.zeros((num_folds, columns.shape[1]))
    fold_of_group = np.zeros(len(names), dtype=np.int64)
    for group in order:
        # Change of the squared distance from equal shares.
        cost = ((filled + shares[group] - 1 / num_folds) ** 2 - (filled - 1 / num_folds) ** 2).sum(1)
        fold_of_group[group] = cost.argmin()
        filled[fold_of_group[group]] += shares[group]
    return fold_of_group[index]


def unseen_rows(
    targets: NDArray[Any], folds: Folds, trained_on: Callable[[int], NDArray[np.int64]]
) -> NDArray[np.bool_] | None:
    """Rows whose class no training row of their fold has, bool (N,); None for targets other than class indices.

    Args:
        targets: int64 (N,) classes, −1 where missing, or float (N, K).
        folds: Fold of each row, int64 (N,).
        trained_on: The rows that are trained on if a fold is held out.
    """
    if targets.ndim != 1:
        return None
    unseen = np.zeros(len(targets), dtype=bool)
    for fold in np.unique(folds[folds != NO_FOLD]).tolist():
        held_out = folds == fold
        unseen[held_out] = ~np.isin(targets[held_out], targets[trained_on(fold)])
    return unseen
