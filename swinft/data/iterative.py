"""Iterative stratification of labels (Sechidis, Tsoumakas and Vlahavas, ECML 2011), fast for thousands of labels.

The folds are those of the package iterative-stratification, with its random draws. That one counts all labels of
all rows again for each label: with 20,000 rows of 1,000 labels it takes 4 times as long (benchmarks/README.md).

Shapes: N rows, K labels.
"""

import numpy as np
from numpy.typing import NDArray


def iterative_folds(labels: NDArray[np.bool_], num_folds: int, seed: int) -> NDArray[np.int64]:
    """Folds that have each label about equally often: rare labels are given out first.

    Args:
        labels: Which labels each row has, (N, K).
        num_folds: Number of folds.
        seed: Seed of the shuffling, and of the choice among equally good folds.

    Returns:
        Fold of each row, int64 (N,).
    """
    draws = np.random.RandomState(seed)
    order = np.arange(len(labels))
    draws.shuffle(order)
    labels = labels[order]
    folds = np.zeros(len(labels), dtype=np.int64)
    wanted = np.full(num_folds, 1 / num_folds) * len(labels)  # rows that each fold still lacks
    wanted_of = np.outer(np.full(num_folds, 1 / num_folds), labels.sum(0))  # and of each label, (folds, K)
    is_left, left = np.ones(len(labels), dtype=bool), labels.sum(0)
    while is_left.any():
        if not left.any():
            for row in np.flatnonzero(is_left).tolist():
                folds[row] = _drawn(np.flatnonzero(wanted == wanted.max()), draws)
                wanted[folds[row]] -= 1
            break
        label = _drawn(np.flatnonzero(left == left[left > 0].min()), draws)
        rows = np.flatnonzero(labels[:, label] & is_left)
        for row in rows.tolist():
            best = np.flatnonzero(wanted_of[:, label] == wanted_of[:, label].max())
            if len(best) > 1:
                best = best[wanted[best] == wanted[best].max()]
            fold = folds[row] = _drawn(best, draws)
            wanted_of[fold, labels[row]] -= 1
            wanted[fold] -= 1
        is_left[rows] = False
        left = left - labels[rows].sum(0)
    found = np.empty_like(folds)
    found[order] = folds
    return found


def _drawn(among: NDArray[np.int64], draws: np.random.RandomState) -> int:
    """One of several numbers; of one nothing is drawn."""
    return int(among[draws.choice(len(among))] if len(among) > 1 else among[0])
