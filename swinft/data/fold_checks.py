"""Checks that every fold can be trained and scored, and that no group is on two sides.

Shapes: N rows, K outputs.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.fold_settings import FoldConfig
from swinft.data.folds import NO_FOLD, Folds
from swinft.data.samples import Rows
from swinft.data.strata import is_binary
from swinft.errors import InputError, listed

SHOWN = 10  # groups in a message
SPLIT = "is in more than one fold, or in one and among the rows that every fold trains on"


def check_rows(rows: Rows, folds: Folds, outputs: Sequence[str], config: FoldConfig, is_started: bool) -> list[str]:
    """Checks the folds of the training rows; as `check_folds`.

    Args:
        rows: Those of the training table, then those of extra tables.
        folds: Fold of each, int64 (N,).
        outputs: Names of the K classes, numbers or labels.
        config: How the folds are made.
        is_started: They are of a run that was started: its groups were checked then.
    """
    answered = rows.is_used & rows.has_target
    # Rows that only have an auxiliary target are trained on, too.
    split = [] if is_started else split_groups(folds, rows.groups, rows.is_used & ~rows.is_extra)
    assert rows.targets is not None
    weights = None if rows.weights is None else rows.weights[answered]
    return check_folds(folds[answered], rows.targets[answered], outputs, split, config.source, config.spreads, weights)


def check_folds(
    folds: Folds,
    targets: NDArray[Any],
    names: Sequence[str],
    split: Sequence[str] = (),
    source: tuple[str, str] | None = None,
    may_lack: bool = False,
    weights: NDArray[np.float32] | None = None,
) -> list[str]:
    """Checks that every fold can be trained and scored.

    Args:
        folds: Fold of each row, int64 (N,).
        targets: int64 (N,) classes, or float (N, K).
        names: Names of the K classes, numbers or labels.
        split: What `split_groups` says.
        source: The file or column of the folds, and the key that names it; None if they were made.
        may_lack: A fold may train on no row of a class that it scores.
        weights: Weight of each row in the training loss, (N,); None where all count the same.

    Returns:
        Notes, one line each.

    Raises:
        InputError: A fold is empty, a group is in two folds, or a class is missing from the rows a fold trains on.
    """
    sizes = np.bincount(folds[folds != NO_FOLD])
    problems = [f"fold {fold} has no row." for fold in np.flatnonzero(sizes == 0)]
    if not len(sizes):
        problems.append("every row is in none: nothing is held out.")
    if len(sizes) == 1 and (folds != NO_FOLD).all():
        problems.append("there is only one fold: nothing is left to train on.")
    problems += split
    notes = []
    counts = count_per_fold(folds, targets, len(names))
    learnt = np.ones(len(folds), dtype=bool) if weights is None else weights > 0  # others add nothing to the loss
    with_weight = "" if learnt.all() else " with a weight above 0"
    everywhere = count_per_fold(np.zeros_like(folds), targets, len(names))[0]
    for fold, held_out in enumerate(counts):
        others = np.where(learnt & (folds != fold), 0, NO_FOLD)
        # A fold without any such row is refused by `Splits.loss_weights`.
        seen = count_per_fold(others, targets, len(names))[0] if (others != NO_FOLD).any() else everywhere
        unseen = [names[int(k)] for k in np.flatnonzero((everywhere > 0) & (seen == 0))]
        if unseen and targets.ndim == 1 and not may_lack:
            problems.append(f"fold {fold} trains on no row of {listed(unseen)}{with_weight}.")
        elif unseen:
            what = "row" if targets.ndim == 1 else "positive row"
            notes.append(f"fold {fold} trains on no {what} of {listed(unseen)}{with_weight}.")
        unscored = [names[int(k)] for k in np.flatnonzero((counts.sum(0) > 0) & (held_out == 0))]
        if unscored:
            notes.append(f"fold {fold} holds out no row of {listed(unscored)}.")
    if problems:
        fix = (
            "Lower data.folds.num, choose another data.folds.kind or seed, or set data.folds.rare_classes to train or "
            "spread."
        )
        fix += "" if learnt.all() else " Or give rows of every class a weight above 0 in data.columns.weight."
        fix = f"Correct {source[0]}, which {source[1]} names, or remove {source[1]}." if source else fix
        raise InputError("\n  ".join(["the folds cannot be used:", *problems, fix]))
    return notes


def split_groups(folds: Folds, groups: Sequence[str] | None, chosen: NDArray[np.bool_]) -> list[str]:
    """A sentence for each group whose rows are not in one fold.

    Args:
        folds: Fold of each row, int64 (N,).
        groups: Group of each row; None without groups.
        chosen: Which rows count, bool (N,): those that are scored, and those that are only trained on.
    """
    first: dict[str, int] = {}
    # Every fold trains on rows without a fold, so no fold may score their groups.
    known = [(groups[row], int(folds[row])) for row in np.flatnonzero(chosen).tolist()] if groups else []
    found = {group for group, fold in known if first.setdefault(group, fold) != fold}
    more = [f"and {len(found) - SHOWN:,} more groups."] if len(found) > SHOWN else []
    return [*(f"group '{group}' {SPLIT}." for group in sorted(found)[:SHOWN]), *more]


def count_per_fold(folds: Folds, targets: NDArray[Any], num_outputs: int) -> NDArray[np.int64]:
    """Rows of each class, or positive rows of each label, in each fold: int64 (folds, K); (folds, 0) for numbers."""
    num_folds = int(folds.max()) + 1
    if targets.ndim == 1:
        scored = folds != NO_FOLD
        cells = folds[scored] * num_outputs + targets[scored]
        return np.bincount(cells, minlength=num_folds * num_outputs).reshape(num_folds, num_outputs)
    if is_binary(targets):
        return np.stack([np.nansum(targets[folds == fold], 0) for fold in range(num_folds)]).astype(np.int64)
    return np.zeros((num_folds, 0), dtype=np.int64)
