"""Built-in losses for standardised numbers, besides those that torch has.

Shapes: B batch, N training rows, K outputs.
"""

import torch
from torch import Tensor
from torch.nn import functional

from swinft.errors import InputError
from swinft.model.heads.base import checked_weights
from swinft.model.heads.loss import Loss
from swinft.ranges import NOT_NEGATIVE, POSITIVE, check_ranges

TINY = 1e-8  # keeps quotients finite if all numbers are the same


class NumberLoss(Loss):
    """A loss of standardised numbers."""

    kinds = ("regression",)


class HuberLoss(NumberLoss):
    """Squared error up to `delta`, absolute error beyond it; with `delta` 1 the same as `smooth_l1`.

    Args:
        delta: Above 0, in standard deviations of the training targets.
    """

    is_per_target = True

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__()
        check_ranges("HuberLoss", {"delta": delta}, {"delta": POSITIVE})
        self.delta = delta

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,)."""
        return functional.huber_loss(logits, target, reduction="none", delta=self.delta).mean(1)


class R2Loss(NumberLoss):
    """One minus R² of all target columns together: squared errors over the variances of the training rows.

    Columns count by their variance in the competition's units, as in a metric that pools the columns. The mean over all
    training rows is 1 − R². With one column, or columns of equal variance, it is the same as `mse`.

    Args:
        weights: Weight of each target column, 0 or more; None for 1.
    """

    shares: Tensor

    def __init__(self, weights: list[float] | None = None) -> None:
        super().__init__()
        self.weights = weights

    def prepare(self, num_outputs: int) -> None:
        """Registers the factors of the K columns, NaN until `initialize`."""
        self.weighting = checked_weights("R2Loss: weights", self.weights, num_outputs).double()
        self.register_buffer("shares", torch.full((num_outputs,), torch.nan))

    @torch.no_grad()
    def initialize(self, target: Tensor) -> None:
        """Computes the factors, the fraction of each column in the weighted variance.

        Raises:
            InputError: No column with a weight varies.
        """
        exact = target.cpu().double()
        variances = (exact - exact.nanmean(0)).square().nanmean(0) * self.weighting
        if not variances.sum() > 0:
            raise InputError("R2Loss: no target column with a weight above 0 varies, so R² is not defined.")
        self.shares.copy_(variances / variances.sum())

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,)."""
        return ((logits - target).square() * self.shares).sum(1)


class BatchLoss(NumberLoss):
    """A loss that compares the rows of a batch with each other, so it depends on the batch size and the devices."""

    is_per_target = True
    compares_rows = True

    def centred(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Logits and targets minus their means over the batch.

        Raises:
            InputError: It is trained with batches of one row, from which nothing would be learnt.
        """
        if self.training and len(logits) < 2:
            raise InputError(
                f"{type(self).__name__} compares the rows of a batch, and there is one: set data.batch_size to 2 or "
                f"more."
            )
        return logits - logits.mean(0), target - target.mean(0)


class PearsonLoss(BatchLoss):
    """One minus Pearson's correlation within the batch, plus a fraction of the squared error.

    The correlation does not depend on the scale of predictions; the squared error keeps them in the target's units.

    Args:
        mse: Factor of the squared error, 0 or more. With 0, predictions have an arbitrary scale: only for metrics that
            are correlations.
    """

    def __init__(self, mse: float = 0.1) -> None:
        super().__init__()
        check_ranges("PearsonLoss", {"mse": mse}, {"mse": NOT_NEGATIVE})
        self.mse = mse

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,); their mean is the loss of the batch."""
        given, wanted = self.centred(logits, target)
        lengths = ((given.square().sum(0) + TINY) * (wanted.square().sum(0) + TINY)).sqrt()
        agreement = len(logits) * given * wanted / lengths
        return (1 - agreement + self.mse * (logits - target).square()).mean(1)


class ConcordanceLoss(BatchLoss):
    """One minus Lin's concordance correlation within the batch, which depends on scale and mean, too."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,); their mean is the loss of the batch."""
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
