"""ArcFace: the margin against numpy, plain cosines at evaluation, margins by the classes' rows."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from swinft.errors import InputError
from swinft.model.heads import ArcFaceHead
from swinft.model.heads.contract import decoded, encoded_targets, row_losses

RNG = torch.Generator().manual_seed(0)
FEATURES = torch.randn(9, 8, generator=RNG)
CLASSES = torch.tensor([0, 0, 0, 0, 0, 1, 1, 1, 2])  # none of class 3


def cosines(head, features):
    x, w = features.double().numpy(), head.weight.detach().double().numpy()
    x, w = x / np.linalg.norm(x, axis=1, keepdims=True), w / np.linalg.norm(w, axis=2, keepdims=True)
    return np.einsum("bd,kcd->bkc", x, w).max(2)


def margined(cos, classes, margins, scale):
    """Cross-entropy with the margin, by the angle itself."""
    moved, rows = cos.copy(), np.arange(len(cos))
    angle = np.arccos(cos[rows, classes]) + margins[classes]
    beyond = cos[rows, classes] - np.sin(margins[classes]) * margins[classes]
    moved[rows, classes] = np.where(angle < np.pi, np.cos(angle), beyond)
    return -log_softmax(scale * moved, 1)[rows, classes]


@pytest.mark.parametrize("sub_centres", [1, 3])
def test_the_loss_has_the_margin_and_predictions_have_not(sub_centres):
    head = ArcFaceHead(8, 4, sub_centres=sub_centres, scale=12.0)
    head.initialize(CLASSES)
    assert not head.learns_from_targets
    found, logits = cosines(head, FEATURES), head(FEATURES)
    np.testing.assert_allclose(logits.detach(), 12 * found, atol=1e-4)
    losses = row_losses(head, logits, encoded_targets(head, CLASSES, 9))
    np.testing.assert_allclose(losses.detach(), margined(found, CLASSES.numpy(), np.full(4, 0.5), 12), rtol=1e-4)
    np.testing.assert_allclose(decoded(head, logits).detach(), softmax(12 * found, 1), atol=1e-5)
    assert losses.mean() > row_losses(ArcFaceHead(8, 4, margin=0.0, scale=12.0), logits, head.encode(CLASSES)).mean()


def test_margins_fall_with_the_fourth_root_of_the_rows_of_the_training_rows_alone():
    head = ArcFaceHead(8, 4, margin=0.5, smallest_margin=0.1)
    assert head.learns_from_targets
    head.initialize(CLASSES)
    rarity = np.array([5, 3, 1]) ** -0.25
    expected = 0.1 + 0.4 * (rarity - rarity.min()) / np.ptp(rarity)
    np.testing.assert_allclose(head.margins, [*expected, 0.5], rtol=1e-6)
    losses = row_losses(head, head(FEATURES), head.encode(CLASSES)).detach()
    np.testing.assert_allclose(
        losses, margined(cosines(head, FEATURES), CLASSES.numpy(), head.margins.numpy(), 30), rtol=1e-4
    )
    again = ArcFaceHead(8, 4, margin=0.5, smallest_margin=0.1)
    again.load_state_dict(head.state_dict())
    assert torch.equal(again.margins, head.margins)
    even = ArcFaceHead(8, 2, margin=0.5, smallest_margin=0.1)
    even.initialize(torch.tensor([0, 1]))
    assert even.margins.tolist() == [0.5, 0.5]


def test_a_mixture_of_classes_has_the_mixture_of_losses():
    head = ArcFaceHead(8, 4)
    logits, a = head(FEATURES), head.encode(CLASSES)
    b = a.flip(0)
    expected = 0.3 * head.loss(logits, a) + 0.7 * head.loss(logits, b)
    torch.testing.assert_close(head.loss(logits, 0.3 * a + 0.7 * b), expected)
    smooth = ArcFaceHead(8, 4, label_smoothing=0.2)
    torch.testing.assert_close(smooth.loss(logits, a), head.loss(logits, a * 0.8 + 0.05))


@pytest.mark.parametrize("scale", [1.0, 64.0])
def test_gradients_are_finite_at_every_angle_and_losses_float32_in_16_bit(scale):
    head = ArcFaceHead(2, 3, scale=scale)
    angles = torch.linspace(0, 2 * torch.pi, 721)
    features = torch.stack([angles.cos(), angles.sin()], 1)
    head.weight.data = torch.tensor([[[1.0, 0]], [[-1, 0]], [[0, 1]]])
    for k in range(3):
        given = features.clone().requires_grad_()
        losses = row_losses(head, head(given), head.encode(torch.full((721,), k)))
        losses.sum().backward()
        assert losses.isfinite().all()
        assert given.grad.isfinite().all()
        assert head.weight.grad.isfinite().all()
    zero = torch.zeros(2, 2, requires_grad=True)
    row_losses(head, head(zero), head.encode(torch.tensor([0, 1]))).sum().backward()
    assert zero.grad.isfinite().all()
    with torch.autocast("cpu", torch.bfloat16):
        logits = head(features.bfloat16())
        assert logits.dtype == row_losses(head, logits, head.encode(torch.zeros(721).long())).dtype == torch.float32


def test_an_embedding_and_dropout_stand_in_front():
    head = ArcFaceHead(8, 4, embedding=5, dropout=0.5, dropout_samples=2)
    assert head.weight.shape == (4, 1, 5)
    torch.manual_seed(0)
    assert not torch.equal(head(FEATURES), head(FEATURES))
    head.eval()
    assert torch.equal(head(FEATURES), head(FEATURES))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"margin": 2.0}, r"ArcFaceHead.margin is 2.0. Allowed: a number from 0 to 1.5"),
        ({"smallest_margin": 0.5}, "smallest_margin=0.5 must be below margin=0.5"),
        ({"scale": 0.0}, "ArcFaceHead.scale is 0.0. Allowed: a number above 0"),
        ({"sub_centres": 0}, "sub_centres is 0. Allowed: a whole number from 1"),
        ({"embedding": 0}, "embedding is 0. Allowed: a whole number from 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        ArcFaceHead(8, 4, **arguments)
