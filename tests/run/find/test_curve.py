"""The curve of a range test: what it suggests, and when it ends."""

import numpy as np
import pytest

from swinft.run.find.curve import HIGHEST, LOWEST, has_diverged, rates, smoothed, suggested


def falling(middle, width, start=1.0, end=0.2, noise=0.0, steps=100):
    """A loss that falls around a rate, over some factors of ten."""
    tested = rates(steps)
    fallen = 1 / (1 + np.exp(-np.log10(tested / middle) * 8 / width))
    return tested, start + (end - start) * fallen + np.random.default_rng(0).normal(0, noise, steps)


def test_rates_are_exponential():
    tested = rates(50)
    assert (tested[0], tested[-1]) == pytest.approx((LOWEST, HIGHEST))
    assert np.allclose(tested[1:] / tested[:-1], tested[1] / tested[0])


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("middle", [1e-5, 3e-4, 1e-2])
@pytest.mark.parametrize(("start", "end"), [(1.0, 0.2), (-0.1, -0.9), (690.0, 689.2)])
def test_the_middle_of_the_descent_is_suggested(middle, start, end, noise):
    tested, losses = falling(middle, 2.0, start, end, noise)
    assert abs(np.log10(suggested(tested, losses) / middle)) < 0.5


def test_a_divergence_behind_the_descent_does_not_move_it():
    tested, losses = falling(1e-4, 2.0)
    before = suggested(tested, losses)
    losses[80:] = np.linspace(1, 50, 20)
    assert suggested(tested, losses) == pytest.approx(before, rel=0.5)


def test_noise_alone_suggests_nothing():
    draws = [np.random.default_rng(seed).normal(1, 0.1, 100) for seed in range(200)]
    assert sum(suggested(rates(100), losses) is None for losses in draws) >= 185
    assert suggested(rates(100), np.ones(100)) is None
    assert suggested(rates(100), np.linspace(1, 2, 100)) is None


def test_smoothing_does_not_lag():
    line = np.arange(100.0)
    assert np.allclose(smoothed(line), line)


@pytest.mark.parametrize(
    ("losses", "is_over"),
    [
        ([], False),
        ([float("nan")], True),
        ([1.0] * 30 + [float("inf")], True),
        ([1.0] * 30, False),
        ([1.0] * 20 + [0.5] * 5 + [2.5] * 10, True),
        ([1.0] * 20 + [0.01] * 10 + [0.9] * 10, False),  # not above the untrained network
        ([-0.9] * 20 + [-0.1] * 10, False),  # a negative loss is no multiple of another
        ([1.0, 9.0, 1.0, 9.0], False),
    ],
)
def test_a_divergence_is_far_above_what_was(losses, is_over):
    assert has_diverged(losses) == is_over
