"""The filter of labels: what it finds, and that a fold's own labels do not decide what the fold trains on."""

import importlib

import numpy as np
import pytest

from swinft.data.target.kinds import TARGETS
from swinft.run.rounds.noise import check_filter, paired_folds, pairings, suspicious
from tests.conftest import ROOT


@pytest.mark.parametrize("folds", [3, 4, 5, 8])
def test_every_pair_of_folds_is_held_out_once_by_disjoint_runs(folds):
    found = pairings(folds)
    assert len(found) == folds - 1 + folds % 2
    pairs = [pair for run in found for pair in run]
    assert sorted(pairs) == [(a, b) for a in range(folds) for b in range(a + 1, folds)]
    for run in found:
        assert len({fold for pair in run for fold in pair}) == 2 * len(run)
    rows = paired_folds(np.array([0, 1, 2, -1, 0]), [(0, 2)])
    assert rows.tolist() == [0, -1, 0, -1, 0]


def test_flipped_labels_are_found_the_worst_first():
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=300)
    predicted = np.full((300, 3), 0.1) + 0.7 * np.eye(3)[truth] + rng.uniform(0, 0.01, (300, 3))
    given, flipped = truth.copy(), rng.choice(300, 12, replace=False)
    given[flipped] = (given[flipped] + 1) % 3
    rows, quality = suspicious(TARGETS["classification"], given, predicted, None)
    assert set(rows) == set(flipped)
    assert (np.diff(quality) >= 0).all()
    few, _ = suspicious(TARGETS["classification"], given, predicted, 0.01)
    assert few.tolist() == rows[:3].tolist()


def test_wrong_labels_and_numbers_are_found():
    rng = np.random.default_rng(0)
    truth = rng.random((300, 4)) < 0.3
    predicted = np.where(truth, 0.9, 0.1) + rng.uniform(-0.02, 0.02, truth.shape)
    given, flipped = truth.astype(np.float32), rng.choice(300, 10, replace=False)
    given[flipped, 2] = 1 - given[flipped, 2]
    rows, quality = suspicious(TARGETS["multilabel"], given, predicted, 0.1)
    assert set(rows) <= set(flipped)
    assert len(rows) >= 7
    assert quality[0] < 0.2
    numbers = np.stack([rng.normal(0, 1, 300), rng.normal(0, 100, 300)], 1)  # of other units
    given = numbers.copy()
    given[7, 0] += 5
    given[9, 1] += 400
    rows, _ = suspicious(TARGETS["regression"], given, numbers + rng.normal(0, 0.1, (300, 2)) * [1, 100], 0.0067)
    assert rows.tolist() == [7, 9]


def test_what_a_filter_cannot_do_is_known_before():
    assert "share must be given" in check_filter(TARGETS["regression"], None, 5, True)[0]
    assert "there are 2" in check_filter(TARGETS["multilabel"], None, 2, True)[0]
    assert check_filter(TARGETS["multilabel"], None, 2, False) == []


def test_a_filter_by_networks_that_have_seen_the_scored_labels_inflates_the_score(monkeypatch):
    """Random labels of pairs of like rows in different folds: a score above one half is a leak."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    pairs = [importlib.import_module("rounds").Pairs(seed) for seed in range(3)]
    assert np.mean([each.score(0.2, is_nested=False) for each in pairs]) > 0.56
    assert abs(np.mean([each.score(0.2, is_nested=True) for each in pairs]) - 0.5) < 0.03
