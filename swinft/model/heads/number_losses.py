"""Losses of numbers: what may stand in the place of the squared error. Logits and targets are standardised numbers.

Shapes: B batch, N training rows, K outputs.
"""

import torch
from torch import Tensor
from torch.nn import functional

from swinft.errors import InputError
from swinft.model.heads.base import checked_weights
from swinft.model.heads.loss import Loss
from swinft.ranges import NOT_NEGATIVE, POSITIVE, check_ranges

TINY = 1e-8  # keeps quotients of numbers finite that are all the same


class NumberLoss(Loss):
    """A loss of standardised numbers."""

    kinds = ("regression",)


class HuberLoss(NumberLoss):
    """Squared error near the target, absolute error beyond `delta`; with `delta` 1 the same as `smooth_l1`.

    Args:
        delta: Above 0, in standard deviations of the training targets.
    """

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__()
        check_ranges("HuberLoss", {"delta": delta}, {"delta": POSITIVE})
        self.delta = delta

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,)."""
        return functional.huber_loss(logits, target, reduction="none", delta=self.delta).mean(1)


class R2Loss(NumberLoss):
    """One minus R², of all target columns together: their squared errors over their variances among the training rows.

    A column counts by its variance in the table's units, as in a metric that pools the columns. The mean over all rows
    is 1 − R², whatever the batches are. With one column, or columns of one variance, it is `mse`.

    Args:
        weights: Weight of each target column; None for 1.
    """

    shares: Tensor

    def __init__(self, weights: list[float] | None = None) -> None:
        super().__init__()
        self.weights = weights

    def prepare(self, num_outputs: int) -> None:
        """The K columns' shares of the weighted variance, which no row has set yet."""
        self.weighting = checked_weights("R2Loss: weights", self.weights, num_outputs).double()
        self.register_buffer("shares", torch.full((num_outputs,), torch.nan))

    @torch.no_grad()
    def initialize(self, target: Tensor) -> None:
        """Weighs the columns by their variances."""
        exact = target.cpu().double()
        variances = (exact - exact.nanmean(0)).square().nanmean(0) * self.weighting
        if not variances.sum() > 0:
            raise InputError("R2Loss: no target column with a weight above 0 varies, so that R² is not defined.")
        self.shares.copy_(variances / variances.sum())

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,)."""
        return ((logits - target).square() * self.shares).sum(1)


class BatchLoss(NumberLoss):
    """A loss that compares a batch's rows with one another: its value depends on which they are.

    With several devices each compares the rows of its own batch.
    """

    def centred(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Both less their means over the batch.

        Raises:
            InputError: It is trained in batches of one row, of which nothing would be learnt.
        """
        if self.training and len(logits) < 2:
            raise InputError(
                f"{type(self).__name__} compares the rows of a batch, and there is one: set data.batch_size to 2 or "
                f"more; 16 or more is better."
            )
        return logits - logits.mean(0), target - target.mean(0)


class PearsonLoss(BatchLoss):
    """One minus Pearson's correlation over the batch, and a share of the squared error.

    The correlation says nothing of the predictions' unit; the squared error keeps them in the target's.

    Args:
        mse: Factor on the squared error, 0 or more. With 0 predictions have no unit: only for metrics of correlation.
    """

    def __init__(self, mse: float = 0.1) -> None:
        super().__init__()
        check_ranges("PearsonLoss", {"mse": mse}, {"mse": NOT_NEGATIVE})
        self.mse = mse

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,), whose mean is that of the batch."""
        given, wanted = self.centred(logits, target)
        lengths = ((given.square().sum(0) + TINY) * (wanted.square().sum(0) + TINY)).sqrt()
        agreement = len(logits) * given * wanted / lengths
        return (1 - agreement + self.mse * (logits - target).square()).mean(1)


class ConcordanceLoss(BatchLoss):
    """One minus Lin's concordance correlation over the batch, which also asks for the target's mean and spread."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,), whose mean is that of the batch."""
        given, wanted = self.centred(logits, target)
        spread = given.square().mean(0) + wanted.square().mean(0) + (logits.mean(0) - target.mean(0)).square()
        return (1 - 2 * given * wanted / (spread + TINY)).mean(1)


NUMBER_LOSSES: dict[str, type[Loss] | None] = {
    "mse": None,  # these four the head computes
    "l1": None,
    "smooth_l1": None,
    "bce": None,
    "huber": HuberLoss,
    "r2": R2Loss,
    "pearson": PearsonLoss,
    "concordance": ConcordanceLoss,
}
