"""Adversarial validation: whether a classifier can tell the rows to predict from the training rows.

Shapes: N training rows, M rows to predict, S columns, D dimensions, G networks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

Array = NDArray[np.float64]
FOLDS = 5
MOST_ROWS = 20_000  # of each side, drawn; more make an AUC no more certain than its third digit
MOST_DIMENSIONS = 64  # principal components of embeddings
# Standard errors of a 99 % interval. Without drift 1 of 40 pairs of 398 and 102 rows is said to drift by it, and 3 by
# one of 95 %: the area varies more than its standard error says, as the same rows are fitted on and scored in turn.
LEVEL = 2.576


@dataclass(frozen=True)
class Drift:
    """How well rows to predict are told from training rows.

    Args:
        auc: Cross-validated area under the ROC curve: 0.5 if they cannot be told apart.
        low: Lower end of its 99 % interval.
        high: Upper end.
        train: Probability of being a row to predict, of each training row by a classifier that did not see it, (N,);
            NaN of rows that were not drawn.
        test: The same of each row to predict, (M,).
    """

    auc: float
    low: float
    high: float
    train: Array
    test: Array

    @property
    def is_seen(self) -> bool:
        """Whether the whole interval is above 0.5."""
        return self.low > 0.5


def drift_of_columns(train: pd.DataFrame, test: pd.DataFrame, groups: Sequence[Any] | None, seed: int) -> Drift | None:
    """Drift by statistics of files and by metadata, by boosted trees; None with too few rows, or without columns.

    Args:
        train: Numbers of the training rows, (N, S); NaN where missing.
        test: The same columns of the rows to predict, (M, S).
        groups: The group of each training row: its rows are never in both parts of a split.
        seed: Seed of the splits.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier  # slow to import

    both = pd.concat([train, test])
    columns = [name for name in train.columns if len(both[name].drop_duplicates()) > 1]

    def make() -> Any:
        least = max(2, min(20, (len(train) + len(test)) // 12))  # rows of a leaf
        options = {"max_iter": 60, "max_leaf_nodes": 15, "min_samples_leaf": least, "early_stopping": False}
        return HistGradientBoostingClassifier(**options, random_state=0)  # type: ignore[no-untyped-call]

    if not columns:
        return None
    return _drift(train[columns].to_numpy(np.float64), test[columns].to_numpy(np.float64), groups, seed, make)


def drift_of_embeddings(
    pairs: Sequence[tuple[Array, Array, NDArray[np.int64]]], rows: int, groups: Sequence[Any] | None, seed: int
) -> Drift | None:
    """Drift by embeddings, by logistic regression on their principal components; None with too few rows.

    Embeddings of several networks are of different spaces: each is classified alone, and areas, ends of intervals and
    probabilities are averaged.

    Args:
        pairs: Of each network: embeddings (n, D) of training rows that it was not trained on, those of the rows to
            predict (M, D), and the positions of the former, int64 (n,).
        rows: The number of training rows N.
        groups: The group of each training row.
        seed: Seed of the splits.
    """
    from sklearn.decomposition import PCA
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    found, sums, counts = list[Drift](), np.zeros(rows), np.zeros(rows)
    for train, test, places in pairs:
        own = None if groups is None else [groups[place] for place in places]
        size = min(MOST_DIMENSIONS, train.shape[1], max(1, min(len(train), len(test)) // 4))

        def make(size: int = size) -> Any:
            reduced = PCA(size, svd_solver="randomized", random_state=0)  # type: ignore[no-untyped-call]
            model: Any = LogisticRegression(C=0.1, max_iter=300)  # type: ignore[no-untyped-call]
            return make_pipeline(StandardScaler(), reduced, model)  # type: ignore[no-untyped-call]

        if (each := _drift(train, test, own, seed, make)) is None:
            continue
        found.append(each)
        drawn = np.isfinite(each.train)
        sums[places[drawn]] += each.train[drawn]
        counts[places[drawn]] += 1
    if not found:
        return None
    auc, low, high = (float(np.mean([getattr(each, name) for each in found])) for name in ("auc", "low", "high"))
    with np.errstate(invalid="ignore"):
        return Drift(auc, low, high, sums / np.where(counts > 0, counts, np.nan), np.mean([d.test for d in found], 0))


def column_table(train: pd.DataFrame, test: pd.DataFrame) -> pd.DataFrame:
    """How each column differs: medians of both sides, and the AUC of the column alone, the most different first."""
    lines = []
    for name in train.columns:
        one, other = train[name].dropna().to_numpy(), test[name].dropna().to_numpy()
        if not len(one) or not len(other):
            continue
        auc = _auc(one, other)[0]
        lines.append((name, float(np.median(one)), float(np.median(other)), auc))
    found = pd.DataFrame(lines, columns=["column", "train", "test", "auc"])
    return found.iloc[(-(found["auc"] - 0.5).abs()).argsort(kind="stable")].reset_index(drop=True)


def _drift(train: Array, test: Array, groups: Sequence[Any] | None, seed: int, make: Callable[[], Any]) -> Drift | None:
    """Cross-validates classifiers that `make` returns."""
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    generator = np.random.default_rng(seed)
    drawn = [_drawn(generator, len(side)) for side in (train, test)]
    values = np.concatenate([train[drawn[0]], test[drawn[1]]])
    is_test = np.repeat([0, 1], [len(rows) for rows in drawn])
    names = drawn[0] if groups is None else pd.factorize(np.array([groups[row] for row in drawn[0]], dtype=object))[0]
    units = np.concatenate([names, len(train) + np.arange(len(drawn[1]))])
    if min(len(np.unique(names)), len(drawn[1])) < 2 * FOLDS:
        return None
    found = np.full(len(values), np.nan)
    # Of rows that are no groups, the plain splitter is many times as fast.
    given = () if len(np.unique(units)) == len(units) else (units,)
    kind = StratifiedGroupKFold if given else StratifiedKFold
    splitter = kind(FOLDS, shuffle=True, random_state=seed % 2**32)
    for fitted_on, scored in splitter.split(values, is_test, *given):  # type: ignore[no-untyped-call]
        if len(set(is_test[fitted_on].tolist())) < 2:
            return None
        model = make().fit(values[fitted_on], is_test[fitted_on])
        found[scored] = model.predict_proba(values[scored])[:, 1]
    sides = [np.full(len(side), np.nan) for side in (train, test)]
    sides[0][drawn[0]], sides[1][drawn[1]] = found[is_test == 0], found[is_test == 1]
    auc, error = _auc(found[is_test == 0], found[is_test == 1])
    return Drift(auc, max(0.0, auc - LEVEL * error), min(1.0, auc + LEVEL * error), sides[0], sides[1])


def _drawn(generator: np.random.Generator, count: int) -> NDArray[np.int64]:
    if count <= MOST_ROWS:
        return np.arange(count)
    return np.sort(generator.choice(count, MOST_ROWS, replace=False))


def _auc(low: Array, high: Array) -> tuple[float, float]:
    """The share of pairs in which the second side is larger, ties by half, and its standard error (DeLong 1988)."""
    ranks = rankdata(np.concatenate([low, high]))
    # The share of the other side that each value is above, or below.
    of_high = (ranks[len(low) :] - rankdata(high)) / len(low)
    of_low = 1 - (ranks[: len(low)] - rankdata(low)) / len(high)
    variance = sum(float(part.var(ddof=1)) / len(part) for part in (of_high, of_low) if len(part) > 1)
    return float(of_high.mean()), float(np.sqrt(variance))
