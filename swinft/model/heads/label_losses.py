"""Losses of any number of labels: what may stand in the place of binary cross-entropy.

Targets are 0, 1 or, mixed, in between; the loss of a row is the mean over its labels.

Shapes: B batch, K outputs.
"""

from timm.loss.asymmetric_loss import AsymmetricLossMultiLabel
from timm.loss.poly_loss import PolyBinaryCrossEntropy
from torch import Tensor
from torch.nn import functional

from swinft.errors import InputError
from swinft.model.heads.loss import Loss
from swinft.ranges import BELOW_ONE, FINITE, NOT_NEGATIVE, UNIT, check_ranges


class LabelLoss(Loss):
    """A loss of the sigmoids' probabilities."""

    kinds = ("multilabel",)


class SigmoidFocalLoss(LabelLoss):
    """Binary cross-entropy in which labels that are already right count less (arXiv 1708.02002).

    Args:
        gamma: How much less, 0 or more; 0 is binary cross-entropy.
        alpha: Weight of positives, in 0–1, where negatives have 1 − alpha; None for the same weight, 1.
    """

    def __init__(self, gamma: float = 2.0, alpha: float | None = None) -> None:
        super().__init__()
        check_ranges("SigmoidFocalLoss", {"gamma": gamma, "alpha": alpha}, {"gamma": NOT_NEGATIVE, "alpha": UNIT})
        self.gamma, self.alpha = gamma, alpha

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,)."""
        # (1 − p)^γ as exp(γ log(1 − p)): its gradient is finite where p is 1.
        positive = -functional.logsigmoid(logits) * (self.gamma * functional.logsigmoid(-logits)).exp()
        negative = -functional.logsigmoid(-logits) * (self.gamma * functional.logsigmoid(logits)).exp()
        weights = (1.0, 1.0) if self.alpha is None else (self.alpha, 1 - self.alpha)
        return (weights[0] * target * positive + weights[1] * (1 - target) * negative).mean(1)


class AsymmetricLoss(LabelLoss):
    """Focal loss with another exponent for positives, which are rare, than for negatives (arXiv 2009.14119), by timm.

    Args:
        gamma_neg: Exponent of negatives: 0, or 1 or more.
        gamma_pos: Exponent of positives: 0, or 1 or more.
        clip: Negatives of a probability below it do not count, in [0, 1).
    """

    def __init__(self, gamma_neg: float = 4.0, gamma_pos: float = 1.0, clip: float = 0.05) -> None:
        super().__init__()
        numbers = {"gamma_neg": gamma_neg, "gamma_pos": gamma_pos, "clip": clip}
        ranges = {"gamma_neg": NOT_NEGATIVE, "gamma_pos": NOT_NEGATIVE, "clip": BELOW_ONE}
        check_ranges("AsymmetricLoss", numbers, ranges)
        for name in ("gamma_neg", "gamma_pos"):
            if 0 < numbers[name] < 1:  # the gradient is infinite where the probability is exact
                raise InputError(f"AsymmetricLoss: {name} is {numbers[name]}. Allowed: 0, or a number from 1.")
        self.asymmetric = AsymmetricLossMultiLabel(gamma_neg, gamma_pos, clip, reduction="none")

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,)."""
        losses: Tensor = self.asymmetric(logits, target)
        return losses.mean(1)


class SigmoidPolyLoss(LabelLoss):
    """Poly-1: binary cross-entropy plus `epsilon` times the probability that is not the target's, by timm.

    Args:
        epsilon: As of `PolyLoss`.
    """

    def __init__(self, epsilon: float = 1.0) -> None:
        super().__init__()
        check_ranges("SigmoidPolyLoss", {"epsilon": epsilon}, {"epsilon": FINITE})
        self.poly = PolyBinaryCrossEntropy(epsilon, reduction="none")

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,)."""
        losses: Tensor = self.poly(logits, target)
        return losses.mean(1)


LABEL_LOSSES: dict[str, type[Loss] | None] = {
    "bce": None,  # the head computes it
    "focal": SigmoidFocalLoss,
    "asymmetric": AsymmetricLoss,
    "poly1": SigmoidPolyLoss,
}
