"""Label distributions: targets and predictions are the same numbers, up to the ends of the range."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy, norm

from swinft.errors import InputError
from swinft.model.heads import LabelDistributionHead
from swinft.model.heads.contract import decoded, encoded_targets, row_losses

RNG = torch.Generator().manual_seed(0)
NUMBERS = torch.rand(30, 2, generator=RNG) * 100
NUMBERS[0] = torch.tensor([0.0, 100.0])


@pytest.mark.parametrize(("bins", "sigma"), [(101, None), (11, 5.0), (11, 40.0), (2, 50.0)])
def test_what_is_encoded_is_decoded_to_the_same_number_at_the_ends_too(bins, sigma):
    head = LabelDistributionHead(8, 2, 0.0, 100.0, bins, sigma)
    encoded = encoded_targets(head, NUMBERS, 30)
    assert encoded.shape == (30, 2, len(head.values))
    step = 100 / (bins - 1)
    torch.testing.assert_close(decoded(head, encoded.log()), NUMBERS, atol=0.08 * step, rtol=0.01)
    density = norm.pdf(head.values.double().numpy(), NUMBERS.double().numpy()[..., None], head.sigma)
    np.testing.assert_allclose(encoded, density / density.sum(2, keepdims=True), atol=1e-6)


def test_the_loss_is_the_divergence_and_0_where_the_distribution_is_met():
    head = LabelDistributionHead(8, 2, 0.0, 100.0, 21)
    logits, encoded = torch.randn(30, 2, len(head.values), generator=RNG), head.encode(NUMBERS)
    expected = entropy(encoded.double(), logits.double().softmax(2), axis=2).mean(1)
    np.testing.assert_allclose(row_losses(head, logits, encoded), expected, rtol=1e-4)
    assert row_losses(head, encoded.log(), encoded).abs().max() < 1e-5


def test_training_starts_at_the_mean_distribution():
    head = LabelDistributionHead(8, 2, 0.0, 100.0)
    head.initialize(NUMBERS)
    torch.nn.init.zeros_(head.linear.weight)
    found = decoded(head, head(torch.zeros(1, 8)))[0]
    torch.testing.assert_close(found, NUMBERS.mean(0), atol=0.2, rtol=0.01)


@pytest.mark.parametrize("scale", [0.0, 6e4])
def test_gradients_are_finite_and_losses_float32_in_16_bit(scale):
    head = LabelDistributionHead(8, 2, 0.0, 100.0)
    encoded = head.encode(NUMBERS)
    logits = (scale * (1 - 2 * encoded / encoded.amax())).requires_grad_()
    row_losses(head, logits, encoded).sum().backward()
    assert logits.grad.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        assert row_losses(head, head(torch.randn(30, 8)), encoded).dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LabelDistributionHead(8, 1, 1.0, 1.0), "low=1.0 must be below high=1.0"),
        (lambda: LabelDistributionHead(8, 1, 0.0, 100.0, 1), "bins is 1. Allowed: a number from 2 to 10000"),
        (lambda: LabelDistributionHead(8, 1, 0.0, 100.0, 11, 2.0), "Set bins to 26 or more, or sigma to 5 or more"),
        (lambda: LabelDistributionHead(8, 2, 0.0, 50.0).initialize(NUMBERS), r"outside the range \[0.0, 50.0\]"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
    LabelDistributionHead(8, 1, 0.0, 100.0, 26, 2.0)  # what the message advises
