"""What is known about the scored rows besides their errors: uncertainty, label quality, duplicates, embeddings.

Shapes: N scored rows, K outputs, V views.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.datamodule import CSVDataModule
from swinft.errors import StoreError
from swinft.inference.predictions import Predictions
from swinft.run.layout import Run
from swinft.run.report.rows.images import ImageLines, duplicate_clusters
from swinft.run.report.rows.labels import LabelIssues, label_issues
from swinft.run.report.rows.neighbours import Embeddings
from swinft.run.report.rows.uncertainty import Uncertainty, map_uncertainty, uncertainty
from swinft.run.report.rows.views import read_views

ENTROPY, MARGIN, SPREAD, QUALITY, SUSPICIOUS, DUPLICATE = (
    "entropy",
    "margin",
    "spread",
    "label_quality",
    "is_suspicious",
    "near_duplicate",
)
COLUMNS = (ENTROPY, MARGIN, SPREAD, QUALITY, SUSPICIOUS, DUPLICATE)  # of errors.csv


@dataclass(frozen=True, eq=False)
class RowFacts:
    """Facts about the rows that a run scores, each computed when it is asked for.

    Args:
        run: The run.
        data: Its datamodule after `setup("fit")`.
        oof: Out-of-fold predictions of the training table, in its order.
        views: Names of the views that were averaged.
    """

    run: Run
    data: CSVDataModule
    oof: Predictions
    views: Sequence[str]

    @cached_property
    def rows(self) -> NDArray[np.int64]:
        """Positions of the scored rows in the training table, int64 (N,)."""
        return np.flatnonzero(self.data.is_scored)

    @cached_property
    def by_view(self) -> NDArray[np.float32] | str:
        """Predictions of each view (V, N, K), or why there are none."""
        return read_views(self.run, self.data, self.views)

    @cached_property
    def uncertainty(self) -> Uncertainty | None:
        """How uncertain each prediction is; None where nothing tells."""
        target, maps = self.data.schema.base, self.oof.maps
        if maps is not None:
            return map_uncertainty(maps.take(self.rows))
        several = None if target.are_probabilities else self._several()
        targets = self.data.targets[self.rows]
        deviation = None if target.are_probabilities else np.nanstd(targets, axis=0, dtype=np.float64)
        return uncertainty(target, self.oof.values[self.rows], several, deviation)

    @cached_property
    def issues(self) -> LabelIssues | None:
        """Labels that look wrong; None for soft targets and masks."""
        return label_issues(self.data.schema.base, self.data.targets[self.rows], self.oof.values[self.rows])

    @cached_property
    def images(self) -> ImageLines | None:
        """What images.csv says; None where it cannot be read, as in an ensemble without one."""
        try:
            return ImageLines.read(self.run)
        except StoreError:
            return None

    @cached_property
    def clusters(self) -> NDArray[np.int64] | None:
        """The cluster of duplicates of each training row, int64; None where hashes of the images are unknown."""
        return None if self.images is None else duplicate_clusters(self.images, self.data.splits.train)

    @cached_property
    def embeddings(self) -> Embeddings | str:
        """The run's embeddings, or why there are none that could be used; an empty text where none were made."""
        return Embeddings.of(self.run) if not self.run.is_ensemble else "An ensemble has no embeddings of its own."

    def columns(self) -> dict[str, Any]:
        """More columns of errors.csv, by their names, in the order of the scored rows."""
        found: dict[str, Any] = {}
        if (uncertain := self.uncertainty) is not None:
            found[uncertain.name] = uncertain.values
            found |= {} if uncertain.margin is None else {MARGIN: uncertain.margin}
        if (issues := self.issues) is not None:
            found |= {QUALITY: issues.quality, SUSPICIOUS: np.isin(np.arange(len(self.rows)), issues.rows)}
        if self.clusters is not None:
            found[DUPLICATE] = self._duplicate_ids(self.clusters)
        return found

    def _several(self) -> NDArray[np.float32] | None:
        """Predictions of each view, or else of each seed, (P, N, K)."""
        if isinstance(self.by_view, np.ndarray):
            return self.by_view
        seeds = self.run.read_config().get("seeds") or []
        if self.run.is_ensemble or len(seeds) < 2:
            return None
        ids, outputs = [self.data.train_table.ids[row] for row in self.rows], len(self.data.schema.outputs)
        folds = [self.run.fold(name) for name in self.run.planned_folds()]
        found = []
        for seed in seeds:
            parts = [Predictions.read(fold.oof, outputs) for fold in folds if fold.seed == seed]
            found.append(Predictions.concat(parts).join(ids, f"the folds' oof.csv of seed {seed}").values)
        return np.stack(found)

    def _duplicate_ids(self, clusters: NDArray[np.int64]) -> list[str]:
        """The id of another row of the same cluster, for each scored row: of the first, or else of the second one."""
        ids = self.data.train_table.ids
        members: dict[int, list[int]] = {}
        for row in range(len(ids)):
            members.setdefault(int(clusters[row]), []).append(row)
        others = [[row for row in members[int(clusters[each])][:2] if row != each] for each in self.rows.tolist()]
        return [ids[rows[0]] if rows else "" for rows in others]
