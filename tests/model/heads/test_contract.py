"""Heads: losses against independent answers, units only here."""

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from torch.nn import functional

from swinft.class_spec import to_spec
from swinft.cli import main
from swinft.errors import InputError
from swinft.model.heads import ClassificationHead, Loss, MultilabelHead, RegressionHead
from swinft.model.heads.contract import head_from, row_losses
from tests.conftest import tiny_config, write_config

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


class Cubic(Loss):
    """|logit - target|³, with a factor that is learnt with the network."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, logits, target):
        return self.factor * (logits - target).abs().pow(3).mean(1)


HEADS = [(ClassificationHead, 3, CLASSES), (RegressionHead, 1, NUMBERS), (MultilabelHead, 2, LABELS)]


@pytest.mark.parametrize(("head", "outputs", "targets"), HEADS)
def test_a_loss_of_ones_own_is_that_of_its_formula_and_is_made_again_from_plain_values(head, outputs, targets):
    given = Cubic(factor=2.0)
    made = head(8, outputs, loss=given)
    logits, encoded = made(FEATURES), made.encode(targets)
    expected = 2 * ((logits - encoded).abs() ** 3).mean(1)
    torch.testing.assert_close(row_losses(made, logits, encoded), expected)
    other = head(8, outputs, loss=given)
    assert made.own_loss.factor is not other.own_loss.factor  # networks do not share what they learn
    assert "own_loss.factor" in made.state_dict()
    described = to_spec(made)
    assert described["init_args"]["loss"] == {"class_path": f"{__name__}.Cubic", "init_args": {"factor": 2.0}}
    again = head_from(described)(8, outputs)
    assert isinstance(again.own_loss, Cubic)
    assert again.own_loss.factor.item() == 2.0


def test_a_loss_of_ones_own_is_given_smoothed_targets():
    head = ClassificationHead(8, 3, label_smoothing=0.3, loss=Cubic())
    expected = (head(FEATURES) - (head.encode(CLASSES) * 0.7 + 0.1)).abs().pow(3).mean(1)
    torch.testing.assert_close(head.loss(head(FEATURES), head.encode(CLASSES)), expected)


class Averaged(Cubic):
    """A loss that averages over the batch."""

    def forward(self, logits, target):
        return super().forward(logits, target).mean()


def test_what_a_loss_cannot_do_is_refused():
    with pytest.raises(InputError, match="class_weights acts only on the head's own loss, and loss is Cubic"):
        ClassificationHead(8, 3, class_weights=[1.0, 2, 3], loss=Cubic())
    with pytest.raises(InputError, match=r"pos_weight acts only on the head's own loss"):
        MultilabelHead(8, 2, pos_weight=[1.0, 2], loss=Cubic())
    with pytest.raises(InputError, match=r"loss is 'hubre'; it must be mse or l1 or smooth_l1 or bce or huber or "):
        RegressionHead(8, 1, loss="hubre")
    head = RegressionHead(8, 1, loss=Averaged())
    with pytest.raises(InputError, match=r"Averaged.forward returns a tensor \(\); it must return one loss per row"):
        row_losses(head, head(FEATURES), head.encode(NUMBERS))


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (
            "torch.nn.MSELoss",
            "'torch.nn.MSELoss' has the wrong type: model.head.init_args.loss needs a class derived from",
        ),
        (
            "tests.model.heads.test_contract.Cubic",
            "'tests.model.heads.test_contract.Cubic' is not in a trusted package",
        ),
    ],
)
def test_a_config_names_a_loss_of_the_right_kind_only(competition, tmp_path, capsys, loss, message):
    head = {"class_path": "swinft.ClassificationHead", "init_args": {"loss": {"class_path": loss}}}
    config = write_config(tmp_path / "config.yaml", tiny_config(competition, tmp_path, **{"model.head": head}))
    assert main(["check", "--config", str(config)]) == 2
    assert message in capsys.readouterr().err
