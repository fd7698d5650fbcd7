"""Scores of rows with missing targets, and of soft targets."""

import math

import numpy as np
import pytest

from swinft.model.scoring import score


def test_metrics_count_each_column_over_the_rows_that_have_it():
    targets = np.array([[1.0, math.nan], [3.0, 2.0], [math.nan, 4.0], [0.0, 1.0]])
    given = np.array([[1.0, 9.0], [1.0, 2.0], [9.0, 7.0], [0.0, 0.0]])
    found = score(["rmse", "mae"], "regression", given, targets)
    assert found["rmse"] == pytest.approx((math.sqrt(4 / 3) + math.sqrt(10 / 3)) / 2)
    assert found["mae"] == pytest.approx((2 / 3 + 4 / 3) / 2)
    labels = np.array([[1, math.nan], [0, 1], [math.nan, 0], [0, 1]])
    chances = np.array([[0.9, 0.0], [0.1, 0.8], [1.0, 0.9], [0.2, 0.2]])
    assert score(["mean_column_auc"], "multilabel", chances, labels) == {"mean_column_auc": pytest.approx(0.5)}


def test_metrics_of_shares():
    shares, given = np.array([[0.25, 0.75], [1, 0]]), np.array([[0.5, 0.5], [0.8, 0.2]])
    found = score(["log_loss", "kl_divergence", "accuracy"], "classification", given, shares)
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / 2
    assert found["log_loss"] == pytest.approx((math.log(2) - math.log(0.8)) / 2)
    assert found["kl_divergence"] == pytest.approx(found["log_loss"] - entropy)
    assert found["accuracy"] == 0.5  # argmax of equal ones is the first
    one = score(["log_loss", "kl_divergence"], "classification", given, np.array([1, 0]))
    assert one["kl_divergence"] == pytest.approx(one["log_loss"])
