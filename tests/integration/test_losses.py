"""Losses by name: each against its paper's formula in float64, at extreme logits, in 16 bit, and mixed."""

import inspect

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from sklearn.metrics import r2_score
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional
from torchvision.ops import sigmoid_focal_loss

import swinft
from swinft.errors import InputError
from swinft.model.heads import (
    AsymmetricLoss,
    BalancedSoftmaxLoss,
    BiTemperedLoss,
    ClassBalancedLoss,
    ClassificationHead,
    FocalLoss,
    HuberLoss,
    MultilabelHead,
    PearsonLoss,
    PolyLoss,
    R2Loss,
    RegressionHead,
    SigmoidFocalLoss,
    SigmoidPolyLoss,
)
from swinft.model.heads.class_losses import CLASS_LOSSES
from swinft.model.heads.classification import ClassLossName
from swinft.model.heads.contract import decoded, encoded_targets, row_losses
from swinft.model.heads.label_losses import LABEL_LOSSES
from swinft.model.heads.multilabel import LabelLossName
from swinft.model.heads.number_losses import NUMBER_LOSSES
from swinft.model.heads.regression import NumberLossName
from swinft.model.pooling import PoolingName
from tests.conftest import ROOT

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(0, 3, (7, 4))
SHARES = RNG.dirichlet(np.ones(4), 7)
CLASSES = np.array([0, 0, 0, 0, 1, 1, 2])  # no row of class 3
ONE_HOT = np.eye(4)[CLASSES]
LABELS = RNG.integers(0, 2, (7, 4)).astype(float)
NUMBERS = RNG.normal(50, 20, (7, 2)) * [1, 10]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def tempered(logits, t):
    """The tempered softmax, its normalisation found by bisection."""

    def power(x):
        return np.maximum(1 + (1 - t) * x, 0) ** (1 / (1 - t))

    low, high = logits.max(1, keepdims=True), logits.max(1, keepdims=True) + 1e4
    for _ in range(200):
        middle = (low + high) / 2
        is_over = power(logits - middle).sum(1, keepdims=True) > 1
        low, high = np.where(is_over, middle, low), np.where(is_over, high, middle)
    return power(logits - low)


def bi_tempered(z, y, t1, t2):
    p = tempered(z, t2)

    def log_t(x):
        return (np.maximum(x, 1e-300) ** (1 - t1) - 1) / (1 - t1)

    return (y * (log_t(y) - log_t(p)) - (y ** (2 - t1) - p ** (2 - t1)) / (2 - t1)).sum(1)


def cross_entropy(z, y):
    return -(y * log_softmax(z, 1)).sum(1)


def balanced_softmax(z, y, tau):
    rows = np.array([4, 2, 1, 1]) / 7
    return np.stack([-np.log(np.exp(a) * rows**tau / (np.exp(a) * rows**tau).sum()) for a in z] * y, 0).sum(1)


def class_balanced(z, y, beta):
    weights = (1 - beta) / (1 - beta ** np.array([4, 2, 1, 1]))
    return -(y * weights / weights.sum() * 4 * log_softmax(z, 1)).sum(1)


def asymmetric(z, y, negative, positive, clip):
    p = sigmoid(z)
    lower = np.maximum(p - clip, 0)
    return -(y * (1 - p) ** positive * np.log(p) + (1 - y) * lower**negative * np.log(1 - lower)).mean(1)


FORMULAS = [
    (FocalLoss(1.5), lambda z, y: -(y * (1 - softmax(z, 1)) ** 1.5 * log_softmax(z, 1)).sum(1), ClassificationHead),
    ("focal", lambda z, y: -(y * (1 - softmax(z, 1)) ** 2 * log_softmax(z, 1)).sum(1), ClassificationHead),
    ("kl", lambda z, y: entropy(y, softmax(z, 1), axis=1), ClassificationHead),
    (PolyLoss(-0.5), lambda z, y: cross_entropy(z, y) - 0.5 * (1 - (y * softmax(z, 1)).sum(1)), ClassificationHead),
    (BiTemperedLoss(0.5, 1.5), lambda z, y: bi_tempered(z, y, 0.5, 1.5), ClassificationHead),
    ("bi_tempered", lambda z, y: bi_tempered(z, y, 0.8, 1.2), ClassificationHead),
    (
        BiTemperedLoss(1.0, 1.0),
        lambda z, y: cross_entropy(z, y) + np.nansum(y * np.log(y + 1e-99), 1),
        ClassificationHead,
    ),
    (ClassBalancedLoss(0.9), lambda z, y: class_balanced(z, y, 0.9), ClassificationHead),
    (BalancedSoftmaxLoss(0.5), lambda z, y: balanced_softmax(z, y, 0.5), ClassificationHead),
    ("balanced_softmax", lambda z, y: balanced_softmax(z, y, 1), ClassificationHead),
    ("asymmetric", lambda z, y: asymmetric(z, y, 4, 1, 0.05), MultilabelHead),
    (AsymmetricLoss(2, 0, 0), lambda z, y: asymmetric(z, y, 2, 0, 0), MultilabelHead),
    (
        SigmoidPolyLoss(2),
        lambda z, y: (1.0 - (p := y * sigmoid(z) + (1 - y) * (1 - sigmoid(z))) - 0.5 * np.log(p)).mean(1) * 2,
        MultilabelHead,
    ),
]


@pytest.mark.parametrize(("loss", "formula", "head"), FORMULAS)
@pytest.mark.parametrize("is_soft", [False, True])
def test_a_loss_is_its_papers_formula(loss, formula, head, is_soft):
    if head is MultilabelHead:
        if is_soft:
            pytest.skip("the formulas are of hard labels")
        made, target, rows = head(8, 4, loss=loss), LABELS, LABELS
    else:
        made, target, rows = head(8, 4, loss=loss), SHARES if is_soft else ONE_HOT, CLASSES
    made.initialize(torch.tensor(rows).float() if head is MultilabelHead else torch.tensor(rows))
    found = row_losses(made, torch.tensor(LOGITS).float(), torch.tensor(target).float())
    np.testing.assert_allclose(found, formula(LOGITS, target), rtol=2e-4, atol=2e-5)


def test_focal_of_labels_is_torchvisions():
    logits, labels = torch.tensor(LOGITS).float(), torch.tensor(LABELS).float()
    expected = sigmoid_focal_loss(logits, labels, alpha=0.25, gamma=2).mean(1)
    torch.testing.assert_close(SigmoidFocalLoss(2, 0.25)(logits, labels), expected)
    torch.testing.assert_close(
        MultilabelHead(8, 4, loss="focal").loss(logits, labels), sigmoid_focal_loss(logits, labels, alpha=-1).mean(1)
    )


def test_losses_of_numbers_are_those_of_other_libraries():
    wanted = torch.tensor(NUMBERS).float()
    given = wanted + torch.tensor(RNG.normal(0, [30, 200], (7, 2))).float()

    def found(loss):
        head = RegressionHead(8, 2, loss=loss)
        head.initialize(wanted)
        return row_losses(head, head.encode(given), head.encode(wanted)).mean().item(), head

    units = (NUMBERS - NUMBERS.mean(0)) / NUMBERS.std(0), (given.double().numpy() - NUMBERS.mean(0)) / NUMBERS.std(0)
    r2 = r2_score(NUMBERS, given.double().numpy(), multioutput="variance_weighted")
    assert found("r2")[0] == pytest.approx(1 - r2, rel=1e-5)
    weights = NUMBERS.var(0) * [1, 3]
    each = r2_score(NUMBERS, given.double().numpy(), multioutput="raw_values")
    assert found(R2Loss([1, 3]))[0] == pytest.approx(1 - np.average(each, weights=weights), rel=1e-5)
    pearson = np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(units[0].T, units[1].T, strict=True)])
    squared = np.square(units[0] - units[1]).mean()
    assert found(PearsonLoss(0))[0] == pytest.approx(1 - pearson, rel=1e-5)
    assert found("pearson")[0] == pytest.approx(1 - pearson + 0.1 * squared, rel=1e-5)
    ccc = [
        2 * np.cov(a, b, bias=True)[0, 1] / (a.var() + b.var() + (a.mean() - b.mean()) ** 2)
        for a, b in zip(units[0].T, units[1].T, strict=True)
    ]
    assert found("concordance")[0] == pytest.approx(1 - np.mean(ccc), rel=1e-5)
    torch_units = [torch.tensor(unit).float() for unit in units]
    huber = functional.huber_loss(torch_units[1], torch_units[0], delta=0.3).item()
    assert found(HuberLoss(0.3))[0] == pytest.approx(huber, rel=1e-5)
    assert found("huber")[0] == pytest.approx(
        functional.smooth_l1_loss(torch_units[1], torch_units[0]).item(), rel=1e-5
    )
    _, head = found("r2")
    torch.testing.assert_close(decoded(head, head.encode(given)), given)  # in the table's units


ALL = [
    *((ClassificationHead, name, 4, torch.tensor(CLASSES)) for name in CLASS_LOSSES),
    (ClassificationHead, FocalLoss(0.5), 4, torch.tensor(CLASSES)),
    (ClassificationHead, BiTemperedLoss(0.2, 2.0), 4, torch.tensor(CLASSES)),
    *((MultilabelHead, name, 4, torch.tensor(LABELS).float()) for name in LABEL_LOSSES),
    (MultilabelHead, SigmoidFocalLoss(0.5), 4, torch.tensor(LABELS).float()),
    *((RegressionHead, name, 2, torch.tensor(NUMBERS).float()) for name in NUMBER_LOSSES if name != "bce"),
]
FURTHEST = 6e4  # of fp16


@pytest.mark.parametrize(("kind", "loss", "outputs", "target"), ALL)
def test_every_loss_is_finite_in_float32_whatever_the_logits(kind, loss, outputs, target):
    head = kind(8, outputs, loss=loss)
    head.initialize(target)
    encoded = encoded_targets(head, target, len(target))
    for scale in (0.0, 1e-30, 1.0, 100.0, FURTHEST):
        for sign in (1, -1):
            logits = (sign * scale * (2 * (encoded > 0).float() - 1)).requires_grad_()
            row_losses(head, logits, encoded).sum().backward()
            assert logits.grad.isfinite().all(), (scale, sign)
    half = torch.tensor(LOGITS[:, :outputs]).half()
    with torch.autocast("cpu", torch.bfloat16):
        found = row_losses(head, half, encoded)
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.detach(), row_losses(head, half.float(), encoded).detach(), rtol=1e-6)


@pytest.mark.parametrize(("kind", "loss", "outputs", "target"), ALL)
def test_every_loss_learns(kind, loss, outputs, target):
    """Descending from random weights ends where predictions are those of the targets, in their units."""
    torch.manual_seed(0)
    head = kind(8, outputs, loss=loss)
    head.initialize(target)
    features = torch.randn(len(target), 8)
    optimizer = torch.optim.Adam(head.parameters(), 0.2)
    for _ in range(120):
        optimizer.zero_grad()
        row_losses(head, head(features), head.encode(target)).mean().backward()
        optimizer.step()
    found = decoded(head.eval(), head(features)).detach()
    if kind is RegressionHead:
        torch.testing.assert_close(found, target, rtol=0.2, atol=5)
    else:
        is_right = (found.argmax(1) == target) if kind is ClassificationHead else ((found > 0.5) == (target > 0.5))
        assert is_right.all()
    if kind is ClassificationHead:
        torch.testing.assert_close(found.sum(1), torch.ones(len(found)))


@pytest.mark.parametrize(
    ("head", "target", "loss"),
    [
        *((ClassificationHead, CLASSES, name) for name in ("focal", "poly1", "class_balanced", "balanced_softmax")),
        (MultilabelHead, LABELS, "focal"),
        (RegressionHead, NUMBERS[:, :1].repeat(4, 1), "mse"),
    ],
)
def test_where_a_loss_is_linear_in_the_target_a_mixture_has_the_mixture_of_losses(head, target, loss):
    made, target = head(8, 4, loss=loss), torch.tensor(target)
    made.initialize(target)
    logits, a = torch.tensor(LOGITS).float(), made.encode(target)
    b = a.flip(0)
    if loss == "mse":
        assert not torch.allclose(made.loss(logits, (a + b) / 2), (made.loss(logits, a) + made.loss(logits, b)) / 2)
        return
    expected = 0.3 * made.loss(logits, a) + 0.7 * made.loss(logits, b)
    torch.testing.assert_close(made.loss(logits, 0.3 * a + 0.7 * b), expected)


def test_class_weights_balanced_are_scikit_learns_and_weigh_every_loss_that_takes_them():
    weights = compute_class_weight("balanced", classes=np.arange(3), y=CLASSES)
    logits, encoded = torch.tensor(LOGITS).float(), torch.tensor(ONE_HOT).float()
    for loss in ("cross_entropy", "focal", "kl", "poly1", "bi_tempered"):
        balanced, listed, plain = (
            ClassificationHead(8, 4, loss=loss, class_weights=given)
            for given in ("balanced", [*weights.tolist(), 1.0], None)
        )
        for head in (balanced, listed):
            assert head.learns_from_targets == (head is balanced)
            head.initialize(torch.tensor(CLASSES))
        found = balanced.loss(logits, encoded)
        torch.testing.assert_close(found, listed.loss(logits, encoded))
        torch.testing.assert_close(found, plain.loss(logits, encoded) * torch.tensor(weights).float()[CLASSES])
        again = ClassificationHead(8, 4, loss=loss, class_weights="balanced")
        again.load_state_dict(balanced.state_dict())
        assert torch.equal(again.loss(logits, encoded), found)


def test_pos_weight_balanced_is_negatives_over_positives():
    labels = torch.tensor([[1.0, 1, 0], [0, 1, 0], [0, 1, 0], [0, 1, 1]])
    head = MultilabelHead(8, 3, pos_weight="balanced")
    assert head.learns_from_targets
    assert not MultilabelHead(8, 3).learns_from_targets
    head.initialize(labels)
    assert head.weights.tolist() == [3, 0.25, 3]  # a label of all rows is still learnt
    logits = torch.tensor(LOGITS[:4, :3]).float()
    expected = functional.binary_cross_entropy_with_logits(logits, labels, pos_weight=head.weights)
    torch.testing.assert_close(head.loss(logits, labels).mean(), expected)
    again = MultilabelHead(8, 3, pos_weight="balanced")
    again.load_state_dict(head.state_dict())
    assert torch.equal(again.weights, head.weights)


def test_counts_travel_with_the_weights_and_come_from_the_rows_alone():
    for loss in ("class_balanced", "balanced_softmax"):
        head, again = ClassificationHead(8, 4, loss=loss), ClassificationHead(8, 4, loss=loss)
        assert head.learns_from_targets
        logits, encoded = torch.tensor(LOGITS).float(), torch.tensor(ONE_HOT).float()
        assert head.loss(logits, encoded).isnan().all()  # nobody has counted
        head.initialize(torch.tensor(CLASSES))
        again.load_state_dict(head.state_dict())
        assert torch.equal(again.loss(logits, encoded), head.loss(logits, encoded))
        soft = ClassificationHead(8, 4, loss=loss)
        soft.initialize(torch.tensor(ONE_HOT).float())  # shares are counted by their sums
        torch.testing.assert_close(soft.loss(logits, encoded), head.loss(logits, encoded))


def test_the_words_are_those_of_the_signatures_and_of_the_documentation():
    page = (ROOT / "docs" / "heads.md").read_text()
    for words, named in ((ClassLossName, CLASS_LOSSES), (LabelLossName, LABEL_LOSSES), (NumberLossName, NUMBER_LOSSES)):
        assert list(words.__args__) == list(named)
        for name, cls in named.items():
            assert f"`{name}`" in page
            if cls is not None:
                assert getattr(swinft, cls.__name__) is cls
                given = (
                    list(inspect.signature(cls.__init__).parameters.values())[1:]
                    if cls.__init__ in vars(cls).values()
                    else []
                )
                defaults = ", ".join(f"{each.name}={each.default}" for each in given)
                assert (
                    f"`{cls.__name__}({defaults})`".replace(".0)", ")").replace(".0,", ",").replace("None", "null")
                    in page
                )
    assert all(f"| `{name}` |" in page for name in PoolingName.__args__)


def test_a_bi_tempered_softmax_says_how_it_decodes():
    head = ClassificationHead(8, 4, loss="bi_tempered")
    np.testing.assert_allclose(head.decode(torch.tensor(LOGITS).float()), tempered(LOGITS, 1.2), rtol=1e-4, atol=1e-6)
    assert head.decode_rule() == {"rule": "tempered softmax", "t": 1.2}
    plain = ClassificationHead(8, 4, loss=BiTemperedLoss(0.5, 1.0))
    assert plain.decode_rule() == {"rule": "softmax"}
    np.testing.assert_allclose(plain.decode(torch.tensor(LOGITS).float()), softmax(LOGITS, 1), rtol=1e-5)


@pytest.mark.parametrize("head", [ClassificationHead, MultilabelHead, RegressionHead])
def test_several_masks_of_dropout_are_a_mean_in_training_and_nothing_in_evaluation(head):
    features = torch.ones(1, 4000)
    spread = {}
    for samples in (1, 16):
        torch.manual_seed(0)
        made = head(4000, 2, dropout=0.5, dropout_samples=samples)
        torch.nn.init.ones_(made.linear.weight)
        logits = torch.cat([made(features) for _ in range(200)])
        spread[samples] = logits.std().item()
        assert logits.mean().item() == pytest.approx(4000, rel=0.01)
        assert made.eval()(features).tolist() == [[4000, 4000]]
    assert spread[1] / spread[16] == pytest.approx(4, rel=0.2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ClassificationHead(8, 3, loss=SigmoidFocalLoss()),
            "SigmoidFocalLoss, which is for multilabel; for cla",
        ),
        (lambda: MultilabelHead(8, 3, loss=FocalLoss()), "FocalLoss, which is for classification; for multilabel"),
        (lambda: RegressionHead(8, 3, loss=FocalLoss()), "FocalLoss, which is for classification; for regression"),
        (lambda: ClassificationHead(8, 3, loss="focl"), "loss is 'focl'; .* Did you mean 'focal'"),
        (lambda: ClassificationHead(8, 3, class_weights="balancd"), "class_weights is 'balancd'; it must be balanced"),
        (
            lambda: ClassificationHead(8, 3, class_weights="balanced", loss="class_balanced"),
            "loss is ClassBalancedLoss",
        ),
        (lambda: MultilabelHead(8, 3, pos_weight="balanced", loss="focal"), "loss is SigmoidFocalLoss"),
        (lambda: ClassificationHead(8, 3, dropout_samples=4), "dropout_samples is 4, and dropout is 0: set dropout"),
        (lambda: ClassificationHead(8, 3, dropout=0.1, dropout_samples=0), "dropout_samples is 0. Allowed: a whole"),
        (lambda: FocalLoss(-1), "FocalLoss.gamma is -1. Allowed: a number from 0"),
        (lambda: BiTemperedLoss(0.5, 0.5), "BiTemperedLoss.t2 is 0.5. Allowed: a number from 1 to 4"),
        (lambda: ClassBalancedLoss(1.0), "ClassBalancedLoss.beta is 1.0. Allowed"),
        (lambda: AsymmetricLoss(gamma_neg=0.5), "gamma_neg is 0.5. Allowed: 0, or a number from 1"),
        (lambda: HuberLoss(0), "HuberLoss.delta is 0. Allowed: a number above 0"),
        (lambda: RegressionHead(8, 3, loss=R2Loss([1, 2])), "R2Loss: weights has 2 values .* it needs 3"),
    ],
)
def test_wrong_arguments_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("loss", ["pearson", "concordance"])
def test_a_loss_that_compares_rows_refuses_batches_of_one(loss):
    head = RegressionHead(8, 1, loss=loss)
    numbers = torch.tensor(NUMBERS[:, :1]).float()
    head.initialize(numbers)
    with pytest.raises(InputError, match=r"compares the rows of a batch, and there is one: set data.batch_size to 2"):
        head.loss(torch.zeros(1, 1), numbers[:1])
    assert head.eval().loss(torch.zeros(1, 1), numbers[:1]).isfinite().all()  # the last batch of an evaluation
