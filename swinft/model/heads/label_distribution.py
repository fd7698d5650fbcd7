"""Head for numbers that are learnt as distributions over a grid of values.

Shapes: B batch, N training rows, D features, K outputs, V values of the grid.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from swinft.errors import InputError
from swinft.model.heads.base import FeatureDropout, Head, check_equal_shapes
from swinft.model.heads.regression import check_inside
from swinft.ranges import FINITE, POSITIVE, Range, check_ranges

SIGMAS = 3  # by which the grid exceeds both ends: truncated distributions would shift predictions inwards
ROWS = 4096  # training rows whose distributions are in memory at the same time


class LabelDistributionHead(Head):
    """Predicts numbers: softmax over a grid of values, trained on normal distributions around the targets.

    Predictions are the means of the distributions (arXiv 1611.01731), clipped to [low, high].

    Args:
        in_features: D, given by the backbone.
        num_outputs: K, given by the target columns.
        low: Smallest possible value, in the target's units.
        high: Largest possible value.
        bins: Number of values from low to high, 2 or more; the grid exceeds both ends by some more.
        sigma: Standard deviation of the distributions, in the target's units, at least half of the distance of two
            values of the grid; None for twice this distance.
        dropout: Probability of dropping a feature, in [0, 1).
        dropout_samples: Number of dropout masks per step; the logits are averaged over them.
    """

    kind = "regression"
    default_metrics: ClassVar[list[str]] = ["rmse", "mae", "r2"]

    values: Tensor

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        low: float,
        high: float,
        bins: int = 101,
        sigma: float | None = None,
        dropout: float = 0.0,
        dropout_samples: int = 1,
    ) -> None:
        super().__init__(in_features, num_outputs)
        numbers = {"low": low, "high": high, "bins": bins, "sigma": sigma}
        ranges = {"low": FINITE, "high": FINITE, "bins": Range(2, 10_000), "sigma": POSITIVE}
        check_ranges("LabelDistributionHead", numbers, ranges)
        if low >= high:
            raise InputError(f"LabelDistributionHead: low={low} must be below high={high}.")
        step = (high - low) / (bins - 1)
        self.low, self.high, self.sigma = low, high, 2 * step if sigma is None else sigma
        if self.sigma < step / 2:
            least = math.ceil((high - low) / (2 * self.sigma)) + 1
            raise InputError(
                f"LabelDistributionHead: sigma={sigma} is below {step / 2:g}, half of the distance of two "
                f"values of the grid, so targets would be rounded. Set bins to {least} or more, or sigma to "
                f"{step / 2:g} or more."
            )
        beyond = math.ceil(SIGMAS * self.sigma / step)
        values = low + step * torch.arange(-beyond, bins + beyond, dtype=torch.float64)
        self.register_buffer("values", values.float(), persistent=False)
        self.dropout = FeatureDropout(dropout, dropout_samples)
        self.linear = nn.Linear(in_features, num_outputs * len(values))
        nn.init.trunc_normal_(self.linear.weight, std=0.02)  # small, as of a linear head
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, K, V)."""
        logits: Tensor = self.linear(self.dropout(features))
        return logits.reshape(-1, self.num_outputs, len(self.values))

    def encode(self, target: Tensor) -> Tensor:
        """Numbers (B, K) to distributions (B, K, V)."""
        distance = (self.values - target.float()[..., None]) / self.sigma
        return (-distance.square() / 2).softmax(-1)

    @torch.no_grad()
    def initialize(self, target: Tensor) -> None:
        """Sets the bias so that training starts at the mean distribution of the training rows.

        Raises:
            InputError: A target is outside [low, high].
        """
        check_inside(target, self.low, self.high)
        sums = [self.encode(part).nansum(0) for part in torch.split(target, ROWS)]
        mean = torch.stack(sums).sum(0) / (~target.isnan()).sum(0)[:, None]
        self.linear.bias.copy_(mean.clamp(min=1e-4 / len(self.values)).log().flatten())

    def loss(self, logits: Tensor, encoded: Tensor) -> Tensor:
        """Kullback-Leibler divergence from the target's distribution of every row (B,), averaged over its targets."""
        check_equal_shapes(self, logits, encoded)
        return functional.kl_div(logits.float().log_softmax(2), encoded, reduction="none").sum(2).mean(1)

    def decode(self, logits: Tensor) -> Tensor:
        """Logits (B, K, V) to means (B, K), inside [low, high]."""
        return (logits.float().softmax(2) * self.values).sum(2).clamp(self.low, self.high)

    def decode_rule(self) -> dict[str, Any]:
        """The mean of the values, weighted by a softmax."""
        rule = "mean of the values, weighted by the softmax, clipped"
        return {"rule": rule, "values": self.values.tolist(), "low": self.low, "high": self.high}
