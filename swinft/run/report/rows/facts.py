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
from swinft.inference.predictions import Predictions, rows_of
from swinft.run.layout import Run
from swinft.run.report.rows.counted import counted_pixels
from swinft.run.report.rows.images import ImageLines, duplicate_clusters
from swinft.run.report.rows.labels import LabelIssues, label_issues
from swinft.run.report.rows.members import members_of
from swinft.run.report.rows.neighbours import Embeddings, embeddings_of
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
            return map_uncertainty(counted_pixels(maps, self.data, self.rows))
        several, by = (None, "") if target.are_probabilities else self._several()
        targets = self.data.targets[self.rows]
        deviation = None if target.are_probabilities else np.nanstd(targets, axis=0, dtype=np.float64)
        return uncertainty(target, rows_of(self.oof.values, self.rows), several, deviation, by)

    @cached_property
    def issues(self) -> LabelIssues | None:
        """Labels that look wrong; None for soft targets and masks."""
        return label_issues(self.data.schema.base, self.data.targets[self.rows], rows_of(self.oof.values, self.rows))

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
        return embeddings_of(self.run)

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

    def _several(self) -> tuple[NDArray[np.float32] | None, str]:
        """Predictions of each member of an ensemble, of each view, or else of each seed, (P, N, K); and by what."""
        if self.run.is_ensemble:
            found = self._by_member()
            return (None if found is None else np.stack(found)), "the members"
        if isinstance(self.by_view, np.ndarray):
            return self.by_view, "different views"
        seeds = self.run.read_config().get("seeds") or []
        folds = [self.run.fold(name) for name in self.run.planned_folds()]
        parts = [[Predictions.read(fold.oof, self._width) for fold in folds if fold.seed == seed] for seed in seeds]
        names = [f"the folds' oof.csv of seed {seed}" for seed in seeds]
        joined = [Predictions.concat(each).join(self._ids, name) for each, name in zip(parts, names, strict=True)]
        return (np.stack([each.values for each in joined]) if len(joined) > 1 else None), "different seeds"

    def _by_member(self) -> list[NDArray[np.float32]] | None:
        """The predictions of each member; None where not all of them are runs that are still what they were."""
        notes: list[str] = []
        runs = members_of(self.run, notes)
        if notes or len(runs) < 2:
            return None
        found, ids = [], self.data.train_table.ids
        for _, run in runs:
            oof = Predictions.read(run.oof, self._width).select(self.data.schema.outputs)
            found.append(oof.join(ids, str(run.oof)).values[self.rows])
        return found

    @property
    def _ids(self) -> list[str]:
        return [self.data.train_table.ids[row] for row in self.rows]

    @property
    def _width(self) -> int:
        return len(self.data.schema.outputs)

    def _duplicate_ids(self, clusters: NDArray[np.int64]) -> list[str]:
        """The id of another row of the same cluster, for each scored row: of the first, or else of the second one."""
        ids = self.data.train_table.ids
        members: dict[int, list[int]] = {}
        for row in range(len(ids)):
            members.setdefault(int(clusters[row]), []).append(row)
        others = [[row for row in members[int(clusters[each])][:2] if row != each] for each in self.rows.tolist()]
        return [ids[rows[0]] if rows else "" for rows in others]
