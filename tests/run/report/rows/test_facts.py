"""Uncertainty, label quality, views and drift against independent answers."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import entropy
from sklearn.metrics import roc_auc_score

from swinft.data.target.kinds import TARGETS
from swinft.run.report.rows.drift import _auc, column_table, drift_of_columns, drift_of_embeddings
from swinft.run.report.rows.labels import label_issues, robust_scores
from swinft.run.report.rows.uncertainty import map_uncertainty, uncertainty
from swinft.run.report.sections.duplicates import differing

CLASSES, LABELS, NUMBERS = TARGETS["classification"], TARGETS["multilabel"], TARGETS["regression"]


def test_entropy_and_margin_are_those_of_scipy():
    shares = np.random.default_rng(0).dirichlet([1] * 5, 20).astype(np.float32)
    found = uncertainty(CLASSES, shares, None)
    np.testing.assert_allclose(found.values, [entropy(row, base=5) for row in shares], rtol=1e-5)
    ordered = np.sort(shares)[:, ::-1]
    np.testing.assert_allclose(found.margin, ordered[:, 0] - ordered[:, 1], rtol=1e-4)
    sure = uncertainty(CLASSES, np.array([[1, 0], [0.5, 0.5]], np.float32), None)
    assert sure.values.tolist() == [0, 1]
    assert uncertainty(CLASSES, np.ones((3, 1), np.float32), None) is None


def test_the_least_certain_label_counts_and_numbers_need_several_predictions():
    found = uncertainty(LABELS, np.array([[0.5, 0.99], [0.01, 0.9]], np.float32), None)
    np.testing.assert_allclose(found.values, [1, entropy([0.1, 0.9], base=2)], rtol=1e-5)
    np.testing.assert_allclose(found.margin, [0, 0.8], atol=1e-6)
    one = np.zeros((4, 2), np.float32)
    assert uncertainty(NUMBERS, one, None, np.ones(2)) is None
    assert uncertainty(NUMBERS, one, one[None], np.ones(2)) is None
    several = np.array([[[0, 0], [1, 10]], [[2, 0], [1, 30]]], np.float32)
    spread = uncertainty(NUMBERS, several.mean(0), several, np.array([2.0, 100.0]))
    np.testing.assert_allclose(spread.values, [0.5, 0.1])


def test_the_entropy_of_masks_is_that_of_their_pixels():
    levels = np.zeros((3, 2, 4, 4), np.uint8)
    levels[1, 0, :2] = 127
    levels[2] = 255
    found = map_uncertainty((each, None) for each in levels)
    np.testing.assert_allclose(found.values, [0, 0.5, 0], atol=1e-4)
    large = np.zeros((1, 600, 600), np.uint8)
    large[:, :300] = 127
    assert map_uncertainty([(large, None)]).values == pytest.approx([0.5], abs=0.01)
    counts = np.zeros_like(large, dtype=bool)
    counts[0, 0, 0] = counts[0, 599, 599] = True  # one of them is of the pixels that are taken
    assert map_uncertainty([(large, counts)]).values == pytest.approx([1.0], abs=0.01)
    counts[0, 0, 0], counts[0, 1, 1] = False, True  # none of them is
    assert map_uncertainty([(large, counts)]).values == pytest.approx([0.5], abs=0.01)


def test_flipped_labels_are_found_and_no_others():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 4, 400)
    shares = rng.dirichlet([0.3] * 4, 400) * 0.3
    shares[np.arange(400), true] += 0.7
    given, flipped = true.copy(), np.arange(0, 400, 20)
    given[flipped] = (true[flipped] + 1) % 4
    given[5] = -1  # has no label
    found = label_issues(CLASSES, given, shares.astype(np.float32))
    assert set(found.rows.tolist()) <= set(flipped)
    assert len(found.rows) > 10
    assert np.isnan(found.quality[5])
    assert (np.diff(found.quality[found.rows]) >= 0).all()
    answers = (rng.random((300, 3)) > 0.5).astype(np.float32)
    predicted = np.where(answers > 0.5, 0.9, 0.1).astype(np.float32)
    answers[7, 2] = 1 - answers[7, 2]
    labels = label_issues(LABELS, answers, predicted)
    assert labels.rows.tolist() == [7]
    assert labels.output[7] == 2


def test_numbers_are_outliers_by_the_modified_score():
    rng = np.random.default_rng(0)
    targets = rng.normal(0, 10, (500, 2)).astype(np.float32)
    predicted = targets + rng.normal(3, 1, (500, 2)).astype(np.float32)  # a bias is no outlier
    targets[11, 1] += 40
    targets[12] = np.nan
    found = label_issues(NUMBERS, targets, predicted)
    assert found.rows[0] == 11
    assert found.output[11] == 1
    assert len(found.rows) < 5
    residuals = rng.normal(0, 2, (1000, 1))
    median = np.median(residuals)
    wanted = 0.6745 * np.abs(residuals - median) / np.median(np.abs(residuals - median))
    np.testing.assert_allclose(robust_scores(residuals), wanted, rtol=1e-3)
    assert robust_scores(np.array([[0.0]] * 9 + [[1.0]])).argmax() == 9
    assert not robust_scores(np.zeros((5, 1))).any()


@pytest.mark.parametrize("kind", ["classification", "regression", "multilabel"])
def test_rows_without_a_label_and_a_single_class_are_no_issue(kind):
    target = TARGETS[kind]
    given = np.full(6, -1) if kind == "classification" else np.full((6, 2), np.nan, np.float32)
    assert not len(label_issues(target, given, np.full((6, 2), 0.5, np.float32)).rows)
    same = np.zeros(6, dtype=np.int64) if kind == "classification" else np.zeros((6, 2), np.float32)
    sure = (
        np.tile(np.array([0.9, 0.1], np.float32), (6, 1)) if kind == "classification" else np.zeros((6, 2), np.float32)
    )
    assert not len(label_issues(target, same, sure).rows)


def test_the_area_and_its_error_are_those_of_scikit_learn_and_of_resamples():
    rng = np.random.default_rng(0)
    low, high = rng.normal(0, 1, 200).round(1), rng.normal(0.5, 1, 150).round(1)
    auc, error = _auc(low, high)
    truth = np.repeat([0, 1], [200, 150])
    assert auc == pytest.approx(roc_auc_score(truth, np.concatenate([low, high])))
    drawn = [roc_auc_score(truth, np.concatenate([rng.choice(low, 200), rng.choice(high, 150)])) for _ in range(150)]
    assert error == pytest.approx(np.std(drawn), rel=0.2)


def test_planted_drift_is_seen_and_none_without_it():
    rng = np.random.default_rng(1)
    train, test = pd.DataFrame(rng.normal(0, 1, (400, 3)), columns=list("abc")), rng.normal(0, 1, (150, 3))
    same = pd.DataFrame(test, columns=list("abc"))
    train.loc[:30, "a"], same.loc[:10, "a"] = np.nan, np.nan
    train["constant"], same["constant"] = 1.0, 1.0
    none = drift_of_columns(train, same, None, 0)
    assert not none.is_seen
    assert none.low < 0.5 < none.high + 0.02
    brighter = same.assign(b=same["b"] + 2)
    seen = drift_of_columns(train, brighter, None, 0)
    assert seen.is_seen
    assert seen.auc > 0.8
    assert column_table(train, brighter)["column"][0] == "b"
    assert seen.train[train["b"].argmax()] > seen.train[train["b"].argmin()]
    assert drift_of_columns(train[["constant"]], same[["constant"]], None, 0) is None
    assert drift_of_columns(train[:6], same, None, 0) is None


def test_rows_of_a_group_are_never_on_both_sides_of_a_split():
    """Twenty patients whose rows are all alike: a classifier that has seen a patient would know its other rows."""
    rng = np.random.default_rng(0)
    patients = rng.normal(0, 1, (40, 4))
    train = pd.DataFrame(np.repeat(patients[:20], 10, 0) + rng.normal(0, 0.01, (200, 4)))
    test = pd.DataFrame(patients[20:] + rng.normal(0, 0.01, (20, 4)))
    groups = np.repeat(np.arange(20), 10).tolist()
    alone, together = (drift_of_columns(train, test, each, 0) for each in (None, groups))
    assert alone.auc > together.auc + 0.15


def test_embeddings_of_each_network_are_compared_in_their_own_space():
    rng = np.random.default_rng(0)
    pairs = []
    for network in range(2):
        turn = np.linalg.qr(rng.normal(0, 1, (16, 16)))[0]
        test = rng.normal(0, 1, (60, 16))
        test[:, 0] += 2.5
        pairs.append((rng.normal(0, 1, (50, 16)) @ turn, test @ turn, np.arange(50) + 50 * network))
    found = drift_of_embeddings(pairs, 110, None, 0)
    assert found.is_seen
    assert found.auc > 0.8
    assert np.isnan(found.train[100:]).all()
    assert np.isfinite(found.train[:100]).all()
    assert len(found.test) == 60
    assert drift_of_embeddings([], 10, None, 0) is None


def test_clusters_differ_by_classes_by_labels_and_by_a_deviation_of_numbers():
    clusters = np.array([0, 0, 2, 2, 2, 5])
    assert [each.tolist() for each in differing(clusters, np.array([1, 1, 0, 1, -1, 0]), True)] == [[2, 3, 4]]
    assert differing(clusters, np.array([1, -1, 0, 0, -1, 0]), True) == []
    labels = np.array([[0, 1], [0, 0], [1, 1], [1, 1], [1, 1], [0, 0]], np.float32)
    assert [each.tolist() for each in differing(clusters, labels, False)] == [[0, 1]]
    numbers = np.array([[0], [1], [10], [30], [10], [5]], np.float32)
    assert [each.tolist() for each in differing(clusters, numbers, False)] == [[2, 3, 4]]
