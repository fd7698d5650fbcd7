"""Transforms, limits and weights of regression targets."""

import numpy as np
import pytest
import torch

from swinft import InputError, Loss, RegressionHead
from swinft.model.heads.contract import encoded_targets, row_losses


class Absolute(Loss):
    is_per_target = True

    def forward(self, logits, target):
        return (logits - target).abs().mean(1)


def losses_of(head, logits, target):
    return row_losses(head, logits, encoded_targets(head, target, len(target)))


@pytest.mark.parametrize("transform", ["log1p", "sqrt", "rank", ["rank", "none"]])
def test_predictions_of_the_transformed_targets_are_the_targets(transform):
    rng = np.random.default_rng(0)
    target = torch.from_numpy(rng.lognormal(3, 1, (300, 2)).astype(np.float32))
    head = RegressionHead(4, 2, transform=transform)
    head.initialize(target)
    torch.testing.assert_close(head.decode(head.encode(target)), target, rtol=0.02, atol=0.05)
    encoded = head.encode(target)
    assert encoded.mean(0).abs().max() < 1e-4  # standardised after the transform
    again = RegressionHead(4, 2, transform=transform)
    again.load_state_dict(head.state_dict())
    assert torch.equal(again.encode(target), encoded)
    assert head.decode(torch.full((1, 2), 1e4)).isfinite().all()


def test_ranks_are_those_of_scipy_and_stay_within_the_training_targets():
    from scipy.stats import norm, rankdata

    target = torch.tensor([[1.0], [5.0], [5.0], [100.0], [7.0]])
    head = RegressionHead(4, 1, transform="rank")
    head.initialize(target)
    expected = norm.ppf((rankdata(target[:, 0]) - 0.5) / 5)
    np.testing.assert_allclose(head.encode(target)[:, 0], (expected - expected.mean()) / expected.std(), atol=1e-5)
    assert head.decode(torch.tensor([[-9.0], [9.0]])).flatten().tolist() == [1.0, 100.0]


def test_clip_limits_what_is_learned_and_not_the_statistics_of_others():
    head = RegressionHead(4, 1, clip=[0, 10])
    head.initialize(torch.tensor([[0.0], [5.0], [10.0], [1e6]]))
    assert head.scale.item() == pytest.approx(np.std([0, 5, 10, 10]))
    assert head.encode(torch.tensor([[1e6]])) == head.encode(torch.tensor([[10.0]]))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"transform": "log"}, "transform is 'log'"),
        ({"transform": ["log1p"]}, "transform has 1 name"),
        ({"transform": "log1p", "loss": "bce", "low": 0, "high": 1}, "remove transform"),
        ({"clip": [1, 0]}, "clip is [1, 0]"),
        ({"target_weights": [1.0]}, "target_weights has 1 value"),
        ({"target_weights": [1.0, 2.0], "loss": type("Own", (Absolute,), {"is_per_target": False})()}, "is_per_target"),
    ],
)
def test_wrong_arguments_are_refused(arguments, said):
    with pytest.raises(InputError) as error:
        RegressionHead(4, 2, **arguments)
    assert said in str(error.value)


def test_log_of_negative_targets_is_refused():
    with pytest.raises(InputError, match="target column 1 has -2"):
        RegressionHead(4, 2, transform="log1p").initialize(torch.tensor([[1.0, -2.0], [2.0, 1.0]]))


@pytest.mark.parametrize("loss", ["mse", Absolute()])
def test_weights_of_targets_weigh_and_keep_the_mean(loss):
    plain, weighted = RegressionHead(4, 2, loss=loss), RegressionHead(4, 2, loss=loss, target_weights=[3.0, 1.0])
    logits, target = torch.tensor([[1.0, 1.0]]), torch.tensor([[0.0, 3.0]])
    errors = (logits - target).abs() if loss != "mse" else (logits - target).square()
    assert losses_of(weighted, logits, target) == pytest.approx((errors * torch.tensor([1.5, 0.5])).mean().item())
    assert losses_of(plain, logits, target) == pytest.approx(errors.mean().item())
    assert weighted.state_dict().keys() == plain.state_dict().keys()
