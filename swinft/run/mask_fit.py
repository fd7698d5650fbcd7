"""Fits the threshold and the smallest area of masks on out-of-fold predictions, with a cross-fitted score.

Shapes: N rows, K classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.datamodule import CSVDataModule
from swinft.errors import number_of
from swinft.inference.predictions import Predictions
from swinft.model.metrics.pixel_counts import THRESHOLD
from swinft.model.scoring import chosen_metrics
from swinft.printing import format_score, visible
from swinft.run.mask_counts import MaskCounts, MaskDecision, count_pixels
from swinft.run.scoring import row_scorer

THRESHOLDS = [round(0.05 * step, 2) for step in range(1, 20)]
AREAS = (0.01, 0.02, 0.05, 0.1, 0.2)  # quantiles of the areas of true masks that are not empty


def count_scored(oof: Predictions, data: CSVDataModule) -> MaskCounts | None:
    """Pixels of the out-of-fold masks of the scored rows; None for other kinds of target.

    Args:
        oof: Predictions of all rows of the training table, in its order, with their maps.
        data: The datamodule, set up for the training rows.
    """
    masks = data.splits.train.masks
    if oof.maps is None or masks is None:
        return None
    scored = np.flatnonzero(data.is_scored)
    return count_pixels(oof.maps.take(scored), masks, scored, data.settings.loading.resize)


def fit_masks(counts: MaskCounts | None, data: CSVDataModule, metrics: Sequence[Any]) -> dict[str, Any]:
    """What scores.json contains about the decision which pixels are in a mask.

    Args:
        counts: What `count_scored` returns.
        data: The datamodule, set up for the training rows.
        metrics: The metrics; the first one decides.

    Returns:
        Threshold and smallest area of each class, by their names; and the pooled scores of every metric where each
        fold's rows are decided by what was fitted on those of the others. Empty for other kinds of target.
    """
    masks = data.splits.train.masks
    if counts is None or masks is None:
        return {}
    scored, outputs = np.flatnonzero(data.is_scored), data.schema.outputs
    folds = data.fold_of_row[scored]
    fit = _Fit(counts, data, metrics, scored)
    every = fit.decision(np.arange(len(scored)))
    predictions = np.zeros((*counts.true.shape, 2))
    for fold in np.unique(folds) if len(np.unique(folds)) > 1 else []:
        own = np.flatnonzero(folds == fold)
        predictions[own] = counts.take(own).decided(fit.decision(np.flatnonzero(folds != fold)))
    found: dict[str, Any] = {
        "threshold": dict(zip(outputs, map(float, every.thresholds), strict=True)),
        "min_area": dict(zip(outputs, map(int, every.min_areas), strict=True)),
        "metric": fit.metric.name,
    }
    if masks.classes != "independent":
        del found["threshold"]
    if len(np.unique(folds)) > 1:
        found["cross_fitted"] = row_scorer(metrics, data, scored, counts.true)(predictions, None)
        if len(outputs) > 1:
            found["of_classes"] = {
                name: row_scorer(metrics, data, scored, counts.true[:, [k]])(predictions[:, [k]], None, [name])
                for k, name in enumerate(outputs)
            }
    return {"masks": found}


def fitted(scores: dict[str, Any], outputs: Sequence[str]) -> MaskDecision | None:
    """The decision in scores.json; None if there is none."""
    found = scores.get("masks")
    if found is None:
        return None
    thresholds = found.get("threshold", dict.fromkeys(outputs, THRESHOLD))
    return MaskDecision([thresholds[name] for name in outputs], [found["min_area"][name] for name in outputs])


def describe(scores: dict[str, Any]) -> list[str]:
    """Lines about the decision, for the summary of a fit; none for other kinds of target."""
    found = scores.get("masks")
    if found is None:
        return []
    areas = {name: number_of(area, "pixel") for name, area in found["min_area"].items()}
    if "threshold" in found:
        parts = [f"{name} {value:g}, {areas[name]}" for name, value in found["threshold"].items()]
    else:
        parts = [f"{name} {area}" for name, area in areas.items()]
    what = (
        "threshold and smallest area"
        if "threshold" in found
        else "the most probable class of each pixel, smallest area"
    )
    line = f"masks: {what} by {found['metric']}: {'; '.join(parts)}"
    if "cross_fitted" in found:
        values = ", ".join(f"{name} {format_score(value)}" for name, value in found["cross_fitted"].items())
        line += f"; cross-fitted: {values}"
    lines = [line]
    for name, of_class in found.get("of_classes", {}).items():
        values = ", ".join(f"{metric} {format_score(value)}" for metric, value in of_class.items())
        lines.append(f"  {visible(name)}, cross-fitted: {values}")
    return lines


class _Fit:
    """Searches the decision of every class on some rows."""

    def __init__(
        self, counts: MaskCounts, data: CSVDataModule, metrics: Sequence[Any], rows: NDArray[np.int64]
    ) -> None:
        self.metric = chosen_metrics(metrics, data.schema.kind)[0]
        self.counts, self.data, self.rows = counts, data, rows
        masks = data.splits.train.masks
        self.classes = "independent" if masks is None else masks.classes

    def decision(self, chosen: NDArray[np.int64]) -> MaskDecision:
        """The best threshold of each class, and then its best smallest area; the first of equal ones."""
        thresholds, areas = [], []
        for k in range(self.counts.true.shape[1]):
            counts = self.counts.of_class(k).take(chosen)
            score = row_scorer([self.metric], self.data, self.rows[chosen], counts.true)
            # Those nearest to 0.5 first: they win where scores are equal.
            tried = THRESHOLDS if self.classes == "independent" else [THRESHOLD]
            best = self._best(counts, [(t, 0) for t in sorted(tried, key=lambda t: (abs(t - 0.5), t))], score)
            known = counts.true[counts.true > 0]
            is_fitted = len(known) and self.classes != "complete"  # of which no pixel can be left without a class
            quantiles = np.quantile(known, AREAS).astype(int).tolist() if is_fitted else []
            best = self._best(counts, [(best[0], area) for area in dict.fromkeys([0, *quantiles])], score)
            thresholds.append(best[0])
            areas.append(best[1])
        return MaskDecision(thresholds, areas)

    def _best(self, counts: MaskCounts, tried: list[tuple[float, int]], score: Any) -> tuple[float, int]:
        """The best pair of threshold and area; an undefined score is the worst."""
        sign = 1 if self.metric.higher_is_better else -1

        def value(pair: tuple[float, int]) -> float:
            found = score(counts.decided(MaskDecision([pair[0]], [pair[1]])), None)[self.metric.name]
            return -np.inf if np.isnan(found) else sign * found

        return max(tried, key=value)
