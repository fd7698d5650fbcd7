"""Stratified folds of groups with many classes, for which scikit-learn's table of groups and classes is too large.

The method is that of scikit-learn's StratifiedGroupKFold: groups of the most uneven classes first, each into the fold
with which the classes are most evenly spread over the folds. Only the classes that a group has are computed for it, in
which folds differ; of equally good folds it is the one with the fewest rows.

Shapes: N rows, G groups, K classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

ROUNDING = 1e-12
MOST_CELLS = 2**26  # of scikit-learn's table: 0.5 GB


def is_too_large(classes: NDArray[np.int64], groups: Sequence[str]) -> bool:
    """Whether a table of all groups and classes has more than `MOST_CELLS`."""
    return len(set(groups)) * len(np.unique(classes)) > MOST_CELLS


def grouped_folds(classes: NDArray[np.int64], groups: Sequence[str], num_folds: int, seed: int) -> NDArray[np.int64]:
    """Folds that have each class about equally often, and each group as a whole.

    Args:
        classes: Class of each row, int64 (N,).
        groups: Group of each row.
        num_folds: Number of folds.
        seed: Seed of the order of groups that are equally uneven.

    Returns:
        Fold of each row, int64 (N,).
    """
    _, of_row, sizes = np.unique(classes, return_inverse=True, return_counts=True)
    names, group = np.unique(groups, return_inverse=True)
    table: Any = csr_array((np.ones(len(classes)), (group, of_row)), shape=(len(names), len(sizes)))  # type: ignore[no-untyped-call]
    order = np.arange(len(names))
    np.random.RandomState(seed).shuffle(order)
    squares = np.asarray((table * table).sum(axis=1)) / len(sizes)
    variance = squares - (np.asarray(table.sum(axis=1)) / len(sizes)) ** 2
    order = order[np.argsort(-variance[order], kind="stable")]
    fold_of_group = np.zeros(len(names), dtype=np.int64)
    shares = np.zeros((num_folds, len(sizes)))  # of each class's rows, in each fold
    rows = np.zeros(num_folds)
    for number in order.tolist():
        inside = slice(table.indptr[number], table.indptr[number + 1])
        own, counts = table.indices[inside], table.data[inside]
        tried = shares[:, own] + np.eye(num_folds)[:, :, None] * (counts / sizes[own])  # (fold, folds, classes)
        costs = tried.std(axis=1).sum(axis=1)
        best = np.flatnonzero(costs <= costs.min() + ROUNDING)
        fold = fold_of_group[number] = best[rows[best].argmin()]
        shares[:, own] = tried[fold]
        rows[fold] += counts.sum()
    return fold_of_group[group]
