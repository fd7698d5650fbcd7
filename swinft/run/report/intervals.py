"""Scores of parts of the rows, and their intervals by resamples; groups that folds keep together are drawn together.

Shapes: n scored rows, K outputs, R resamples.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.errors import InputError
from swinft.model.metrics import Metric
from swinft.model.scoring import takes_float32
from swinft.printing import format_score
from swinft.run.compare.counted import counted
from swinft.run.mask_counts import MaskDecision
from swinft.run.report.contents import ReportInput
from swinft.run.resamples import Counts, Units, interval
from swinft.run.scoring import row_scorer

MOST, LEAST = 1000, 100  # resamples
CELLS = 5e8  # predictions that all resamples may hold: seconds for a metric that is computed for each of them
SEED = 0

Interval = tuple[float, float] | None


class Scorer:
    """A metric of some of a run's scored rows.

    Args:
        report: The run.
        metric: The metric.
    """

    def __init__(self, report: ReportInput, metric: Metric) -> None:
        self.metric = metric
        rows, masks = report.rows, None
        values: Any = report.values
        if not (report.schema.base.are_classes and takes_float32(metric)):
            values = values.astype(np.float64)
        if report.counts is not None:
            values, masks = report.counts.decided(MaskDecision.default(len(report.outputs))), report.counts.true
        self._values, self._score = values, row_scorer([metric], report.data, rows, masks)
        targets = report.targets if masks is None else masks
        weights = None if report.data.score_weights is None else report.data.score_weights[rows].astype(np.float64)
        self._units = Units.of(groups_of(report), len(rows))
        self._of_counts = counted(self._of_rows, metric, values, targets, weights, report.outputs)
        self._count = int(np.clip(CELLS / max(1, values.size), LEAST, MOST))
        self._few: list[NDArray[np.uint16]] = []  # a quarter of the size of float64

    def score(self, inside: NDArray[np.bool_]) -> float:
        """The score of the rows of a mask, (n,); NaN where it is undefined for them."""
        return self._of_rows(np.flatnonzero(inside))

    def pooled(self) -> Interval:
        """The interval of the score of all rows that holds 95 % of its resamples; None if it is undefined in all."""
        blocks = self._resamples(self._count)
        return interval(np.concatenate([self._of_counts(counts) for counts in blocks]))

    def interval(self, inside: NDArray[np.bool_]) -> Interval:
        """The same of the rows of a mask, (n,), from fewer resamples."""
        self._few = self._few or [counts.astype(np.uint16) for counts in self._resamples(LEAST)]
        found = []
        for counts in self._few:
            drawn = counts.astype(np.float64) * inside
            if len(drawn := drawn[drawn.any(axis=1)]):
                found.append(self._of_counts(drawn))
        return interval(np.concatenate(found)) if found else None

    def _resamples(self, count: int) -> Iterator[Counts]:
        return self._units.resamples(np.random.default_rng(SEED), self._units.number, count)

    def _of_rows(self, chosen: NDArray[np.int64]) -> float:
        try:
            return float(self._score(self._values[chosen], chosen)[self.metric.name])
        except InputError:  # a metric may refuse rows that it cannot score
            return float("nan")


def groups_of(report: ReportInput) -> NDArray[np.str_] | None:
    """The group of each scored row, (n,); None where rows have none."""
    groups = report.data.splits.train.groups
    return None if groups is None else np.array(groups)[report.rows]


def format_ends(interval: Interval, unknown: str = "") -> str:
    """An interval of a score, `0.4974 to 0.5905`, or what stands for an unknown one."""
    return unknown if interval is None else f"{format_score(interval[0])} to {format_score(interval[1])}"
