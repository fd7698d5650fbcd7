"""Scores of resamples, and what they say of a private split: against the metrics themselves, and against theory."""

import math

import numpy as np
import pytest

from swinft.model.metrics import metric_of
from swinft.model.metrics.ranking import PartialAUC
from swinft.model.scoring import score
from swinft.run.compare.counted import RankedColumn, counted, weighted_means
from swinft.run.compare.outlook import (
    Outlook,
    freedom_of,
    medal_chances,
    rarity_of,
    simulate,
    some_units,
)
from swinft.run.resamples import Units, chance, interval

ROWS = 60
RNG = np.random.default_rng(3)
LABELS = (RNG.random(ROWS) < 0.3).astype(np.int64)
TIED = np.round(RNG.normal(size=ROWS) + LABELS, 1)
PAIR = np.stack([1 - 1 / (1 + np.exp(-TIED)), 1 / (1 + np.exp(-TIED))], 1)
CLASSES = RNG.integers(4, size=ROWS)
FOUR = RNG.dirichlet(np.ones(4), ROWS)
NUMBERS = RNG.normal(50, 20, (ROWS, 1))
GUESSES = NUMBERS + RNG.normal(0, 15, (ROWS, 1))
CASES = {
    "classification": [(LABELS, PAIR, ["auc", "gini", "log_loss", "f1", {"partial_auc": {"min_tpr": 0.6}}])],
    "four": [(CLASSES, FOUR, ["auc", "accuracy", "macro_f1", "quadratic_kappa", "brier"])],
    "regression": [(NUMBERS, GUESSES, ["rmse", "mae", "r2", "pooled_rmse", "pearson"])],
    "multilabel": [(np.stack([LABELS, 1 - LABELS], 1).astype(float), PAIR, ["mean_column_auc", "samples_f1"])],
}


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("is_weighted", [False, True])
def test_scores_of_counts_are_those_of_the_metric(kind, is_weighted):
    for targets, values, metrics in CASES[kind]:
        outputs = [str(k) for k in range(values.shape[1])]
        weights = np.random.default_rng(5).uniform(0, 2, ROWS) if is_weighted else None
        for given in metrics:
            metric = metric_of(given)

            def of_rows(rows, metric=metric, values=values, targets=targets, weights=weights, outputs=outputs):
                known = None if weights is None else weights[rows]
                name = "classification" if kind == "four" else kind
                return score([metric], name, values[rows], targets[rows], outputs=outputs, weights=known)[metric.name]

            found = counted(of_rows, metric, values, targets, weights, outputs)
            blocks = list(Units.of(None, ROWS).resamples(np.random.default_rng(1), 40, 12))
            wanted = [of_rows(np.repeat(np.arange(ROWS), row.astype(int))) for row in np.concatenate(blocks)]
            np.testing.assert_allclose(np.concatenate([found(block) for block in blocks]), wanted, rtol=1e-9)


def test_means_and_areas_are_scored_at_once_and_a_metric_that_only_looks_like_a_mean_is_not():
    def made(name, values, targets, kind):
        metric = metric_of(name)
        return counted(
            lambda rows: score([metric], kind, values[rows], targets[rows], outputs=["0", "1"][: values.shape[1]])[name],
            metric, values, targets, None, ["0", "1"][: values.shape[1]],
        )  # fmt: skip

    for name in ("rmse", "mae"):
        assert made(name, GUESSES, NUMBERS, "regression").func is weighted_means
    assert made("auc", PAIR, LABELS, "classification").__func__ is RankedColumn.area
    # Of a single row it is the accuracy, of many it is not the mean.
    assert not hasattr(made("macro_f1", PAIR, LABELS, "classification"), "func")


def test_a_partial_area_without_both_classes_is_undefined():
    curve = RankedColumn(TIED, LABELS == 1, np.ones(ROWS))
    counts = np.stack([np.ones(ROWS), LABELS, 1 - LABELS]).astype(float)
    found = curve.partial(counts, 0.5)
    assert found[0] == pytest.approx(PartialAUC(0.5, "1").compute(PAIR, LABELS, None))
    assert np.isnan(found[1:]).all()
    assert np.isnan(curve.area(counts)[1:]).all()


def test_rows_of_a_group_are_drawn_together():
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    units = Units.of(groups, 6)
    assert units.number == 3
    (block,) = units.resamples(np.random.default_rng(0), 3, 50)
    assert (block[:, [0]] == block[:, [2, 5]]).all()
    assert (block[:, 1] == block[:, 4]).all()
    assert (block[:, [0, 1, 3]].sum(1) == 3).all()
    assert units.size_of(4) == 2


def outlook_of(errors: np.ndarray, private: int, groups: np.ndarray | None = None, count: int = 3000) -> Outlook:
    scorers = [lambda counts, each=each: weighted_means(each, 1, None, counts) for each in errors]
    units = Units.of(groups, errors.shape[1])
    return simulate(scorers, units, private, count, np.random.default_rng(0), False)


def test_the_private_score_varies_by_both_samples_of_rows():
    errors = np.random.default_rng(1).normal(3, 1, (2, 400))
    found = outlook_of(errors, 100)
    theory = errors[0].std() * math.sqrt(1 / 400 + 1 / 100)
    assert found.scores(0).std() == pytest.approx(theory, rel=0.05)
    assert found.scores(0).mean() == pytest.approx(errors[0].mean(), abs=0.02)
    apart = (errors[1] - errors[0]).std() * math.sqrt(1 / 400 + 1 / 100)
    assert found.gains(1, 0).std() == pytest.approx(apart, rel=0.05)
    assert found.gain(1, 0) == pytest.approx(errors[0].mean() - errors[1].mean())
    assert found.best().sum() == pytest.approx(1)
    grouped = outlook_of(np.repeat(errors[:, :40], 10, 1), 100, np.repeat(np.arange(40), 10))
    assert grouped.scores(0).std() == pytest.approx(errors[0, :40].std() * math.sqrt(1 / 40 + 1 / 10), rel=0.1)


def test_the_same_run_twice_never_wins():
    errors = np.random.default_rng(1).normal(3, 1, 50)
    found = outlook_of(np.stack([errors, errors]), 20, count=200)
    assert interval(found.gains(1, 0)) == (0, 0)
    assert chance(found.gains(1, 0)) == 0.5
    assert found.best().tolist() == [0.5, 0.5]


def test_intervals_are_wider_where_few_rows_decide():
    assert freedom_of(np.random.default_rng(0).normal(size=2000), np.ones(2000), 2000) > 1000
    rare = np.zeros(1000)
    rare[:5] = [1, -1, 2, -2, 1]
    assert freedom_of(rare, np.ones(1000), 1000) < 12
    assert freedom_of(np.zeros(10), np.ones(10), 10) == 1e6
    found = outlook_of(np.stack([rare + 2]), 500, count=200)
    assert found.stretch(np.array([1.0])) > 1.1


def test_of_many_units_the_rarest_are_all_measured_and_the_others_weighted():
    targets = np.zeros(5000, dtype=np.int64)
    targets[[7, 70, 700]] = 1
    chosen, weights = some_units(Units.of(None, 5000), rarity_of(targets), 100, np.random.default_rng(0))
    assert {7, 70, 700} <= set(chosen.tolist())
    assert (len(set(chosen.tolist())), weights.sum()) == (100, pytest.approx(5000))
    influence = np.where(targets == 1, 10.0, 0.01 * np.random.default_rng(1).normal(size=5000))
    every = freedom_of(influence, np.ones(5000), 5000)
    assert freedom_of(influence[chosen], weights, 5000) == pytest.approx(every, rel=0.01)
    groups = np.arange(5000) // 10
    chosen, _ = some_units(Units.of(groups, 5000), rarity_of(targets), 20, np.random.default_rng(0))
    assert {0, 7, 70} <= set(chosen.tolist())


def test_medals_share_the_scores_out():
    scores = np.array([16.0, 17.0, 17.2, 17.4, 18.0])
    found = medal_chances(scores, {"gold": 17.0, "silver": 17.3, "bronze": 17.5}, higher_is_better=False)
    assert found == {"gold": 0.4, "silver": 0.2, "bronze": 0.2, "any": pytest.approx(0.8)}
    assert medal_chances(scores, {"gold": 17.4}, higher_is_better=True) == {"gold": 0.4, "any": 0.4}
    assert math.isnan(chance(np.zeros(0)))
    assert interval(np.zeros(0)) is None
