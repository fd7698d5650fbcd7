"""Metrics that read columns of the table: which rows are a group, a study or a prediction.

Shapes: N rows, K classes.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from swinft.errors import InputError, listed, number_of
from swinft.model.metrics.base import CLASSES, Array, BuiltinMetric
from swinft.model.metrics.one_class import OneClassMetric
from swinft.model.metrics.probabilities import EPS, binary_losses, losses_of


class GroupedLogLoss(BuiltinMetric):
    """Mean over groups of rows of the log loss with class weights; and, as one group more, that of any row of a study.

    Of a group Σ w·(−ln p) / Σ w with the weight of the true class, clipped at 2.2e-16. For `any_class`, the rows of a
    study in `any_group` are joined: one of them has the class; the largest probability of it; the largest weight.

    Args:
        column: The column that names the group of a row.
        weights: Weight of each class, from 0; None for equal weights.
        groups: Names of groups, each with the cells in `column` that belong to it; None for a group of every cell.
        any_class: The class that any row of a study may have; None for no further group.
        any_group: The group whose rows are joined; needed with `any_class`.
        any_by: The column that names the study of a row; needed with `any_class`.
    """

    name = "grouped_log_loss"
    kinds = CLASSES
    higher_is_better = False
    wants_probabilities = True
    needs_probabilities = True
    takes_weights = False

    def __init__(
        self,
        column: str,
        weights: dict[str, float] | None = None,
        groups: dict[str, list[str]] | None = None,
        any_class: str | None = None,
        any_group: str | None = None,
        any_by: str | None = None,
    ) -> None:
        self.by_class = None if weights is None else self._weights("weights", weights)
        self.column, self.groups = self._name("column", column), self._groups(groups)
        given = {"any_class": any_class, "any_group": any_group, "any_by": any_by}
        missing = [key for key, each in given.items() if each is None]
        if 0 < len(missing) < len(given):
            raise InputError(f"{self.name}: {' and '.join(missing)} missing. Give any_class, any_group and any_by.")
        self.any = {key: self._name(key, each) for key, each in given.items() if each is not None}
        if self.any and self.groups is not None and self.any["any_group"] not in set(self.groups.values()):
            names = listed(dict.fromkeys(self.groups.values()))
            raise InputError(f"{self.name}: any_group is '{self.any['any_group']}', and the groups are {names}.")
        self.columns = list(dict.fromkeys([self.column, *([self.any["any_by"]] if self.any else [])]))

    def refusal(self, kind: str) -> str:
        """Unknown classes, or classes without a weight."""
        unknown = self._unknown([self.any["any_class"]] if self.any else [])
        return unknown or ("" if self.by_class is None else self._unweighted(list(self.by_class)))

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score.

        Raises:
            InputError: A row is in no group, or in no study.
        """
        names = self._names(rows[self.column])
        of_class = np.ones(predictions.shape[1])
        if self.by_class is not None:
            of_class = np.array([self.by_class[name] for name in self.outputs])
        losses, counts = losses_of(predictions, targets, EPS), of_class[targets]
        scores = []
        for group in dict.fromkeys(names if self.groups is None else self.groups.values()):
            chosen = names == group
            scores.append(_mean(losses[chosen], counts[chosen]))
        if self.any:
            scores.append(self._any(predictions, targets, counts, names, rows[self.any["any_by"]].to_numpy()))
        return float(np.mean(scores))

    def _any(self, predictions: Array, targets: Array, counts: Array, names: Array, studies: Array) -> float:
        """The log loss of `any_class` in the rows of each study; NaN if no row is in the group.

        Raises:
            InputError: A row of the group has an empty cell instead of a study.
        """
        place = list(self.outputs).index(self.any["any_class"])
        chosen = np.flatnonzero(names == self.any["any_group"])
        if (studies[chosen] == "").any():
            raise InputError(f"{self.name}: a row has an empty cell in column '{self.any['any_by']}', so no study.")
        if not len(chosen):
            return math.nan
        known, study = np.unique(studies[chosen].astype(str), return_inverse=True)
        found = np.zeros((3, len(known)))
        for values, each in zip(found, (targets == place, predictions[:, place], counts), strict=True):
            np.maximum.at(values, study, each[chosen].astype(np.float64))
        has, probability, weights = found
        return _mean(binary_losses(probability, has > 0), weights)

    def _names(self, cells: Any) -> Array:
        """The group of each row, (N,).

        Raises:
            InputError: A cell is in no group.
        """
        known = {cell: cell for cell in set(cells) if cell} if self.groups is None else self.groups
        if unknown := sorted(set(cells) - set(known)):
            shown = number_of(len(unknown), "cell is", "cells are")
            raise InputError(
                f"{self.name}: {shown} in no group, in column '{self.column}': {listed(map(repr, unknown), 5)}."
            )
        found: Array = cells.map(known).to_numpy(object)
        return found

    def _groups(self, given: Any) -> dict[str, str] | None:
        """The group of each cell.

        Raises:
            InputError: The groups are no mapping of names to lists, or a cell is in two of them.
        """
        if given is None:
            return None
        found: dict[str, str] = {}
        for name, cells in given.items() if isinstance(given, Mapping) else [("", None)]:
            if not isinstance(cells, Sequence) or isinstance(cells, str) or not cells:
                raise InputError(f"{self.name}: groups is {given!r}. Give each group its cells: {{spinal: [canal]}}.")
            for cell in (self._name(f"groups.{name}", cell) for cell in cells):
                if cell in found:
                    raise InputError(f"{self.name}: groups has '{cell}' in {found[cell]} and in {name}. Keep one.")
                found[cell] = self._name("groups", name)
        return found


class ProbabilisticF1(OneClassMetric):
    """F1 of the probabilities of one class or label: 2·pTP / (pTP + pFP + positives).

    pTP is the sum of the probabilities of positive rows, pFP that of the others. Undefined without positive rows.

    Args:
        positive: The positive class or label; by default the only label, or the class 1, true or yes of two.
        by: Column of the ids of which each is one prediction: the mean of its rows. None for a prediction per row.
    """

    name = "probabilistic_f1"
    higher_is_better = True
    wants_probabilities = True
    needs_probabilities = True
    takes_weights = False

    def __init__(self, positive: str | None = None, by: str | None = None) -> None:
        super().__init__(positive)
        self.columns = [] if by is None else [self._name("by", by)]

    def compute(self, predictions: Array, targets: Array, rows: Any) -> float:
        """The score.

        Raises:
            InputError: The rows of an id have different targets.
        """
        scores, is_positive, _ = self.of_one(predictions, targets)
        if self.columns:
            ids = rows[self.columns[0]].to_numpy()
            if targets.ndim == 2:
                ids = ids[~np.isnan(targets[:, self._position(self.outputs) or 0])]
            scores, is_positive = self._joined(scores, is_positive, ids)
        if not is_positive.any():
            return math.nan
        return float(2 * scores[is_positive].sum() / (scores.sum() + is_positive.sum()))

    def _joined(self, scores: Array, is_positive: Array, ids: Array) -> tuple[Array, Array]:
        """The mean score and the target of each id."""
        names, place = np.unique(ids.astype(str), return_inverse=True)
        sizes = np.bincount(place)
        share = np.bincount(place, is_positive) / sizes
        if ((share > 0) & (share < 1)).any():
            mixed = names[(share > 0) & (share < 1)]
            raise InputError(
                f"{self.name}: the rows of '{mixed[0]}' in column '{self.columns[0]}' have different targets, as those "
                f"of {number_of(len(mixed), 'id')} have: a prediction has one target."
            )
        return np.bincount(place, scores) / sizes, share > 0


def _mean(losses: Array, counts: Array) -> float:
    """Mean of losses, each with its weight; NaN if none counts."""
    total = counts.sum()
    return float((losses * counts).sum() / total) if total > 0 else math.nan
