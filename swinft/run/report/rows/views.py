"""What test-time augmentation gains: scores of each view alone and of the first views together, out of fold.

Shapes: V views, N scored rows, K outputs, F folds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swinft.data.datamodule import CSVDataModule
from swinft.errors import RunError, StoreError
from swinft.inference.predictions import Predictions
from swinft.model.metrics import Metric
from swinft.run.compare.counted import counted
from swinft.run.layout import Run
from swinft.run.resamples import Units, interval
from swinft.run.scoring import row_scorer
from swinft.seeding import seed_for
from swinft.store import has_record, verify

Array = NDArray[np.float64]
RESAMPLES = 200


@dataclass(frozen=True)
class ViewScore:
    """The scores of a view, by the first metric.

    Args:
        name: Name of the view.
        alone: The pooled score of its predictions.
        first: That of the mean of all views up to it.
        better_folds: In how many folds that mean is better than the first view alone.
    """

    name: str
    alone: float
    first: float
    better_folds: int


@dataclass(frozen=True)
class ViewGain:
    """The scores of all views.

    Args:
        metric: Name of the metric.
        higher_is_better: Its direction.
        views: The views, in the order of the config.
        folds: The number of folds F.
        gain: How much better the mean of all views is than the first one alone, in units of the metric.
        interval: The interval of the gain that holds 95 % of resamples; None where the metric is undefined in all.
    """

    metric: str
    higher_is_better: bool
    views: list[ViewScore]
    folds: int
    gain: float
    interval: tuple[float, float] | None


def read_views(run: Run, data: CSVDataModule, names: Sequence[str]) -> NDArray[np.float32] | str:
    """The out-of-fold predictions of each view, float32 (V, N, K), of the scored rows; with several seeds their mean.

    Args:
        run: The run.
        data: Its datamodule after `setup("fit")`.
        names: Names of the views.

    Returns:
        They; or why there are none, as a sentence; an empty one where there is nothing to say.
    """
    if run.is_ensemble or len(names) < 2:
        return ""
    if data.schema.base.are_maps:
        return "The predictions of single views are not kept of masks."
    position_of = {data.train_table.ids[row]: place for place, row in enumerate(np.flatnonzero(data.is_scored))}
    sums = np.zeros((len(names), len(position_of), len(data.schema.outputs)))
    counts = np.zeros(len(position_of))
    for name in run.planned_folds():
        fold = run.fold(name)
        if not has_record(fold.oof_by_view):
            return (
                f"Fold {name} has no predictions of single views: it was fitted by an earlier version, or they were "
                f"not copied with it."
            )
        try:
            found = np.load(verify(fold.oof_by_view), allow_pickle=False)
            oof = Predictions.read(fold.oof, sums.shape[2])
            if found.shape != (len(names), *oof.values.shape) or not np.allclose(found.mean(0), oof.values, 1e-4, 1e-5):
                return f"{fold.oof_by_view} is not of the predictions in {fold.oof.name}."
        except (StoreError, RunError, ValueError) as error:
            return str(error)
        places = np.array([position_of.get(id, -1) for id in oof.ids])
        sums[:, places[places >= 0]] += found[:, places >= 0]
        counts[places[places >= 0]] += 1
    if not counts.all():
        return "Not every row has predictions of single views."
    return np.asarray(sums / counts[:, None], dtype=np.float32)


def view_gain(
    data: CSVDataModule, metric: Metric, names: Sequence[str], by_view: NDArray[np.float32], seed: int
) -> ViewGain:
    """Scores each view alone, and the mean of the first views.

    Args:
        data: The run's datamodule after `setup("fit")`.
        metric: The run's first metric.
        names: Names of the views.
        by_view: Predictions (V, N, K) of the scored rows.
        seed: Seed of the resamples.
    """
    rows = np.flatnonzero(data.is_scored)
    folds = data.fold_of_row[rows]
    score = row_scorer([metric], data, rows)
    sign = 1.0 if metric.higher_is_better else -1.0
    means = (by_view.cumsum(0, dtype=np.float64) / np.arange(1, len(names) + 1)[:, None, None]).astype(np.float32)

    def of(values: NDArray[np.float32], chosen: NDArray[np.int64] | None = None) -> float:
        return float(score(values if chosen is None else values[chosen], chosen)[metric.name])

    parts = [np.flatnonzero(folds == fold) for fold in np.unique(folds)]
    first = [of(by_view[0], part) for part in parts]
    table = []
    for number, name in enumerate(names):
        gains = [sign * (of(means[number], part) - known) for part, known in zip(parts, first, strict=True)]
        better = sum(gain > 0 for gain in gains)
        table.append(ViewScore(name, of(by_view[number]), of(means[number]), better))
    gain = sign * (table[-1].first - table[0].alone)
    between = _interval(data, metric, (by_view[0], means[-1]), sign, seed)
    return ViewGain(metric.name, metric.higher_is_better, table, len(parts), gain, between)


def _interval(
    data: CSVDataModule, metric: Metric, pair: tuple[NDArray[np.float32], NDArray[np.float32]], sign: float, seed: int
) -> tuple[float, float] | None:
    """The interval of the gain of the second predictions over the first, by resampled rows, or groups of rows."""
    rows = np.flatnonzero(data.is_scored)
    groups = data.splits.train.groups
    units = Units.of(None if groups is None else np.array(groups)[rows], len(rows))
    weights = None if data.score_weights is None else data.score_weights[rows].astype(np.float64)
    score = row_scorer([metric], data, rows)
    scorers = []
    for values in pair:

        def of_rows(chosen: NDArray[np.int64], values: NDArray[np.float32] = values) -> float:
            return float(score(values[chosen], chosen)[metric.name])

        given = values.astype(np.float64)
        scorers.append(counted(of_rows, metric, given, data.targets[rows], weights, data.schema.outputs))
    generator = np.random.default_rng(seed_for("resampling", seed))
    gains = [
        sign * (scorers[1](counts) - scorers[0](counts))
        for counts in units.resamples(generator, units.number, RESAMPLES)
    ]
    return interval(np.concatenate(gains))
