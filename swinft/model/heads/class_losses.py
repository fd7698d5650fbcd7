"""Built-in losses for one of K classes, besides cross-entropy.

Targets are rows that sum to 1: one-hot, smoothed, mixed by mixup and cutmix, or soft. Losses that depend on the class
sizes count the fold's training rows only.

Shapes: B batch, N training rows, K outputs.
"""

import torch
from timm.loss.class_weights import compute_class_weights
from timm.loss.poly_loss import PolyCrossEntropy
from torch import Tensor
from torch.nn import functional

from swinft.model.heads.loss import Loss, class_counts
from swinft.ranges import FINITE, INSIDE_UNIT, NOT_NEGATIVE, UNIT, Range, check_ranges

SMALLEST = 1e-30  # lower bound of probabilities: negative powers of smaller ones overflow float32
ITERATIONS = 40  # of the tempered softmax: its sum is then within 1e-4 of 1 for logits up to 1,000


class ClassLoss(Loss):
    """A loss of softmax probabilities."""

    kinds = ("classification",)


class FocalLoss(ClassLoss):
    """Cross-entropy with less weight on rows that are already predicted well (arXiv 1708.02002).

    Args:
        gamma: Exponent of the weight, 0 or more; 0 is cross-entropy.
    """

    takes_weights = True

    def __init__(self, gamma: float = 2.0) -> None:
        super().__init__()
        check_ranges("FocalLoss", {"gamma": gamma}, {"gamma": NOT_NEGATIVE})
        self.gamma = gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,)."""
        log_p = logits.log_softmax(1)
        others = -torch.expm1(log_p)
        return -(target * others.clamp(min=SMALLEST).pow(self.gamma) * log_p).sum(1)


class KLLoss(ClassLoss):
    """Kullback-Leibler divergence between soft targets, such as shares of votes, and predictions.

    Its gradient is that of cross-entropy; its value is 0 if predictions equal the targets.
    """

    takes_weights = True

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,)."""
        return functional.kl_div(logits.log_softmax(1), target, reduction="none").sum(1)


class PolyLoss(ClassLoss):
    """Poly-1 (arXiv 2204.12511): cross-entropy plus `epsilon` times one minus the target's probability, by timm.

    Args:
        epsilon: Above 0, rows that are predicted well count more; below 0, less; 0 is cross-entropy.
    """

    takes_weights = True

    def __init__(self, epsilon: float = 1.0) -> None:
        super().__init__()
        check_ranges("PolyLoss", {"epsilon": epsilon}, {"epsilon": FINITE})
        self.poly = PolyCrossEntropy(epsilon, reduction="none")

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,)."""
        losses: Tensor = self.poly(logits, target)
        return losses


class ClassBalancedLoss(ClassLoss):
    """Cross-entropy weighted by the effective number of rows of each class (arXiv 1901.05555).

    Args:
        beta: In (0, 1): near 1 the weights are inversely proportional to the rows, near 0 they are equal.
        gamma: As in `FocalLoss`.
    """

    weights: Tensor

    def __init__(self, beta: float = 0.999, gamma: float = 0.0) -> None:
        super().__init__()
        check_ranges("ClassBalancedLoss", {"beta": beta}, {"beta": INSIDE_UNIT})
        self.beta, self.focal = beta, FocalLoss(gamma)

    def prepare(self, num_outputs: int) -> None:
        """Registers the K weights, NaN until `initialize`."""
        self.register_buffer("weights", torch.full((num_outputs,), torch.nan))

    @torch.no_grad()
    def initialize(self, target: Tensor) -> None:
        """Computes the weights of the classes, with mean 1."""
        counts = class_counts(target, len(self.weights))
        self.weights.copy_(compute_class_weights(counts, len(target), "effective_num", beta=self.beta)[1])

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,)."""
        losses: Tensor = self.focal(logits, target * self.weights)
        return losses


class BalancedSoftmaxLoss(ClassLoss):
    """Cross-entropy of the logits plus the log prior of each class (arXiv 2007.10740).

    Predictions are the softmax without the prior, as if all classes had the same number of rows.

    Args:
        tau: Factor on the log prior (logit adjustment, arXiv 2007.07314), 0 or more; 0 is cross-entropy.
    """

    log_prior: Tensor

    def __init__(self, tau: float = 1.0) -> None:
        super().__init__()
        check_ranges("BalancedSoftmaxLoss", {"tau": tau}, {"tau": NOT_NEGATIVE})
        self.tau = tau

    def prepare(self, num_outputs: int) -> None:
        """Registers the K log priors, NaN until `initialize`."""
        self.register_buffer("log_prior", torch.full((num_outputs,), torch.nan))

    @torch.no_grad()
    def initialize(self, target: Tensor) -> None:
        """Computes the log priors; a class without rows counts as having one."""
        self.log_prior.copy_((class_counts(target, len(self.log_prior)).clamp(min=1) / len(target)).log())

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,)."""
        return -(target * (logits + self.tau * self.log_prior).log_softmax(1)).sum(1)


class BiTemperedLoss(ClassLoss):
    """Bi-tempered logistic loss, for partly wrong labels (arXiv 1906.03361).

    Predictions are its probabilities, a softmax with heavier tails.

    Args:
        t1: Temperature of the logarithm, from 0 to 1: the lower, the lower the loss of outliers is bounded.
        t2: Temperature of the softmax, from 1 to 4: the higher, the heavier its tails. With 1 and 1, the loss is
            cross-entropy.
    """

    takes_weights = True

    def __init__(self, t1: float = 0.8, t2: float = 1.2) -> None:
        super().__init__()
        check_ranges("BiTemperedLoss", {"t1": t1, "t2": t2}, {"t1": UNIT, "t2": Range(1, 4)})
        self.t1, self.t2 = t1, t2

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,)."""
        found = self._tempered(logits).clamp(min=SMALLEST)
        if self.t1 == 1:
            return (torch.xlogy(target, target) - target * found.log() - target + found).sum(1)
        low, high = 1 - self.t1, 2 - self.t1
        logarithms = (target.pow(low) - found.pow(low)) / low
        return (target * logarithms - (target.pow(high) - found.pow(high)) / high).sum(1)

    def probabilities(self, logits: Tensor) -> Tensor | None:
        """The tempered softmax."""
        if self.t2 == 1:
            return None
        found = self._tempered(logits)
        return found / found.sum(1, keepdim=True)

    def decode_rule(self) -> dict[str, object] | None:
        """A tempered softmax."""
        return None if self.t2 == 1 else {"rule": "tempered softmax", "t": self.t2}

    def _tempered(self, logits: Tensor) -> Tensor:
        """Probabilities (B, K): exp_t of the logits minus the normalisation."""
        if self.t2 == 1:
            return logits.softmax(1)
        with torch.no_grad():
            norm = self._norm(logits)
            weights = self._exp(logits - norm).pow(self.t2)  # the gradient of the normalisation
            weights = weights / weights.sum(1, keepdim=True)
        if logits.requires_grad:
            norm = norm + (weights * (logits - logits.detach())).sum(1, keepdim=True)
        return self._exp(logits - norm)

    def _norm(self, logits: Tensor) -> Tensor:
        """The normalisation (B, 1), by the paper's fixed-point iteration."""
        largest = logits.amax(1, keepdim=True)
        shifted = start = logits - largest
        for _ in range(ITERATIONS):
            shifted = start * self._exp(shifted).sum(1, keepdim=True).pow(1 - self.t2)
        total = self._exp(shifted).sum(1, keepdim=True)
        return largest + (total.pow(self.t2 - 1) - 1) / (self.t2 - 1)

    def _exp(self, values: Tensor) -> Tensor:
        """exp_t of values of 0 or less."""
        return (1 + (1 - self.t2) * values).clamp(min=1e-6).pow(1 / (1 - self.t2))


CLASS_LOSSES: dict[str, type[Loss] | None] = {
    "cross_entropy": None,  # the head computes it
    "focal": FocalLoss,
    "kl": KLLoss,
    "poly1": PolyLoss,
    "class_balanced": ClassBalancedLoss,
    "balanced_softmax": BalancedSoftmaxLoss,
    "bi_tempered": BiTemperedLoss,
}
