"""Weights of ensembles against brute force, closed forms and other libraries."""

from itertools import product

import numpy as np
import pytest
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import log_loss

from swinft.data.target.kinds import TARGETS
from swinft.run.ensemble.fits import (
    climb,
    least_squares_weights,
    log_linear,
    log_odds,
    mean_rank,
    of_each_output,
    power_mean,
    ridge,
    searched_weights,
)

STEP = 0.02


def numbers(seed: int, rows: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Three members (3, N, 1) and the truth (N, 1)."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 3, (rows, 1))
    noises = [1.0, 1.5, 4.0]
    return np.stack([truth + rng.normal(0, noise, truth.shape) for noise in noises]), truth


def grid(members: int) -> np.ndarray:
    """Every weight in steps of 2 % that sums to 1."""
    count = round(1 / STEP)
    return np.array([w for w in product(range(count + 1), repeat=members) if sum(w) == count]) / count


def of_squares(truth: np.ndarray):
    return lambda values: -float(np.sqrt(((values - truth) ** 2).mean()))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("members", [2, 3])
def test_no_weights_on_a_grid_beat_those_that_are_found(members, seed):
    found, truth = numbers(seed)
    found = found[:members]
    gain = of_squares(truth)
    gains = [gain(np.tensordot(weights, found, 1)) for weights in grid(members)]
    best = grid(members)[int(np.argmax(gains))]
    for how in (least_squares_weights(found, truth, np.ones(60)), searched_weights(found, gain)):
        assert how.min() >= 0
        assert how.sum() == pytest.approx(1)
        assert gain(np.tensordot(how, found, 1)) >= max(gains) - 1e-9
        assert np.abs(how - best).max() <= STEP
    climbed = climb(found, gain)
    assert np.abs(climbed - best).max() <= 0.05  # of a hundred steps at most
    assert gain(np.tensordot(climbed, found, 1)) >= max(gains) - 2e-3


def test_weights_of_a_metric_of_steps_are_those_of_the_grid():
    """Accuracy has no slope: the searches see only its values."""
    rng = np.random.default_rng(1)
    truth = rng.integers(0, 3, 90)
    found = softmax(np.eye(3)[truth] + rng.normal(0, [[[1.0]], [[1.2]]], (2, 90, 3)), -1)
    gain = lambda values: float((values.argmax(1) == truth).mean())  # noqa: E731
    best = max(gain(np.tensordot(weights, found, 1)) for weights in grid(2))
    assert gain(np.tensordot(climb(found, gain), found, 1)) >= best - 1 / 90
    assert gain(np.tensordot(searched_weights(found, gain), found, 1)) >= best - 2 / 90


@pytest.mark.parametrize("how", [climb, searched_weights])
def test_weights_of_each_output_are_those_of_a_grid_of_each(how):
    """Labels, whose log loss is a sum over the outputs: the best weights of one do not depend on the other."""
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 2, (80, 2)).astype(float)
    odds = 2 * truth - 1 + rng.normal(0, 1, (2, 80, 2)) * np.array([[[1.0, 3.0]], [[2.0, 1.0]]])
    found = 1 / (1 + np.exp(-odds))
    losses = lambda values: -(truth * np.log(values) + (1 - truth) * np.log(1 - values))  # noqa: E731
    gain = lambda values: -float(losses(np.clip(values, 1e-9, 1 - 1e-9)).mean())  # noqa: E731
    weights = of_each_output(found, how, gain)
    assert weights.sum(0) == pytest.approx([1, 1])
    for k in range(2):
        alone = [-losses(np.tensordot(each, found, 1))[:, k].mean() for each in grid(2)]
        assert np.abs(weights[:, k] - grid(2)[int(np.argmax(alone))]).max() <= 0.04
    shared = np.tensordot(how(found, gain), found, 1)
    assert gain(np.einsum("mk,mnk->nk", weights, found)) > gain(shared)


def test_weights_of_an_output_that_score_worse_are_not_taken():
    found, truth = numbers(0)
    both, wanted = np.concatenate([found, found], 2), np.concatenate([truth, truth], 1)
    good = np.array([0.7, 0.3, 0.0])
    answers = iter([good, *[np.array([0.0, 0.0, 1.0])] * 2])
    weights = of_each_output(both, lambda *_: next(answers), of_squares(wanted))
    assert np.allclose(weights, good[:, None])


@pytest.mark.parametrize("how", [climb, searched_weights])
def test_weights_of_exclusive_classes_are_those_of_a_grid_of_all(how):
    """Three classes whose probabilities are divided by their sum: every combination of weights in steps of a tenth."""
    rng = np.random.default_rng(5)
    truth = rng.integers(0, 3, 60)
    spread = np.array([[[0.5, 2.5, 1.0]], [[2.5, 0.5, 1.0]]])
    found = softmax(1.5 * np.eye(3)[truth] + rng.normal(0, 1, (2, 60, 3)) * spread, -1)

    def gain(values: np.ndarray) -> float:
        inside = np.clip(TARGETS["classification"].valid(values), 1e-9, 1)
        return float(np.log(inside[np.arange(60), truth]).mean())

    steps = np.linspace(0, 1, 11)
    combined = [np.array(each) * found[0] + (1 - np.array(each)) * found[1] for each in product(steps, repeat=3)]
    weights = of_each_output(found, how, gain)
    assert gain(np.einsum("mk,mnk->nk", weights, found)) >= max(map(gain, combined)) - 2e-3


def test_a_member_is_climbed_to_again_and_a_bad_one_never():
    found, truth = numbers(0)
    weights = climb(np.concatenate([found, found[:1] + 50]), of_squares(truth))
    assert weights[3] == 0
    assert weights[0] > weights[1] > weights[2]


def test_least_squares_count_weights_and_leave_out_missing_targets():
    found, truth = numbers(2)
    half = truth.copy()
    half[30:] = np.nan
    zero = np.where(np.arange(60) < 30, 1.0, 0.0)
    first = least_squares_weights(found[:, :30], truth[:30], np.ones(30))
    assert np.allclose(least_squares_weights(found, half, np.ones(60)), first)
    assert np.allclose(least_squares_weights(found, truth, zero), first)
    assert not np.allclose(least_squares_weights(found, truth, np.ones(60)), first)


def test_twin_members_share_their_weight_without_an_error():
    found, truth = numbers(0)
    weights = least_squares_weights(found[[0, 0, 1]], truth, np.ones(60))
    alone = least_squares_weights(found[[0, 1]], truth, np.ones(60))
    assert weights[:2].sum() == pytest.approx(alone[0], abs=1e-6)


def test_ridge_is_that_of_scikit_learn_at_its_penalty():
    found, truth = numbers(1)
    columns = found[:, :, 0].T
    factors, intercept = ridge(columns, truth[:, 0], np.ones(60))
    predicted = columns @ factors + intercept
    spread = columns.std(0)
    errors = []
    for alpha in np.logspace(-3, 2, 16) * 60:
        model = Ridge(alpha=alpha).fit(columns / spread, truth[:, 0])
        errors.append(np.abs(model.predict(columns / spread) - predicted).max())
    assert min(errors) < 1e-6
    sparse = truth[:, 0].copy()
    sparse[40:] = np.nan
    first = ridge(columns[:40], truth[:40, 0], np.ones(40))
    assert np.allclose(ridge(columns, sparse, np.ones(60))[0], first[0])
    assert np.allclose(ridge(columns, truth[:, 0], np.where(np.arange(60) < 40, 1.0, 0.0))[0], first[0])


@pytest.mark.parametrize("are_classes", [True, False])
def test_logistic_stacking_finds_the_likeliest_factors(are_classes):
    """No member of a neighbourhood is likelier, and for one label it is scikit-learn's regression."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, 400)
    odds = np.stack([2.0 * truth - 1 + rng.normal(0, noise, 400) for noise in (1.0, 2.0)])
    found = 1 / (1 + np.exp(-odds))
    members = np.stack([1 - found, found], -1) if are_classes else found[:, :, None]
    targets = np.eye(2)[truth] if are_classes else truth[:, None].astype(float)
    factors, biases = log_linear(log_odds(members, are_classes), targets, np.ones(400), are_classes)
    model = LogisticRegression(C=np.inf).fit(odds.T, truth)
    assert np.allclose(factors, model.coef_[0], atol=0.05)  # of the shrinkage
    bias = biases[1] - biases[0] if are_classes else biases[0]
    assert bias == pytest.approx(model.intercept_[0], abs=0.05)
    assert log_loss(truth, 1 / (1 + np.exp(-(factors @ odds + bias)))) == pytest.approx(
        log_loss(truth, model.predict_proba(odds.T)[:, 1]), abs=1e-4
    )


def test_a_missing_label_changes_no_factor():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (200, 2)).astype(float)
    found = 1 / (1 + np.exp(-(2 * truth - 1 + rng.normal(0, 1, (2, 200, 2)))))
    gaps = truth.copy()
    gaps[100:] = np.nan
    some = log_linear(log_odds(found[:, :100], False), truth[:100], np.ones(100), False)
    every = log_linear(log_odds(found, False), gaps, np.where(np.arange(200) < 100, 1.0, 1e-12), False)
    assert np.allclose(some[0], every[0], atol=1e-3)


def test_means_are_those_of_their_definitions():
    found = np.array([[[1.0], [4.0], [2.0]], [[4.0], [4.0], [8.0]]])
    assert power_mean(found, 1.0)[:, 0].tolist() == [2.5, 4, 5]
    assert np.allclose(power_mean(found, 2.0)[:, 0], np.sqrt([8.5, 16, 34]))
    assert np.allclose(mean_rank(found)[:, 0], [(0.5 + 1) / 6, (2.5 + 1) / 6, (1.5 + 2.5) / 6])
    assert np.allclose(mean_rank(np.exp(found)), mean_rank(found))  # only the order counts
