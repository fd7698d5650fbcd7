"""Built-in losses for any number of labels, besides binary cross-entropy.

Targets are 0 or 1, or in between if they are mixed or soft. The loss of a row is the mean over its labels.

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
    """A loss of sigmoid probabilities."""

    kinds = ("multilabel",)
    is_per_target = True


class SigmoidFocalLoss(LabelLoss):
    """Binary cross-entropy with less weight on labels that are already predicted well (arXiv 1708.02002).

    Args:
        gamma: Exponent of the weight, 0 or more; 0 is binary cross-entropy.
        alpha: Weight of positive labels, in 0–1; negative ones have 1 − alpha. None for weight 1 of both.
    """

    def __init__(self, gamma: float = 2.0, alpha: float | None = None) -> None:
        super().__init__()
        check_ranges("SigmoidFocalLoss", {"gamma": gamma, "alpha": alpha}, {"gamma": NOT_NEGATIVE, "alpha": UNIT})
        self.gamma, self.alpha = gamma, alpha

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,)."""
        # (1 − p)^γ as exp(γ log(1 − p)), whose gradient is finite at p = 1.
        positive = -functional.logsigmoid(logits) * (self.gamma * functional.logsigmoid(-logits)).exp()
        negative = -functional.logsigmoid(-logits) * (self.gamma * functional.logsigmoid(logits)).exp()
        weights = (1.0, 1.0) if self.alpha is None else (self.alpha, 1 - self.alpha)
        return (weights[0] * target * positive + weights[1] * (1 - target) * negative).mean(1)


class AsymmetricLoss(LabelLoss):
    """Focal loss with different exponents for positive and negative labels (arXiv 2009.14119), by timm.

    Args:
        gamma_neg: Exponent for negative labels: 0, or 1 or more.
        gamma_pos: Exponent for positive labels: 0, or 1 or more.
        clip: Negative labels with a probability below it have loss 0; in [0, 1).
    """

    def __init__(self, gamma_neg: float = 4.0, gamma_pos: float = 1.0, clip: float = 0.05) -> None:
        super().__init__()
        numbers = {"gamma_neg": gamma_neg, "gamma_pos": gamma_pos, "clip": clip}
        ranges = {"gamma_neg": NOT_NEGATIVE, "gamma_pos": NOT_NEGATIVE, "clip": BELOW_ONE}
        check_ranges("AsymmetricLoss", numbers, ranges)
        for name in ("gamma_neg", "gamma_pos"):
            if 0 < numbers[name] < 1:  # the gradient is infinite at probability 0 or 1
                raise InputError(f"AsymmetricLoss: {name} is {numbers[name]}. Allowed: 0, or a number from 1.")
        self.asymmetric = AsymmetricLossMultiLabel(gamma_neg, gamma_pos, clip, reduction="none")

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,)."""
        losses: Tensor = self.asymmetric(logits, target)
        return losses.mean(1)


class SigmoidPolyLoss(LabelLoss):
    """Poly-1: binary cross-entropy plus `epsilon` times one minus the target's probability, by timm.

    Args:
        epsilon: As in `PolyLoss`.
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
