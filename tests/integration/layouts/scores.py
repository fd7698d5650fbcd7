"""Official metrics, written from their definitions with numpy, scipy and scikit-learn; swinft is not used.

Every function gets the truth and the answers: frames in the sample submission's columns, with the ids as index.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import rel_entr
from scipy.stats import rankdata
from sklearn.metrics import f1_score, r2_score

Frame = pd.DataFrame
Values = NDArray[np.float64]


def aligned(truth: Frame, answers: Frame) -> tuple[Frame, Frame]:
    """Both in the truth's order of rows and columns."""
    assert sorted(truth.index) == sorted(answers.index)
    return truth, answers.loc[truth.index, list(truth.columns)]


def values(truth: Frame, answers: Frame) -> tuple[Values, Values]:
    """Both as numbers (N, K)."""
    truth, answers = aligned(truth, answers)
    return truth.to_numpy(np.float64), answers.astype(np.float64).to_numpy()


def words(truth: Frame, answers: Frame) -> tuple[list[str], list[str]]:
    """The only column of both as text."""
    truth, answers = aligned(truth, answers)
    return truth.iloc[:, 0].astype(str).tolist(), answers.iloc[:, 0].astype(str).tolist()


def accuracy(truth: Frame, answers: Frame) -> float:
    """Share of rows with the right class."""
    return float(np.mean([a == b for a, b in zip(*words(truth, answers), strict=True)]))


def balanced_accuracy(truth: Frame, answers: Frame) -> float:
    """Mean over the classes of the truth of the share that is found."""
    wanted, given = words(truth, answers)
    shares = [np.mean([b == name for a, b in zip(wanted, given, strict=True) if a == name]) for name in {*wanted}]
    return float(np.mean(shares))


def macro_f1(truth: Frame, answers: Frame) -> float:
    """Mean over classes of F1."""
    return float(f1_score(*words(truth, answers), average="macro"))


def rmse(truth: Frame, answers: Frame) -> float:
    """Root of the mean squared error."""
    wanted, given = values(truth, answers)
    return float(np.sqrt(np.mean((wanted - given) ** 2)))


def mean_r2(truth: Frame, answers: Frame) -> float:
    """Mean over columns of the coefficient of determination."""
    wanted, given = values(truth, answers)
    return float(np.mean([r2_score(wanted[:, k], given[:, k]) for k in range(wanted.shape[1])]))


def weighted_r2(weights: Mapping[str, float]) -> Callable[[Frame, Frame], float]:
    """R² of all rows together; a row's weight is that of what its id ends with, after two underscores."""

    def score(truth: Frame, answers: Frame) -> float:
        wanted, given = values(truth, answers)
        of_row = np.array([weights[str(id).rpartition("__")[2]] for id in truth.index])[:, None]
        mean = (of_row * wanted).sum() / of_row.sum()
        return float(1 - (of_row * (wanted - given) ** 2).sum() / (of_row * (wanted - mean) ** 2).sum())

    return score


def kappa(truth: Frame, answers: Frame) -> float:
    """Quadratically weighted kappa, by variances and without a matrix."""
    wanted, given = values(truth, answers)
    spread = wanted.var() + given.var() + (wanted.mean() - given.mean()) ** 2
    return float(1 - np.mean((wanted - given) ** 2) / spread)


def auc_of(wanted: Values, given: Values) -> float:
    """Area under the ROC curve by ranks; NaN for one class."""
    ones = wanted > 0.5
    if ones.all() or not ones.any():
        return float("nan")
    above = rankdata(given)[ones].sum() - ones.sum() * (ones.sum() + 1) / 2
    return float(above / ones.sum() / (~ones).sum())


def mean_auc(truth: Frame, answers: Frame) -> float:
    """Mean over columns of the area under the ROC curve."""
    wanted, given = values(truth, answers)
    return float(np.nanmean([auc_of(wanted[:, k], given[:, k]) for k in range(wanted.shape[1])]))


def weighted_auc(column: str) -> Callable[[Frame, Frame], float]:
    """Half the area of one column, and half the mean of the others."""

    def score(truth: Frame, answers: Frame) -> float:
        wanted, given = values(truth, answers)
        areas = {name: auc_of(wanted[:, k], given[:, k]) for k, name in enumerate(truth.columns)}
        return float((areas.pop(column) + np.mean(list(areas.values()))) / 2)

    return score


def partial_auc(truth: Frame, answers: Frame) -> float:
    """Area between the ROC curve and a true-positive rate of 0.8, point by point."""
    wanted, given = (each[:, 0] for each in values(truth, answers))
    points = [(0.0, 0.0)]
    for level in sorted({*given}, reverse=True):
        taken = given >= level
        points.append((np.mean(taken[wanted < 0.5]), np.mean(taken[wanted > 0.5])))
    area = 0.0
    for (left, low), (right, high) in pairwise(points):
        grid = np.linspace(0, 1, 2)
        if low < 0.8 < high:
            grid = np.array([0, (0.8 - low) / (high - low), 1])
        above = np.maximum(low + grid * (high - low) - 0.8, 0)
        area += (right - left) * float(np.sum((above[1:] + above[:-1]) / 2 * np.diff(grid)))
    return area


def log_loss(truth: Frame, answers: Frame) -> float:
    """Of one column with the probability of 1, or of a column per class."""
    wanted, given = values(truth, answers)
    if wanted.shape[1] == 1:
        wanted, given = np.hstack([1 - wanted, wanted]), np.hstack([1 - given, given])
    given = (given / given.sum(axis=1, keepdims=True)).clip(1e-15, 1 - 1e-15)
    return float(-np.mean((wanted * np.log(given)).sum(axis=1)))


def kl(truth: Frame, answers: Frame) -> float:
    """Kullback-Leibler divergence of the answers from the shares of the truth."""
    wanted, given = values(truth, answers)
    assert np.allclose(given.sum(axis=1), 1, atol=1e-5)
    return float(rel_entr(wanted, given.clip(1e-15, 1 - 1e-15)).sum(axis=1).mean())


def samples_f1(truth: Frame, answers: Frame) -> float:
    """Mean over rows of F1 of two sets of words."""
    pairs = [({*a.split()}, {*b.split()}) for a, b in zip(*words(truth, answers), strict=True)]
    return float(np.mean([2 * len(a & b) / (len(a) + len(b)) for a, b in pairs]))


def map_at(k: int) -> Callable[[Frame, Frame], float]:
    """Mean over rows of one over the place of the right word among the first k."""

    def score(truth: Frame, answers: Frame) -> float:
        found = []
        for wanted, given in zip(*words(truth, answers), strict=True):
            ranked = given.split()
            assert len(ranked) <= k
            found.append(1 / (ranked.index(wanted) + 1) if wanted in ranked else 0.0)
        return float(np.mean(found))

    return score


def severity_loss(truth: Frame, answers: Frame) -> float:
    """RSNA 2024: weighted log losses of three groups of conditions, and of any severe stenosis of the canal."""
    wanted, given = values(truth, answers)
    weights, ids = wanted @ [1.0, 2.0, 4.0], [str(id) for id in truth.index]
    is_graded = wanted.sum(axis=1) > 0
    found = []
    for group in ("spinal", "foraminal", "subarticular"):
        rows = np.array([group in id for id in ids]) & is_graded
        losses = -np.log((given[rows] * wanted[rows]).sum(axis=1))
        found.append(np.average(losses, weights=weights[rows]))
    studies: dict[str, list[int]] = {}
    for row, id in enumerate(ids):
        if "spinal" in id and is_graded[row]:
            studies.setdefault(id.partition("_")[0], []).append(row)
    losses, of_study = [], []
    for rows_ in studies.values():
        is_severe, severe = wanted[rows_, 2].max(), given[rows_, 2].max()
        losses.append(-np.log(severe if is_severe else 1 - severe))
        of_study.append(weights[rows_].max())
    found.append(np.average(losses, weights=of_study))
    return float(np.mean(found))


def tree_distance(paths: Mapping[str, Sequence[str]]) -> Callable[[Frame, Frame], float]:
    """Mean number of steps between two names in a tree of taxa."""

    def distance(a: str, b: str) -> int:
        one, other = paths[a], paths[b]
        common = 0
        while common < min(len(one), len(other)) and one[common] == other[common]:
            common += 1
        return len(one) + len(other) - 2 * common

    def score(truth: Frame, answers: Frame) -> float:
        return float(np.mean([distance(b, a) for a, b in zip(*words(truth, answers), strict=True)]))

    return score


def mask_of(cell: str, height: int, width: int) -> NDArray[np.bool_]:
    """The mask of a run-length code: starts from 1, down the columns first."""
    flat, runs = np.zeros(height * width, bool), [int(word) for word in cell.split()]
    for start, length in zip(runs[::2], runs[1::2], strict=True):
        flat[start - 1 : start - 1 + length] = True
    return flat.reshape(width, height).T


def mean_precision_of_masks(height: int, width: int) -> Callable[[Frame, Frame], float]:
    """TGS: mean over rows and over thresholds from 0.5 to 0.95 of whether the masks' IoU is above it."""

    def score(truth: Frame, answers: Frame) -> float:
        found = []
        for a, b in zip(*words(truth, answers), strict=True):
            one, other = mask_of(a, height, width), mask_of(b, height, width)
            union = (one | other).sum()
            overlap = (one & other).sum() / union if union else 1.0
            found.append(np.mean([overlap > threshold for threshold in np.linspace(0.5, 0.95, 10)]))
        return float(np.mean(found))

    return score
