"""The loss towards a teacher's predictions, and what a teacher sees of mixed rows."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from swinft import (
    ArcFaceHead,
    ClassificationHead,
    FineTuneTask,
    InputError,
    LabelDistributionHead,
    MultilabelHead,
    OrdinalHead,
    RegressionHead,
    Teacher,
)
from swinft.model.training.mixup import FEATURES, TAUGHT, Mixing, mixed_logits, mixup
from tests.conftest import TINY_SWIN, with_context

ORDER = torch.tensor([2, 0, 3, 1])


def task_of(head=ClassificationHead, outputs=3, **options):
    torch.manual_seed(0)
    given = {"backbone_args": TINY_SWIN, "pretrained": False, "image_size": 32, **options}
    return FineTuneTask(head, num_outputs=outputs, **with_context(**given))


@pytest.mark.parametrize("head", [ClassificationHead(4, 3, label_smoothing=0.1), ArcFaceHead(4, 3)])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_classes_are_compared_by_their_softened_probabilities(head, temperature):
    logits, others = torch.randn(5, 3, requires_grad=True), torch.randn(5, 3)
    losses = head.loss_towards(logits, others.softmax(1), temperature)
    p, q = ((each.double().detach().numpy() / temperature) for each in (others, logits))
    p, q = (np.exp(each) / np.exp(each).sum(1, keepdims=True) for each in (p, q))
    expected = temperature**2 * (p * np.log(p / q)).sum(1)
    np.testing.assert_allclose(losses.detach().numpy(), expected, rtol=1e-4, atol=1e-6)
    losses.sum().backward()
    np.testing.assert_allclose(logits.grad.numpy(), temperature * (q - p), rtol=1e-4, atol=1e-5)
    certain = head.loss_towards(logits.detach(), torch.eye(3)[[0, 1, 2, 0, 1]], temperature)
    assert certain.isfinite().all()


def test_labels_are_compared_by_probabilities_and_numbers_in_the_units_that_the_head_learns():
    head = MultilabelHead(4, 3, pos_weight=[1.0, 2.0, 3.0], loss="bce")
    logits, given = torch.randn(5, 3), torch.rand(5, 3)
    expected = functional.binary_cross_entropy(logits.sigmoid(), given, reduction="none").mean(1)
    torch.testing.assert_close(head.loss_towards(logits, given), expected)
    numbers = RegressionHead(4, 3)
    numbers.initialize(torch.randn(50, 3) * 10 + 40)
    values = torch.randn(5, 3) * 10 + 40
    expected = (logits - (values - numbers.shift) / numbers.scale).square().mean(1)
    torch.testing.assert_close(numbers.loss_towards(logits, values), expected)


@pytest.mark.parametrize(
    "head",
    [
        RegressionHead(4, 2, transform=["log1p", "sqrt"]),
        RegressionHead(4, 2, transform="rank"),
        RegressionHead(4, 2, loss="bce", low=0, high=100),
        LabelDistributionHead(4, 2, low=0, high=100),
    ],
)
def test_what_another_network_predicts_beyond_the_targets_has_a_finite_loss(head):
    head.initialize(torch.rand(50, 2) * 100)
    logits = head(torch.randn(3, 4))
    far = torch.tensor([[-50.0, -1e-3], [50.0, 50.0], [150.0, 1e4]])
    losses = head.loss_towards(logits, far)
    assert losses.shape == (3,)
    assert losses.isfinite().all()
    assert (losses >= 0).all()


def test_a_temperature_without_a_softmax_is_refused():
    given = {MultilabelHead(4, 3): torch.rand(2, 3), RegressionHead(4, 3): torch.rand(2, 3)}
    given |= {
        OrdinalHead(4, 3): torch.rand(2, 3).softmax(1),
        ClassificationHead(4, 3, loss="bi_tempered"): torch.eye(3),
    }
    for head, prediction in given.items():
        logits = head(torch.randn(len(prediction), 4))
        assert head.loss_towards(logits, prediction).shape == (len(prediction),)
        with pytest.raises(InputError, match=r"temperature is 2, .* no softmax of its logits: remove it"):
            head.loss_towards(logits, prediction, 2.0)


def test_a_teacher_is_no_part_of_what_learns():
    task, other = task_of(ema_decay=0.9), task_of(backbone_args={**TINY_SWIN, "embed_dim": 24}, image_size=64)
    names, groups = list(task.state_dict()), len(task.parameter_groups())
    task.teacher = Teacher([other.net], image_size=64, weight=1.0)
    task.train()
    assert list(task.state_dict()) == names
    assert len(task.parameter_groups()) == groups
    assert not other.net.training
    images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    state = torch.get_rng_state()
    with torch.no_grad():
        resized = functional.interpolate(images.float(), (64, 64), mode="bilinear", antialias=True)
        expected = other.net.logits(resized, None).softmax(1)
    prediction = task.teacher.predict(images, {})
    torch.testing.assert_close(prediction, expected)
    assert torch.equal(torch.get_rng_state(), state)
    batch = {"image": images, "target": torch.tensor([0, 1, 2, 0]), "row": torch.arange(4)}
    task.training_step(batch, 0).backward()
    assert all(parameter.grad is None for parameter in other.net.parameters())


def test_several_networks_teach_by_the_mean_of_their_predictions_with_metadata_of_their_own_units():
    tasks = [task_of(num_metadata=2, head=RegressionHead, outputs=1) for _ in range(2)]
    for k, task in enumerate(tasks):
        task.initialize(torch.randn(20, 1) * 5 + 10 * k, torch.randn(20, 2) * (k + 1) + k)
        task.net.eval()
    teacher = Teacher([task.net for task in tasks])
    images, features = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8), torch.randn(4, 2)
    found = teacher.predict(images, teacher.encode(features))
    with torch.no_grad():
        expected = torch.stack([task.net.predict(images, features) for task in tasks]).mean(0)
    torch.testing.assert_close(found, expected)
    with pytest.raises(InputError, match="the teacher takes metadata, and the batch has no `features`"):
        teacher.encode(None)


@pytest.mark.parametrize("unites", [False, True])
def test_a_teacher_sees_mixed_images_and_what_is_blended_later_is_blended_for_it(unites):
    task, teacher = task_of(MultilabelHead), Teacher([task_of(MultilabelHead).net])
    images, targets = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8), torch.rand(4, 3)
    for mixing in (None, Mixing(0.3, ORDER), Mixing(0.3, ORDER, (4, 20, 2, 30))):
        seen = images if mixing is None else mixing.rows(images, targets, {})[0]
        _, _, more = mixed_logits(task.net, images, targets, {}, mixing, teacher.predict)
        torch.testing.assert_close(more[TAUGHT], teacher.predict(seen, {}))
    plain = teacher.predict(images, {})
    for place in (FEATURES, "layers.0"):
        mixing = Mixing(0.3, ORDER, None, unites, place)
        _, _, more = mixed_logits(task.net, images, targets, {}, mixing, teacher.predict)
        both = torch.maximum(plain, plain[ORDER]) if unites else mixup(images, plain, 0.3, ORDER)[1]
        torch.testing.assert_close(more[TAUGHT], both)
