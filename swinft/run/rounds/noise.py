"""Rows whose labels look wrong, by predictions of networks that were not trained on them.

Shapes: n rows, K outputs, F folds.
"""

import csv
import io
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from swinft.data.datamodule import CSVDataModule
from swinft.data.dropped import ALL
from swinft.data.folds import NO_FOLD
from swinft.data.target.base import Target
from swinft.errors import InputError
from swinft.extras import import_extra

WHAT = "cleanlab, which finds labels that look wrong,"
Order = NDArray[np.int64]
Values = NDArray[np.float64]


def check_filter(target: Target, share: float | None, num_folds: int, is_nested: bool) -> list[str]:
    """What keeps a filter from working, before anything is trained; cleanlab itself is imported."""
    import_extra("cleanlab", "noise", WHAT)
    problems = []
    if target.is_soft or target.are_maps:
        problems.append(f"drop_noisy is for classes, labels and numbers, and not for {target.kind} as it is here.")
    elif not target.are_probabilities and share is None:
        problems.append("drop_noisy.share must be given for numbers: the largest residuals are dropped.")
    if is_nested and num_folds < 3:
        problems.append(
            f"drop_noisy holds out two folds at once, and there {'is' if num_folds == 1 else 'are'} {num_folds}: set "
            f"data.folds.num to 3 or more, or drop_noisy.nested: false, whose score is too good."
        )
    return problems


def suspicious(
    target: Target, given: NDArray[np.number], predicted: Values, share: float | None
) -> tuple[Order, Values]:
    """Rows whose labels look wrong, the worst first, with the quality of their labels, from 0, low is bad.

    Classes and labels by confident learning (Northcutt et al. 2021); numbers by their residuals, in standard deviations
    of the output, the largest of several outputs.

    Args:
        target: The kind of target.
        given: Targets: int64 (n,) classes, or float (n, K).
        predicted: Predictions (n, K) of networks that were not trained on the row.
        share: The largest share of the rows; None for all that are found.

    Returns:
        Positions int64 (m,), and qualities float64 (m,).
    """
    most = len(given) if share is None else int(share * len(given))
    quality = label_quality(target, given, predicted)
    if not target.are_probabilities:
        worst = np.argsort(quality, kind="stable")[:most]
        return worst, quality[worst]
    probable = np.asarray(target.valid(predicted))
    if target.are_classes:
        find = import_extra("cleanlab.filter", "noise", WHAT).find_label_issues
        found = find(given.astype(np.int64), probable, return_indices_ranked_by="self_confidence", n_jobs=1)
    else:
        labels = [np.flatnonzero(row > 0.5).tolist() for row in given]
        find = import_extra("cleanlab.multilabel_classification.filter", "noise", WHAT).find_label_issues
        rows = np.flatnonzero(find(labels, probable, n_jobs=1))
        found = rows[np.argsort(quality[rows], kind="stable")]
    worst = np.asarray(found, dtype=np.int64)[:most]
    return worst, quality[worst]


def label_quality(target: Target, given: NDArray[np.number], predicted: Values) -> Values:
    """The quality of labels, in 0–1, low is bad, float64 (n,); arguments as of `suspicious`.

    It is the predicted probability of the class that is given, or of the least probable of the labels that are given or
    not; of numbers exp(−d), where d is the residual in standard deviations of the output, the largest of several.
    """
    if not target.are_probabilities:
        scale = np.maximum(given.std(0), np.finfo(np.float32).tiny)
        return np.asarray(np.exp(-np.abs((predicted - given) / scale).max(1)))
    probable = np.asarray(target.valid(predicted))
    if target.are_classes:
        return np.asarray(probable[np.arange(len(given)), given.astype(np.int64)])
    return np.asarray(np.where(given > 0.5, probable, 1 - probable).min(1))


def pairings(num_folds: int) -> list[list[tuple[int, int]]]:
    """Every pair of folds once, in as few lists of disjoint pairs as there can be (the circle method).

    An odd number of folds leaves one fold out of each list.
    """
    seats: list[int | None] = [*range(num_folds), *([None] if num_folds % 2 else [])]
    found = []
    for _ in range(len(seats) - 1):
        pairs = [(seats[k], seats[-1 - k]) for k in range(len(seats) // 2)]
        found.append(sorted((min(a, b), max(a, b)) for a, b in pairs if a is not None and b is not None))
        seats = [seats[0], seats[-1], *seats[1:-1]]
    return found


def paired_folds(folds: NDArray[np.int64], pairs: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Folds of pairs of folds, int64 (n,): the rows of both are held out together, all others are trained on."""
    found = np.full(len(folds), NO_FOLD, dtype=np.int64)
    for number, pair in enumerate(pairs):
        found[np.isin(folds, pair)] = number
    return found


def dropped_csv(data: CSVDataModule, predictions: Mapping[int | str, NDArray[np.float32]], share: float | None) -> str:
    """The text of a `dropped.csv`: for each fold the rows that it must not train on.

    Args:
        data: The training rows with their folds.
        predictions: For each fold, and for `ALL`, the predictions (n, K) of all training rows by which it drops; NaN
            where there is none.
        share: As of `suspicious`.

    Raises:
        InputError: A fold has no row that could be dropped.
    """
    schema, text, folds = data.schema, io.StringIO(), data.fold_of_row
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["fold", "id", "given", "predicted", "score"])
    targets = data.targets
    has_target = data.is_scored & ~np.isnan(targets.reshape(len(targets), -1)).any(1)
    for fold, values in predictions.items():
        others = has_target & np.isfinite(values).all(1) & (True if fold == ALL else folds != fold)
        rows = np.flatnonzero(others)
        if not len(rows):
            raise InputError(f"drop_noisy: fold {fold} has no row with a label and a prediction.")
        worst, quality = suspicious(schema.base, targets[rows], values[rows].astype(np.float64), share)
        captions = schema.captions(targets[rows[worst]])
        for row, given, score in zip(rows[worst].tolist(), captions, quality.tolist(), strict=True):
            predicted = schema.target.prediction_text(values[row], schema.outputs)
            writer.writerow([fold, data.train_table.ids[row], given, predicted, f"{score:.6g}"])
    return text.getvalue()
