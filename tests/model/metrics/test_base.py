"""Metrics against scikit-learn, on pooled rows."""

import math

import numpy as np
import pytest
import sklearn.metrics as sk
import torch

from swinft.errors import InputError
from swinft.model.metrics import METRICS
from swinft.model.scoring import score

RNG = np.random.default_rng(0)
PROBABILITIES = RNG.dirichlet([1, 1, 1, 1], 200).astype(np.float32)
CLASSES = RNG.integers(0, 4, 200)
LABEL_PROBABILITIES = RNG.random((200, 3), dtype=np.float32)
LABELS = (RNG.random((200, 3)) < [0.1, 0.5, 0.9]).astype(np.float32)
NUMBERS = RNG.normal(50, 20, (200, 2)).astype(np.float32)
PREDICTED = (NUMBERS + RNG.normal(0, 10, NUMBERS.shape)).astype(np.float32)
HARD = PROBABILITIES.argmax(1)

EXPECTED = {
    "accuracy": ("classification", PROBABILITIES, CLASSES, sk.accuracy_score(CLASSES, HARD)),
    "macro_f1": ("classification", PROBABILITIES, CLASSES, sk.f1_score(CLASSES, HARD, average="macro")),
    "log_loss": ("classification", PROBABILITIES, CLASSES, sk.log_loss(CLASSES, PROBABILITIES.astype(np.float64))),
    "kl_divergence": ("classification", PROBABILITIES, CLASSES, sk.log_loss(CLASSES, PROBABILITIES.astype(np.float64))),
    "auc": ("classification", PROBABILITIES, CLASSES, sk.roc_auc_score(CLASSES, PROBABILITIES, multi_class="ovr")),
    "quadratic_kappa": (
        "classification",
        PROBABILITIES,
        CLASSES,
        sk.cohen_kappa_score(CLASSES, HARD, weights="quadratic"),
    ),
    "mean_column_auc": ("multilabel", LABEL_PROBABILITIES, LABELS, sk.roc_auc_score(LABELS, LABEL_PROBABILITIES)),
    "rmse": ("regression", PREDICTED, NUMBERS, sk.root_mean_squared_error(NUMBERS, PREDICTED)),
    "mae": ("regression", PREDICTED, NUMBERS, sk.mean_absolute_error(NUMBERS, PREDICTED)),
    "r2": ("regression", PREDICTED, NUMBERS, sk.r2_score(NUMBERS, PREDICTED)),
}


def test_every_metric_is_compared():
    of_masks = {name for name, metric in METRICS.items() if metric.kinds == ("segmentation",)}  # test_segmentation.py
    assert set(EXPECTED) == set(METRICS) - of_masks


@pytest.mark.parametrize("name", EXPECTED)
def test_the_value_is_scikit_learns(name):
    kind, predictions, targets, expected = EXPECTED[name]
    assert score([name], kind, torch.from_numpy(predictions), torch.from_numpy(targets))[name] == pytest.approx(
        expected, abs=1e-5
    )


@pytest.mark.parametrize("name", EXPECTED)
def test_whole_weights_count_a_row_so_often(name):
    kind, predictions, targets, plain = EXPECTED[name]
    weights = np.arange(200) % 4
    expected = score([name], kind, predictions.repeat(weights, 0), targets.repeat(weights, 0))[name]
    given = score([name], kind, predictions, targets, weights=weights)[name]
    assert given == pytest.approx(expected)
    assert given != pytest.approx(plain, rel=1e-6)
    assert math.isnan(score([name], kind, predictions, targets, weights=0 * weights)[name])


def test_binary_auc_takes_the_second_class():
    targets = (CLASSES > 1).astype(int)
    two = np.stack([1 - LABEL_PROBABILITIES[:, 0], LABEL_PROBABILITIES[:, 0]], 1)
    expected = sk.roc_auc_score(targets, two[:, 1])
    assert score(["auc"], "classification", torch.from_numpy(two), torch.from_numpy(targets))["auc"] == pytest.approx(
        expected
    )


def test_f002_kappa_of_numbers_rounds_them_and_clips_them_to_the_grades():
    grades = RNG.integers(-1, 4, (200, 1)).astype(np.float32)
    predicted = (grades + RNG.normal(0, 0.7, grades.shape)).astype(np.float32)
    written = np.rint(predicted).clip(-1, 3).ravel().astype(int)
    assert (written != np.rint(predicted).ravel()).any()
    expected = sk.cohen_kappa_score(grades.ravel().astype(int), written, weights="quadratic")
    got = score(["quadratic_kappa"], "regression", torch.from_numpy(predicted), torch.from_numpy(grades))
    assert got["quadratic_kappa"] == pytest.approx(expected, abs=1e-5)


def test_direction_agrees_with_a_perfect_prediction():
    for name, (kind, predictions, targets, _) in EXPECTED.items():
        perfect = np.eye(4, dtype=np.float32)[targets] if kind == "classification" else targets
        values = [
            score([name], kind, torch.from_numpy(p), torch.from_numpy(targets))[name] for p in (perfect, predictions)
        ]
        assert (values[0] > values[1]) == METRICS[name].higher_is_better


def test_what_is_undefined_is_nan_and_not_zero():
    ones = torch.ones(5, dtype=torch.long)
    assert math.isnan(score(["auc"], "classification", torch.rand(5, 2), ones)["auc"])
    assert math.isnan(score(["mean_column_auc"], "multilabel", torch.rand(5, 2), torch.ones(5, 2))["mean_column_auc"])
    assert math.isnan(score(["r2"], "regression", torch.rand(1, 1), torch.ones(1, 1))["r2"])


def test_all_wrong_names_are_listed_with_the_nearest():
    with pytest.raises(InputError) as error:
        score(["acuracy", "rmse"], "classification", torch.rand(2, 2), torch.tensor([0, 1]))
    assert "'acuracy' does not score classification (model.metrics). Did you mean 'accuracy'?" in str(error.value)
    assert "'rmse' does not score classification" in str(error.value)
