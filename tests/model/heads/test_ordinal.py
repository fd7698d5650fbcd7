"""Ordinal heads: thresholds against scikit-learn's losses, probabilities that sum to 1, grades in the target's units."""

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss

from swinft.errors import InputError
from swinft.model.heads import OrdinalHead, OrdinalRegressionHead
from swinft.model.heads.contract import decoded, encoded_targets, row_losses

RNG = torch.Generator().manual_seed(0)
FEATURES = torch.randn(40, 8, generator=RNG)
CLASSES = torch.arange(40) % 5
GRADES = [0.0, 1, 2, 4]
NUMBERS = torch.tensor(GRADES)[torch.arange(40) % 4][:, None]


@pytest.mark.parametrize("form", ["cumulative", "coral"])
def test_the_loss_is_the_sum_of_a_log_loss_for_each_threshold(form):
    head = OrdinalHead(8, 5, form=form)
    logits = head(FEATURES)
    assert logits.shape == (40, 4)
    found = row_losses(head, logits, encoded_targets(head, CLASSES, 40)).mean().item()
    above = logits.detach().double().sigmoid().numpy()
    assert found == pytest.approx(sum(log_loss(k < CLASSES, above[:, k], labels=[0, 1]) for k in range(4)), rel=1e-5)


def test_coral_shares_one_direction_and_the_other_form_does_not():
    shared, own = (OrdinalHead(8, 5, form=form)(FEATURES) for form in ("coral", "cumulative"))
    torch.testing.assert_close(shared.diff(dim=1), torch.zeros(40, 3))
    assert own.diff(dim=1).abs().max() > 1e-3


@pytest.mark.parametrize("form", ["cumulative", "coral"])
def test_training_starts_at_the_shares_of_the_rows(form):
    head, numbers = OrdinalHead(8, 5, form=form), OrdinalRegressionHead(8, 1, GRADES, form)
    uneven = CLASSES.clamp(max=3)
    head.initialize(uneven)
    numbers.initialize(NUMBERS)
    for each in (head, numbers):
        torch.nn.init.zeros_(each.thresholds.linear.weight)
    expected = torch.bincount(uneven, minlength=5) / 40
    torch.testing.assert_close(decoded(head, head(FEATURES[:1]))[0], expected, atol=2e-4, rtol=1e-3)
    torch.testing.assert_close(decoded(numbers, numbers(FEATURES[:1])), NUMBERS.mean()[None, None])


def test_thresholds_out_of_order_give_probabilities_all_the_same():
    head = OrdinalHead(8, 4)
    logits = torch.tensor([[-1.0, 2, 0], [3, 2, 1], [6e4, -6e4, 6e4], [-6e4] * 3])
    found = decoded(head, logits)
    above = logits.double().sigmoid().numpy()
    steps = np.clip(-np.diff(above, axis=1, prepend=1, append=0), 0, None)
    np.testing.assert_allclose(found, steps / steps.sum(1, keepdims=True), atol=1e-6)
    torch.testing.assert_close(found.sum(1), torch.ones(4))
    assert (found >= 0).all()


@pytest.mark.parametrize("form", ["cumulative", "coral"])
def test_grades_are_learnt_in_the_targets_units_for_several_columns(form):
    torch.manual_seed(0)
    order = torch.linspace(-2, 2, 40)[:, None]
    numbers = torch.tensor(GRADES)[(torch.arange(40) // 10)][:, None]
    targets = torch.cat([numbers, 4 - numbers], 1)
    targets[5] = 0.5  # between two grades
    head = OrdinalRegressionHead(1, 2, [0, 1, 2, 3, 4], form)
    head.initialize(targets)
    optimizer = torch.optim.Adam(head.parameters(), 0.3)
    for _ in range(150):
        optimizer.zero_grad()
        row_losses(head, head(order), head.encode(targets)).mean().backward()
        optimizer.step()
    found = decoded(head, head(order)).detach()
    assert found.shape == (40, 2)
    assert (found - targets).abs().mean() < 0.35
    sure = head.encode(targets).clamp(1e-6, 1 - 1e-6).logit()
    torch.testing.assert_close(decoded(head, sure), targets, atol=1e-4, rtol=1e-4)  # encode and decode are inverses


@pytest.mark.parametrize("scale", [0.0, 1.0, 6e4])
def test_gradients_are_finite_and_losses_float32_in_16_bit(scale):
    for head, target in ((OrdinalHead(8, 5), CLASSES), (OrdinalRegressionHead(8, 1, GRADES), NUMBERS)):
        encoded = head.encode(target)
        logits = (scale * (1 - 2 * encoded)).requires_grad_()
        row_losses(head, logits, encoded).sum().backward()
        assert logits.grad.isfinite().all()
        with torch.autocast("cpu", torch.bfloat16):
            assert row_losses(head, head(FEATURES), encoded).dtype == torch.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OrdinalHead(8, 5, form="corn"), "form is 'corn'; it must be cumulative or coral"),
        (lambda: OrdinalRegressionHead(8, 1, [1, 0]), r"grades is \[1, 0\]; it must hold two finite numbers or more"),
        (lambda: OrdinalRegressionHead(8, 1, [0, 1]).initialize(NUMBERS), r"from 0 to 4, outside the range \[0.0, 1.0"),
    ],
)
def test_what_is_no_order_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
