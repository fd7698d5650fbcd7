"""Missing targets add nothing to a loss and have no gradient; soft targets; heads of auxiliary targets."""

import math

import pytest
import torch

from swinft import (
    ClassificationHead,
    FineTuneTask,
    InputError,
    MultilabelHead,
    RegressionHead,
    Schema,
    TaskContext,
)
from swinft.model.auxiliary import LOGITS, AuxiliaryHeads
from swinft.model.heads.contract import encoded_targets
from tests.conftest import TINY_SWIN
from tests.model.heads.test_transforms import Absolute, losses_of


@pytest.mark.parametrize(
    "head",
    [
        MultilabelHead(4, 3, pos_weight=[1.0, 2.0, 3.0]),
        MultilabelHead(4, 3, target_weights=[1.0, 0.0, 2.0]),
        RegressionHead(4, 3),
        RegressionHead(4, 3, loss="smooth_l1"),
        RegressionHead(4, 3, loss="bce", low=0, high=1),
        RegressionHead(4, 3, loss=Absolute()),
    ],
)
def test_a_missing_number_or_label_adds_nothing(head):
    logits = torch.randn(5, 3, requires_grad=True)
    whole = torch.tensor([[0.0, 1, 1], [1, 0, 0], [0, 0, 1], [1, 1, 1], [0, 1, 0]])
    holes = whole.clone()
    holes[0, 1] = holes[1, 0] = holes[1, 1] = holes[3] = math.nan
    head.has_gaps = True
    losses = losses_of(head, logits, holes)
    # Independent: the loss of one column at a time, with all others missing.
    alone = []
    for k in range(3):
        only = torch.full_like(whole, math.nan)
        only[:, k] = holes[:, k]
        alone.append(losses_of(head, logits, only))
    torch.testing.assert_close(losses, torch.stack(alone).sum(0))
    head.has_gaps = False
    torch.testing.assert_close(losses[[2, 4]], losses_of(head, logits, whole)[[2, 4]])
    losses.sum().backward()
    assert losses[3] == 0
    assert torch.equal(logits.grad[holes.isnan()], torch.zeros(6))
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("target", [torch.tensor([0, -1, 2]), torch.tensor([[1.0, 0, 0], [math.nan] * 3, [0, 0, 1]])])
def test_a_missing_class_adds_nothing(target):
    head = ClassificationHead(4, 3, label_smoothing=0.1)
    head.has_gaps = True
    logits = torch.randn(3, 3, requires_grad=True)
    losses = losses_of(head, logits, target)
    losses.sum().backward()
    assert losses[1] == 0
    assert torch.equal(logits.grad[1], torch.zeros(3))
    head.has_gaps = False
    torch.testing.assert_close(losses[[0, 2]], losses_of(head, logits[[0, 2]], torch.tensor([0, 2])))


def test_a_batch_without_any_auxiliary_target_has_a_gradient_for_every_parameter():
    heads = AuxiliaryHeads(
        4,
        [
            {"name": "a", "kind": "classification", "num_outputs": 3, "weight": 1.0, "head": None},
            {"name": "b", "kind": "regression", "num_outputs": 2, "weight": 1.0, "head": None},
        ],
    )
    batch = {"auxiliary.0": torch.tensor([-1, -1]), "auxiliary.1": torch.full((2, 2), math.nan)}
    features = torch.randn(2, 4)
    logits = {LOGITS.format(k): head(features) for k, head in enumerate(heads)}
    losses = heads.weighted(heads.losses({**heads.encode(batch, 2), **logits}))
    assert torch.equal(losses, torch.zeros(2))
    losses.mean().backward()
    assert all(torch.equal(parameter.grad, torch.zeros_like(parameter)) for parameter in heads.parameters())


def test_shares_are_the_mixture_of_classes_for_any_head():
    class Cumulative(ClassificationHead):
        def encode(self, target):
            return (target[:, None] >= torch.arange(3)).float()

    shares = torch.tensor([[0.2, 0.3, 0.5], [0, 1, 0]])
    found = encoded_targets(Cumulative(4, 3), shares, 2)
    torch.testing.assert_close(found, torch.tensor([[1, 0.8, 0.5], [1, 1, 0]]))
    assert torch.equal(encoded_targets(ClassificationHead(4, 3), shares, 2), shares)


def test_statistics_are_those_of_the_known_targets():
    head = RegressionHead(4, 2)
    head.initialize(torch.tensor([[1.0, math.nan], [3.0, 10.0], [math.nan, 30.0]]))
    assert head.shift.tolist() == [2, 20]
    assert head.scale.tolist() == [1, 10]


def test_a_network_without_the_heads_of_a_table_is_refused():
    schema = Schema(
        "regression",
        ["y"],
        auxiliary=[{"name": "a", "kind": "regression", "outputs": ["a"], "weight": 1.0, "head": None}],
    )
    small = {"backbone_args": dict(TINY_SWIN), "pretrained": False, "num_outputs": 1}
    with pytest.raises(InputError, match="auxiliary=schema"):
        FineTuneTask(RegressionHead, **small).check_schema(schema)
    with pytest.raises(InputError, match="has_gaps=True"):
        FineTuneTask(RegressionHead, **small).check_schema(Schema("regression", ["y"], has_gaps=True))
    context = TaskContext(image_size=32, auxiliary=schema.auxiliary_heads)
    FineTuneTask(RegressionHead, context=context, **small).check_schema(schema)
