"""F1 of sets of labels: its definitions, and the thresholds of its maximum.

Shapes: N rows, K labels.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from swinft.inference.rules.searches import (
    LARGE,
    LEAST_GAIN,
    MIDDLE,
    MOST_ROUNDS,
    Bools,
    Gain,
    Values,
    midpoints,
    nearest,
    shifted,
)

Average = Literal["samples", "micro", "macro"]
MOST_LIFTED = 50  # labels with which a never-empty macro F1 is searched exactly: its time grows with their square


@dataclass(frozen=True)
class Sums:
    """Sums over labels that are chosen, so that one label can be changed without all others.

    Args:
        row_hits: Number of labels of each row that are right, (N,).
        row_number: Number of labels of each row that are chosen, (N,).
        label_hits: Weighted number of rows for which each label is right, (K,).
        label_number: Weighted number of rows for which each label is chosen, (K,).
    """

    row_hits: NDArray[np.int64]
    row_number: NDArray[np.int64]
    label_hits: Values
    label_number: Values

    def changed(self, kind: "F1", k: int, before: Bools, after: Bools) -> "Sums":
        """The sums after label k was chosen for other rows."""
        change, target = after.astype(np.int64) - before, kind.columns[k]
        label_hits, label_number = self.label_hits.copy(), self.label_number.copy()
        label_hits[k], label_number[k] = kind.weights @ (after & target), kind.weights @ after
        return Sums(self.row_hits + change * target, self.row_number + change, label_hits, label_number)


@dataclass(frozen=True)
class F1:
    """The F1 score of labels.

    Args:
        average: Over rows, over all cells, or over labels.
        empty: The score of a row or a label that is neither present nor chosen.
        targets: Labels that are present, (N, K).
        weights: What each row counts, (N,).
        best: The most probable label of each row, (N,), which is chosen if no other is; None to choose none then.
    """

    average: Average
    empty: float
    targets: Bools
    weights: Values
    best: NDArray[np.int64] | None = None

    def of(self, chosen: Bools) -> float:
        """The score of labels (N, K)."""
        if self.best is not None:
            chosen = chosen.copy()
            rows = np.flatnonzero(~chosen.any(1))
            chosen[rows, self.best[rows]] = True
        both = chosen & self.targets
        if self.average == "samples":
            rows_f1 = self._f1(both.sum(1).astype(float), chosen.sum(1).astype(float), self.of_rows)
            return float(np.average(rows_f1, weights=self.weights))
        sums = [self.weights @ each for each in (both, chosen, self.targets)]
        if self.average == "micro":
            sums = [each.sum() for each in sums]
        return float(np.mean(self._f1(*sums)))

    def of_cuts(self, values: Values, cuts: Values) -> Values:
        """The scores (C,) of labels whose probabilities (N, K) are at each of C ascending thresholds or above it."""
        place = np.searchsorted(cuts, values, side="right")  # chosen for the thresholds before it
        if self.average == "samples":
            size = max(1, LARGE // (len(cuts) + 1))  # rows at a time
            rows = [slice(start, start + size) for start in range(0, len(values), size)]
            total = sum(self._rows_of_cuts(place[each], len(cuts), each) for each in rows)
            samples: Values = total / self.weights.sum()
            return samples
        counts = np.broadcast_to(self.weights[:, None], values.shape)
        number, hits = (self._label_sums(place, len(cuts), each) for each in (counts, counts * self.targets))
        if self.best is not None:  # chosen from the first threshold on that no label of the row reaches
            every, first = np.arange(len(values)), place.max(1)
            label = place * 0
            label[every, self.best] = first
            lone = np.zeros_like(self.targets, dtype=np.float64)
            lone[every, self.best] = self.weights
            number += lone.sum(0) - self._label_sums(label, len(cuts), lone)
            lone *= self.targets
            hits += lone.sum(0) - self._label_sums(label, len(cuts), lone)
        wanted = self.of_labels
        if self.average == "micro":
            number, hits, wanted = number.sum(1, keepdims=True), hits.sum(1, keepdims=True), wanted.sum(keepdims=True)
        return np.asarray(self._f1(hits, number, wanted).mean(1))

    def _label_sums(self, place: NDArray[np.int64], count: int, counts: Values) -> Values:
        """The sums (C, K) of counts (N, K) of cells that are chosen for each of C thresholds."""
        index, width = place + np.arange(place.shape[1]) * (count + 1), place.shape[1]
        sums = np.bincount(index.ravel(), counts.ravel(), width * (count + 1)).reshape(width, count + 1)
        found: Values = sums[:, :0:-1].cumsum(1)[:, ::-1].T
        return found

    def _rows_of_cuts(self, place: NDArray[np.int64], count: int, rows: slice) -> Values:
        """The weighted F1 of some rows, summed, for each of C thresholds."""
        targets = self.targets[rows]
        index, size = place + np.arange(len(place))[:, None] * (count + 1), len(place) * (count + 1)
        sums = (np.bincount(each.ravel(), minlength=size) for each in (index, index[targets]))
        number, hits = (each.reshape(-1, count + 1)[:, :0:-1].cumsum(1)[:, ::-1] for each in sums)
        if self.best is not None:
            alone = number == 0
            of_best = targets[np.arange(len(place)), self.best[rows]]
            number, hits = np.where(alone, 1, number), np.where(alone, of_best[:, None], hits)
        found: Values = self.weights[rows] @ self._f1(hits, number, self.of_rows[rows, None])
        return found

    @cached_property
    def columns(self) -> Bools:
        """Labels that are present, by label, (K, N): a column is read as fast as a row."""
        return np.ascontiguousarray(self.targets.T)

    @cached_property
    def of_rows(self) -> Values:
        """Number of labels that are present in each row, (N,)."""
        counts: Values = self.targets.sum(1).astype(np.float64)
        return counts

    def sums(self, chosen: Bools) -> "Sums":
        """What a sweep needs to know of labels (N, K)."""
        hits = chosen & self.targets
        return Sums(hits.sum(1), chosen.sum(1), self.weights @ hits, self.weights @ chosen)

    def sweep(self, chosen: Bools, sums: "Sums", k: int, order: NDArray[np.int64]) -> Values:
        """The scores if label k is chosen for the first n rows of an order, n from 0 to N, (N + 1,).

        Args:
            chosen: Labels that are chosen, by label, (K, N).
            sums: Their sums.
            k: The label.
            order: Rows, (N,).
        """
        if self.average == "macro":
            return self._sweep_macro(chosen, sums, k, order)
        own, target = chosen[k], self.columns[k]
        others, hits = sums.row_number - own, sums.row_hits - (own & target)
        off_hits, off_chosen = hits.astype(float), others.astype(float)
        if self.best is not None:
            alone = np.flatnonzero(others == 0)
            off_chosen[alone] = 1
            off_hits[alone] = self.targets[alone, self.best[alone]]
        on_hits, on_chosen = hits + target, others + 1
        if self.average == "samples":
            off = self._f1(off_hits, off_chosen, self.of_rows) * self.weights
            on = self._f1(on_hits, on_chosen, self.of_rows) * self.weights
            samples: Values = _running(off, on, order) / self.weights.sum()
            return samples
        pairs = ((off_hits, on_hits), (off_chosen, on_chosen))
        hit, number = (_running(off * self.weights, on * self.weights, order) for off, on in pairs)
        return self._f1(hit, number, np.full(len(order) + 1, self.weights @ self.of_rows))

    def _sweep_macro(self, chosen: Bools, sums: "Sums", k: int, order: NDArray[np.int64]) -> Values:
        if self.best is not None:
            return self._sweep_lifted(chosen.T, k, order, self.best)
        counts = self.weights[order]
        hits = np.append(0, np.cumsum(counts * self.columns[k][order]))
        own = self._f1(hits, np.append(0, np.cumsum(counts)), np.full(len(hits), self.of_labels[k]))
        all_labels = self._f1(sums.label_hits, sums.label_number, self.of_labels)
        total: Values = (own + all_labels.sum() - all_labels[k]) / len(all_labels)
        return total

    @cached_property
    def of_labels(self) -> Values:
        """Weighted number of rows that have each label, (K,)."""
        counts: Values = self.weights @ self.targets
        return counts

    def _sweep_lifted(self, chosen: Bools, k: int, order: NDArray[np.int64], best: NDArray[np.int64]) -> Values:
        """Macro F1 where label k is alone: without it the best label of a row is chosen, which may be another one."""
        on, off = chosen.copy(), chosen.copy()
        on[:, k], off[:, k] = True, False
        alone = np.flatnonzero(~off.any(1))
        off[alone, best[alone]] = True
        counts, change = self.weights[:, None], (on.astype(float) - off) * self.weights[:, None]
        hits, number = (
            (start * counts).sum(0) + np.concatenate([np.zeros((1, chosen.shape[1])), np.cumsum(more[order], 0)])
            for start, more in ((off & self.targets, change * self.targets), (off, change))
        )
        found: Values = self._f1(hits, number, self.weights @ self.targets).mean(1)
        return found

    def _f1(self, hits: NDArray[Any], chosen: NDArray[Any], wanted: Values) -> Values:
        total = np.asarray(chosen + wanted, dtype=np.float64)
        return np.where(total > 0, 2 * hits / np.where(total > 0, total, 1), self.empty)


def f1_kinds(targets: Bools, weights: Values, best: NDArray[np.int64]) -> Iterator[F1]:
    """All definitions of F1 that are known here."""
    averages: tuple[Average, ...] = ("samples", "micro", "macro")
    for average in averages:
        for empty in (0.0, 1.0):
            for chosen in (None, best):
                yield F1(average, empty, targets, weights, chosen)


def recognised(values: Values, targets: Values, gain: Gain, weights: Values) -> F1 | None:
    """The definition of F1 that a metric has, by its values for several thresholds; None for another metric."""
    if not np.isin(targets, (0, 1)).all() or not len(values):
        return None
    tried = [MIDDLE, *np.quantile(values, (0.2, 0.6, 0.9)).tolist()]
    wanted = [gain(shifted(values, threshold)) for threshold in tried]
    if len({*wanted}) < 2:
        return None  # nothing tells one definition from another
    for kind in f1_kinds(targets > MIDDLE, weights, values.argmax(1)):
        found = (kind.of(values >= threshold) for threshold in tried)
        if all(abs(one - other) < 1e-9 for one, other in zip(found, wanted, strict=True)):
            return kind
    return None


def f1_thresholds(values: Values, kind: F1, start: Values, searched: Bools) -> Values:
    """Thresholds (K,) of a maximum of F1 by coordinate ascent: each step is the best threshold of one label.

    Args:
        values: Probabilities (N, K).
        kind: The definition.
        start: Thresholds (K,), which labels that are not searched keep.
        searched: Labels whose threshold is searched, (K,).
    """
    if kind.average == "macro" and values.shape[1] > MOST_LIFTED:
        kind = replace(kind, best=None)
    thresholds, columns = start.copy(), np.ascontiguousarray(values.T)
    chosen = columns >= thresholds[:, None]
    sums, best, sorted_labels = kind.sums(chosen.T), kind.of(chosen.T), dict[int, tuple[NDArray[np.int64], Values]]()
    for _ in range(MOST_ROUNDS):
        before = best
        for k in np.flatnonzero(searched).tolist():
            order, cuts = sorted_labels.get(k) or _sorted(columns[k])
            if values.size <= LARGE:
                sorted_labels[k] = order, cuts
            gains = kind.sweep(chosen, sums, k, order)
            gains[np.isnan(cuts)] = -math.inf
            if gains.max() > best + LEAST_GAIN:
                thresholds[k], best = nearest(cuts, gains, thresholds[k]), float(gains.max())
                own = columns[k] >= thresholds[k]
                sums = sums.changed(kind, k, chosen[k], own)
                chosen[k] = own
        if best <= before + LEAST_GAIN:
            break
    return thresholds


def _sorted(values: Values) -> tuple[NDArray[np.int64], Values]:
    """The rows of a label (N,), the most probable first, and the thresholds between them (N + 1,)."""
    order = np.argsort(-values, kind="stable")
    return order, midpoints(values[order])


def with_best(kind: F1, values: Values) -> F1:
    """The same definition, with the most probable label where no other is chosen."""
    return replace(kind, best=values.argmax(1))


def _running(off: Values, on: Values, order: NDArray[np.int64]) -> Values:
    """The sums over all rows if the first n rows of an order are on and the rest are off, n from 0 to N."""
    sums: Values = off.sum() + np.append(0, np.cumsum((on - off)[order]))
    return sums
