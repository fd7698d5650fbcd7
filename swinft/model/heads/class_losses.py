"""Losses of one class of several: what may stand in the place of cross-entropy.

Targets are rows that sum to 1: one-hot, smoothed, mixed by mixup and cutmix, or shares. Where a loss knows the classes'
sizes, these are of the rows that the fold trains on.

Shapes: B batch, N training rows, K outputs.
"""

import torch
from timm.loss.class_weights import compute_class_weights
from timm.loss.poly_loss import PolyCrossEntropy
from torch import Tensor
from torch.nn import functional

from swinft.model.heads.loss import Loss, class_counts
from swinft.ranges import FINITE, INSIDE_UNIT, NOT_NEGATIVE, UNIT, Range, check_ranges

SMALLEST = 1e-30  # a probability below it has no gradient: its negative powers would overflow float32
ITERATIONS = 40  # of the tempered softmax: for logits up to 1,000 the sum is then 1 to 1e-4


class ClassLoss(Loss):
    """A loss of softmax's probabilities."""

    kinds = ("classification",)


class FocalLoss(ClassLoss):
    """Cross-entropy in which rows that are already right count less (arXiv 1708.02002).

    Args:
        gamma: How much less, 0 or more; 0 is cross-entropy.
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
    """Kullback-Leibler divergence of the predicted shares from the target's: for votes and other soft targets.

    Its gradient is cross-entropy's; its value is 0 where shares are met exactly.
    """

    takes_weights = True

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,)."""
        return functional.kl_div(logits.log_softmax(1), target, reduction="none").sum(1)


class PolyLoss(ClassLoss):
    """Poly-1: cross-entropy plus `epsilon` times the probability that is not the target's (arXiv 2204.12511), by timm.

    Args:
        epsilon: Above 0, rows that are nearly right count more; below 0 less; 0 is cross-entropy.
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
    """Cross-entropy weighted by the effective number of rows of each class (arXiv 1901.05555); focal where asked for.

    Args:
        beta: In (0, 1): towards 1 the weights become one over the rows, towards 0 all are 1.
        gamma: As of `FocalLoss`.
    """

    weights: Tensor

    def __init__(self, beta: float = 0.999, gamma: float = 0.0) -> None:
        super().__init__()
        check_ranges("ClassBalancedLoss", {"beta": beta}, {"beta": INSIDE_UNIT})
        self.beta, self.focal = beta, FocalLoss(gamma)

    def prepare(self, num_outputs: int) -> None:
        """K weights, which no row has set yet."""
        self.register_buffer("weights", torch.full((num_outputs,), torch.nan))

    @torch.no_grad()
    def initialize(self, target: Tensor) -> None:
        """Weighs the classes; their mean weight is 1."""
        counts = class_counts(target, len(self.weights))
        self.weights.copy_(compute_class_weights(counts, len(target), "effective_num", beta=self.beta)[1])

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,)."""
        losses: Tensor = self.focal(logits, target * self.weights)
        return losses


class BalancedSoftmaxLoss(ClassLoss):
    """Cross-entropy of logits to which the log of each class's share is added in training (arXiv 2007.10740).

    Predictions are the softmax without it: those of a table in which all classes have the same number of rows.

    Args:
        tau: Factor on the log of the share (logit adjustment, arXiv 2007.07314); 0 is cross-entropy.
    """

    log_prior: Tensor

    def __init__(self, tau: float = 1.0) -> None:
        super().__init__()
        check_ranges("BalancedSoftmaxLoss", {"tau": tau}, {"tau": NOT_NEGATIVE})
        self.tau = tau

    def prepare(self, num_outputs: int) -> None:
        """K numbers, which no row has set yet."""
        self.register_buffer("log_prior", torch.full((num_outputs,), torch.nan))

    @torch.no_grad()
    def initialize(self, target: Tensor) -> None:
        """Counts the classes; one without a row counts as one with one row."""
        self.log_prior.copy_((class_counts(target, len(self.log_prior)).clamp(min=1) / len(target)).log())

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,)."""
        return -(target * (logits + self.tau * self.log_prior).log_softmax(1)).sum(1)


class BiTemperedLoss(ClassLoss):
    """Logistic loss with two temperatures, for labels that are partly wrong (arXiv 1906.03361).

    Its probabilities have heavier tails than a softmax, and predictions are these.

    Args:
        t1: Of the logarithm, from 0 to 1: the lower, the less a row that is far off counts at most.
        t2: Of the softmax, 1 or more: the higher, the heavier its tails. With 1 and 1 it is cross-entropy.
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
        """Probabilities (B, K): exp_t of the logits less what makes their sum 1."""
        if self.t2 == 1:
            return logits.softmax(1)
        with torch.no_grad():
            norm = self._norm(logits)
            weights = self._exp(logits - norm).pow(self.t2)  # of the logits in the gradient of the norm
            weights = weights / weights.sum(1, keepdim=True)
        if logits.requires_grad:
            norm = norm + (weights * (logits - logits.detach())).sum(1, keepdim=True)
        return self._exp(logits - norm)

    def _norm(self, logits: Tensor) -> Tensor:
        """(B, 1), by the paper's fixed point."""
        largest = logits.amax(1, keepdim=True)
        shifted = start = logits - largest
        for _ in range(ITERATIONS):
            shifted = start * self._exp(shifted).sum(1, keepdim=True).pow(1 - self.t2)
        total = self._exp(shifted).sum(1, keepdim=True)
        return largest + (total.pow(self.t2 - 1) - 1) / (self.t2 - 1)

    def _exp(self, values: Tensor) -> Tensor:
        """exp_t of values below 0."""
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
