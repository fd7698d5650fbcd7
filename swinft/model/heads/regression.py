"""Head for one or more numbers.

Shapes: B batch, D features, K outputs.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from swinft.errors import InputError
from swinft.model.heads.base import CERTAIN_NEGATIVE, LinearHead, check_equal_shapes
from swinft.model.heads.loss import Loss
from swinft.model.heads.number_losses import NUMBER_LOSSES
from swinft.model.heads.transforms import TargetTransform, TransformName, checked_clip
from swinft.ranges import FINITE, check_ranges

NumberLossName = Literal[
    "mse", "l1", "smooth_l1", "bce", "huber", "r2", "pearson", "concordance"
]  # the names of `NUMBER_LOSSES`

LOSSES: dict[str, Callable[..., Tensor]] = {
    "mse": functional.mse_loss,
    "l1": functional.l1_loss,
    "smooth_l1": functional.smooth_l1_loss,
    "bce": functional.binary_cross_entropy_with_logits,
}


class RegressionHead(LinearHead):
    """Predicts one or more numbers: linear layer, trained on standardised targets; predictions in the target's units.

    Args:
        in_features: D, given by the backbone.
        num_outputs: K, given by the target columns.
        loss: `mse`, `l1`, `smooth_l1`, or `bce`: binary cross-entropy on targets scaled to 0–1 between `low` and
            `high`, which keeps predictions in this range and is used by the best Pawpularity models. Also
            `huber`, `r2`, and `pearson` and `concordance`, correlations within a batch; or a class with arguments, such
            as `swinft.HuberLoss` or a custom one. All but `bce` get standardised targets.
        low: Smallest possible value, in the target's units; predictions are clipped to it.
        high: Largest possible value; predictions are clipped to it.
        dropout: Probability of dropping a feature, in [0, 1).
        dropout_samples: Number of dropout masks per step; the logits are averaged over them.
        transform: What the network learns instead of the target: `log1p`, log(1 + y); `sqrt`; `rank`, the normal
            deviate of its rank among the training rows; or `none`. One name, or one for each target column. Predictions
            are transformed back. All are standardised afterwards.
        clip: Lowest and highest target that the network learns; targets beyond them are clipped in training, not in the
            score. Null for no limits.
        target_weights: Weight of each target column in the loss, in the order of the prediction's columns; null for 1.
            They are divided by their mean.
    """

    kind = "regression"
    default_metrics: ClassVar[list[str]] = ["rmse", "mae", "r2"]

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        loss: NumberLossName | Loss = "mse",
        low: float | None = None,
        high: float | None = None,
        dropout: float = 0.0,
        dropout_samples: int = 1,
        transform: TransformName | list[TransformName] = "none",
        clip: list[float] | None = None,
        target_weights: list[float] | None = None,
    ) -> None:
        super().__init__(in_features, num_outputs, dropout, loss, NUMBER_LOSSES, dropout_samples)
        self.weigh_targets(target_weights)
        check_ranges("RegressionHead", {"low": low, "high": high}, {"low": FINITE, "high": FINITE})
        if low is not None and high is not None and low >= high:
            raise InputError(f"RegressionHead: low={low} must be below high={high}.")
        if loss == "bce" and (low is None or high is None):
            raise InputError(f"RegressionHead: loss='bce' needs the target's range: low={low}, high={high}. Give both.")
        self.kind_of_loss = None if isinstance(loss, Loss) else loss
        self.low, self.high, self.clip = low, high, checked_clip(clip)
        transforms = TargetTransform(transform, num_outputs)
        self.transform = None if set(transforms.names) == {"none"} else transforms
        if self.transform is not None and loss == "bce":
            raise InputError("RegressionHead: loss='bce' learns the target itself: remove transform, or the loss.")
        # Persistent: statistics of the training rows, without which predictions would be in the wrong units.
        is_bounded = loss == "bce"
        self.register_buffer("shift", torch.full((num_outputs,), float(low or 0) if is_bounded else 0.0))
        self.register_buffer("scale", torch.full((num_outputs,), float(high - low) if is_bounded else 1.0))  # type: ignore[operator]

    @property
    def neutral_logit(self) -> float:
        """0, or for `bce` a logit of `low`."""
        return CERTAIN_NEGATIVE if self.kind_of_loss == "bce" else 0.0

    def encode(self, target: Tensor) -> Tensor:
        """Targets (B, K) to (B, K): in [0, 1] between low and high for `bce`, else standardised by `initialize`."""
        return (self._transformed(target.float()) - self.shift) / self.scale

    def _transformed(self, target: Tensor) -> Tensor:
        """Targets (B, K), clipped and transformed, if asked for."""
        clipped = target.clamp(*self.clip) if math.isfinite(self.clip[0]) else target
        return clipped if self.transform is None else self.transform(clipped)

    @torch.no_grad()
    def initialize(self, target: Tensor) -> None:
        """Computes mean and deviation of the training rows; for `bce`, sets the output bias to their mean.

        A network that starts at the mean need not learn it in its first epochs, which would disturb pretrained
        features.

        Raises:
            InputError: A target is outside [low, high].
        """
        exact = target.cpu().double().clamp(*self.clip)  # not every device has float64
        check_inside(exact, self.low, self.high)
        is_known, raw = ~exact.isnan(), target.cpu().double()
        is_at_limit = [(exact == limit)[is_known] for limit in self.clip]
        if any(map(torch.all, is_at_limit)) and (raw != exact)[is_known].any():
            raise InputError(
                f"RegressionHead: all targets are beyond clip={list(self.clip)}, so that they would all be the same: "
                f"nothing would be learnt. Widen clip to what the targets are."
            )
        if self.transform is not None:
            self.transform.initialize(exact)
            exact = self._transformed(target.float()).cpu().double()
        if self.own_loss is not None:
            self.own_loss.initialize(self._transformed(target.float()))
        if self.kind_of_loss == "bce":
            self.linear.bias.copy_(torch.logit(_statistics(self.encode(target))[0], eps=1e-4))
        else:
            mean, deviation = _statistics(exact)
            self.shift.copy_(mean)
            self.scale.copy_(deviation)

    def loss(self, logits: Tensor, encoded: Tensor) -> Tensor:
        """Loss of every row (B,), averaged over its targets."""
        check_equal_shapes(self, logits, encoded)
        if self.own_loss is not None:
            return self.custom_losses(logits, encoded)
        return self.mean_over_targets(LOSSES[str(self.kind_of_loss)](logits.float(), encoded, reduction="none"))

    def loss_towards(self, logits: Tensor, prediction: Tensor, temperature: float = 1.0) -> Tensor:
        """The own loss (B,), with the other network's prediction inside [low, high] as the target."""
        low, high = (-math.inf if self.low is None else self.low), (math.inf if self.high is None else self.high)
        return super().loss_towards(logits, prediction.clamp(low, high), temperature)

    def decode(self, logits: Tensor) -> Tensor:
        """Logits (B, K) to values (B, K), clipped to [low, high] if given."""
        raw = logits.float().sigmoid() if self.kind_of_loss == "bce" else logits.float()
        values = raw * self.scale + self.shift
        values = values if self.transform is None else self.transform.inverse(values)
        return values if self.low is None and self.high is None else values.clamp(self.low, self.high)

    def decode_rule(self) -> dict[str, Any]:
        """`scale * x + shift` of each logit, or of its sigmoid for `bce`, clipped to [low, high] if given.

        With `transform`, its inverse comes before the clipping.
        """
        return {
            "rule": "sigmoid, standardised" if self.kind_of_loss == "bce" else "standardised",
            "scale": self.scale.tolist(),
            "shift": self.shift.tolist(),
            "low": self.low,
            "high": self.high,
            **({} if self.transform is None else self.transform.to_dict()),
        }


def check_inside(target: Tensor, low: float | None, high: float | None, keys: str = "low and high") -> None:
    """Checks that all targets are inside the range of the predictions.

    Args:
        target: The targets (N, K), NaN where missing.
        low: The lowest prediction; None for no limit.
        high: The highest one.
        keys: The arguments of the head that say so.

    Raises:
        InputError: One is outside [low, high].
    """
    known = target[~target.isnan()]
    least, most = known.min().item(), known.max().item()
    if (low is not None and least < low) or (high is not None and most > high):
        raise InputError(
            f"the targets go from {least:g} to {most:g}, outside the range [{low}, {high}] of model.head: "
            f"predictions could never reach them. Widen {keys}, or correct the targets."
        )


def _statistics(target: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation of each column (K,) over the rows that have it, NaN standing for a missing target.

    The deviation of a constant column is 1e-6, so that its prediction is its value.
    """
    if target.isnan().any():
        columns = [_statistics(column[~column.isnan()][:, None]) for column in target.T]
        mean, deviation = (torch.cat(values) for values in zip(*columns, strict=True))
        return mean, deviation
    deviation = target.std(0, correction=0)
    return target.mean(0), torch.where(target.amax(0) > target.amin(0), deviation, 1e-6)
