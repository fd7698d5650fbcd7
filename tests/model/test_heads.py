"""Heads: losses against independent answers, units only here."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch.nn import functional

from swinft.errors import InputError
from swinft.model.heads import ClassificationHead, MultilabelHead, RegressionHead

RNG = torch.Generator().manual_seed(0)
FEATURES = torch.randn(6, 8, generator=RNG)
CLASSES = torch.tensor([0, 1, 2, 2, 1, 0])
LABELS = torch.tensor([[0, 1], [1, 1], [0, 0], [1, 0], [1, 1], [0, 1]]).float()
NUMBERS = torch.tensor([[1.0], [50], [100], [20], [33], [64]])


def test_cross_entropy_is_scikit_learns():
    head = ClassificationHead(8, 3)
    logits = head(FEATURES)
    loss = head.loss(logits, head.encode(CLASSES)).mean().item()
    assert loss == pytest.approx(log_loss(CLASSES, head.decode(logits).detach().double().numpy()), rel=1e-5)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, [1.0, 2.0, 0.5]])
def test_smoothing_and_class_weights_are_torchs(smoothing, weights):
    head = ClassificationHead(8, 3, label_smoothing=smoothing, class_weights=weights)
    head.initialize(CLASSES)
    logits = head(FEATURES)
    weight = None if weights is None else torch.tensor(weights)
    expected = functional.cross_entropy(logits, CLASSES, weight, label_smoothing=smoothing)
    torch.testing.assert_close(head.loss(logits, head.encode(CLASSES)).mean(), expected)


def test_pos_weight_is_torchs():
    head = MultilabelHead(8, 2, pos_weight=[3.0, 0.5])
    logits = head(FEATURES)
    expected = functional.binary_cross_entropy_with_logits(logits, LABELS, pos_weight=torch.tensor([3.0, 0.5]))
    torch.testing.assert_close(head.loss(logits, head.encode(LABELS)).mean(), expected)
    torch.testing.assert_close(head.decode(logits), logits.sigmoid())


@pytest.mark.parametrize("loss", ["mse", "l1", "smooth_l1"])
def test_regression_learns_in_standard_units_and_answers_in_the_targets(loss):
    head = RegressionHead(8, 1, loss=loss)
    head.initialize(NUMBERS)
    encoded = head.encode(NUMBERS)
    assert encoded.mean().item() == pytest.approx(0, abs=1e-6)
    assert encoded.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    torch.testing.assert_close(head.decode(encoded), NUMBERS)
    assert head.loss(encoded, encoded).tolist() == [0.0] * 6


def test_bce_on_a_range_maps_the_ends_to_0_and_1_and_starts_at_the_mean():
    head = RegressionHead(8, 1, loss="bce", low=1, high=100)
    assert head.encode(torch.tensor([[1.0], [100.0]])).flatten().tolist() == [0, 1]
    head.initialize(NUMBERS)
    head.linear.weight.data.zero_()
    torch.testing.assert_close(head.decode(head(FEATURES)), NUMBERS.mean().expand(6, 1))
    extreme = head.decode(torch.tensor([[-1e4], [1e4]]))
    assert extreme.flatten().tolist() == [1, 100]


def test_predictions_are_clipped_to_the_range_for_every_loss():
    head = RegressionHead(8, 1, loss="mse", low=0, high=90)
    assert head.decode(torch.tensor([[-1e4], [1e4]])).flatten().tolist() == [0, 90]


def test_targets_outside_the_range_are_refused():
    head = RegressionHead(8, 1, loss="bce", low=1, high=50)
    with pytest.raises(InputError, match=r"from 1 to 100, outside the range \[1, 50\]"):
        head.initialize(NUMBERS)


def test_the_units_travel_with_the_weights():
    head, fresh = RegressionHead(8, 1), RegressionHead(8, 1)
    head.initialize(NUMBERS)
    fresh.load_state_dict(head.state_dict())
    torch.testing.assert_close(fresh.decode(fresh(FEATURES)), head.decode(head(FEATURES)))


def test_a_batch_of_one_keeps_its_shape():
    for head, target in (
        (ClassificationHead(8, 3), CLASSES),
        (RegressionHead(8, 1), NUMBERS),
        (MultilabelHead(8, 2), LABELS),
    ):
        logits = head(FEATURES[:1])
        assert head.decode(logits).shape == (1, head.num_outputs)
        assert head.loss(logits, head.encode(target[:1])).shape == (1,)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClassificationHead(8, 3, class_weights=[1, 2]), "class_weights has 2 values .* needs 3"),
        (lambda: MultilabelHead(8, 2, pos_weight=[1]), "pos_weight has 1 value .* needs 2"),
        (lambda: RegressionHead(8, 1, loss="bce"), "needs the target's range"),
        (lambda: RegressionHead(8, 1, low=3, high=3), "must be below"),
        (lambda: ClassificationHead(8, 3, label_smoothing=1.0), "label_smoothing is 1.0"),
        (lambda: ClassificationHead(8, 3, dropout=-0.1), "dropout is -0.1"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_a_mixture_of_targets_has_the_mixture_of_losses():
    share = 0.3
    for head, target in (
        (ClassificationHead(8, 3), CLASSES),
        (RegressionHead(8, 1, "bce", 1, 100), NUMBERS),
        (MultilabelHead(8, 2), LABELS),
    ):
        logits, a = head(FEATURES), head.encode(target)
        b = a.flip(0)
        mixed = head.loss(logits, share * a + (1 - share) * b)
        torch.testing.assert_close(mixed, share * head.loss(logits, a) + (1 - share) * head.loss(logits, b))
    assert math.isfinite(float(np.sum(mixed.detach().numpy())))
