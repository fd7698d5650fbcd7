"""Features become predictions: one class per kind of target.

A head is the only place that knows the target's units. Training happens in encoded units, predictions leave in the
competition's.

Shapes: B batch, D features, K outputs.
"""

import inspect
from collections.abc import Callable
from itertools import islice
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from swinft.errors import InputError, number_of
from swinft.ranges import FINITE, NOT_NEGATIVE, check_ranges


class Head(nn.Module):
    """What every head offers.

    Args:
        in_features: D, given by the backbone.
        num_outputs: K, given by the target.
    """

    kind: ClassVar[str]
    default_metrics: ClassVar[list[str]]
    arguments: dict[str, Any]  # what a head was made with besides D and K

    def __new__(cls, *args: Any, **kwargs: Any) -> "Head":
        """Keeps the arguments, so that a checkpoint can say how to make such a head."""
        head = super().__new__(cls)
        signature = inspect.signature(cls.__init__)
        try:
            given = signature.bind_partial(head, *args, **kwargs).arguments
        except TypeError:  # __init__ says the same in better words
            given = {}
        own = dict(islice(((name, given[name]) for name in given), 3, None))  # without self, D and K
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                own |= own.pop(name, {})
        object.__setattr__(head, "arguments", own)
        return head

    def __init__(self, in_features: int, num_outputs: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.num_outputs = num_outputs

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, anything that `loss` and `decode` understand)."""
        raise NotImplementedError

    def encode(self, target: Tensor) -> Tensor:
        """Targets of a batch to what the loss compares with, in a form whose mixtures mean something: float (B, …)."""
        raise NotImplementedError

    def loss(self, logits: Tensor, encoded: Tensor) -> Tensor:
        """Loss of every row (B,), in float32, whatever the other rows are."""
        raise NotImplementedError

    def decode(self, logits: Tensor) -> Tensor:
        """Logits to predictions (B, K) in the competition's units."""
        raise NotImplementedError

    def initialize(self, target: Tensor) -> None:
        """Called once before training with the targets of the training rows (N, …): check them, set an output bias."""

    @property
    def learns_from_targets(self) -> bool:
        """Whether `initialize` must be called before training."""
        return type(self).initialize is not Head.initialize


class LinearHead(Head):
    """A head whose logits are one linear layer behind dropout.

    Args:
        in_features: D, given by the backbone.
        num_outputs: K, given by the target.
        dropout: Probability of dropping a feature, in [0, 1).
    """

    def __init__(self, in_features: int, num_outputs: int, dropout: float) -> None:
        super().__init__(in_features, num_outputs)
        self.dropout = nn.Dropout(_in_unit("dropout", dropout))
        self.linear = nn.Linear(in_features, num_outputs)
        # Small, as timm's classifiers start: pretrained features are left alone at first.
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, K)."""
        logits: Tensor = self.linear(self.dropout(features))
        return logits


class ClassificationHead(LinearHead):
    """One of K classes: linear layer and cross-entropy; probabilities.

    Args:
        in_features: D, given by the backbone.
        num_outputs: K, given by the classes.
        label_smoothing: Share of the target's mass spread over all classes, in [0, 1).
        class_weights: Weight of each class in the loss, in the order of the prediction's columns. They are divided by
            their mean over the training rows, so that they do not change the learning rate. None for equal ones.
        dropout: Probability of dropping a feature, in [0, 1).
    """

    kind = "classification"
    default_metrics: ClassVar[list[str]] = ["accuracy", "macro_f1", "log_loss"]

    weights: Tensor

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        label_smoothing: float = 0.0,
        class_weights: list[float] | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_features, num_outputs, dropout)
        self.label_smoothing = _in_unit("label_smoothing", label_smoothing)
        weights = _weights("class_weights", class_weights, num_outputs)
        if not weights.any():
            raise InputError("class_weights are all 0: nothing would be learnt.")
        # `initialize` divides them by what it learns from the training rows: they travel with the weights.
        self.register_buffer("weights", weights / weights.mean(), persistent=class_weights is not None)

    def encode(self, target: Tensor) -> Tensor:
        """Class indices (B,) to one-hot rows (B, K)."""
        return functional.one_hot(target, self.num_outputs).float()

    @property
    def learns_from_targets(self) -> bool:
        """Not this class itself: its weights then keep their mean over the classes."""
        return type(self).initialize is not ClassificationHead.initialize

    @torch.no_grad()
    def initialize(self, target: Tensor) -> None:
        """Divides the class weights by their mean over the training rows.

        Raises:
            InputError: Every class of the training rows has weight 0.
        """
        mean = self.weights[target].double().mean()
        if not mean > 0:
            raise InputError("class_weights gives every class of the training rows weight 0: nothing would be learnt.")
        self.weights.div_(mean)

    def loss(self, logits: Tensor, encoded: Tensor) -> Tensor:
        """Cross-entropy of every row (B,), weighted by its class."""
        _check_equal_shapes(self, logits, encoded)
        smoothed = encoded * (1 - self.label_smoothing) + self.label_smoothing / self.num_outputs
        return -(smoothed * self.weights * logits.float().log_softmax(1)).sum(1)

    def decode(self, logits: Tensor) -> Tensor:
        """Logits (B, K) to probabilities (B, K)."""
        return logits.float().softmax(1)


class RegressionHead(LinearHead):
    """One or more numbers: linear layer, trained on standardised targets; predictions in the target's own units.

    Args:
        in_features: D, given by the backbone.
        num_outputs: K, given by the target columns.
        loss: `mse`, `l1`, `smooth_l1`, or `bce`: cross-entropy on the position between `low` and `high`, which keeps
            predictions inside and is what the best Pawpularity models use.
        low: Smallest possible value, in the target's units; predictions are clipped to it.
        high: Largest possible value; predictions are clipped to it.
        dropout: Probability of dropping a feature, in [0, 1).
    """

    kind = "regression"
    default_metrics: ClassVar[list[str]] = ["rmse", "mae", "r2"]

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        loss: Literal["mse", "l1", "smooth_l1", "bce"] = "mse",
        low: float | None = None,
        high: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(in_features, num_outputs, dropout)
        check_ranges("RegressionHead", {"low": low, "high": high}, {"low": FINITE, "high": FINITE})
        if low is not None and high is not None and low >= high:
            raise InputError(f"RegressionHead: low={low} must be below high={high}.")
        if loss == "bce" and (low is None or high is None):
            raise InputError(f"RegressionHead: loss='bce' needs the target's range: low={low}, high={high}. Give both.")
        self.kind_of_loss = loss
        self.low, self.high = low, high
        # Persistent: they are learnt from the training rows, and a prediction without them is in the wrong units.
        is_bounded = loss == "bce"
        self.register_buffer("shift", torch.full((num_outputs,), float(low or 0) if is_bounded else 0.0))
        self.register_buffer("scale", torch.full((num_outputs,), float(high - low) if is_bounded else 1.0))  # type: ignore[operator]

    def encode(self, target: Tensor) -> Tensor:
        """Targets (B, K) to (B, K): in [0, 1] between low and high for `bce`, else standardised by `initialize`."""
        return (target.float() - self.shift) / self.scale

    @torch.no_grad()
    def initialize(self, target: Tensor) -> None:
        """Standardises on the training rows, or, for `bce`, starts at their mean.

        A network that starts at the mean does not spend its first epochs, and its pretrained features, on the way.

        Raises:
            InputError: A target is outside [low, high].
        """
        low, high = target.min().item(), target.max().item()
        if (self.low is not None and low < self.low) or (self.high is not None and high > self.high):
            raise InputError(
                f"the targets go from {low:g} to {high:g}, outside the range [{self.low}, {self.high}] of model.head: "
                f"predictions could never reach them. Widen low and high, or mend the targets."
            )
        if self.kind_of_loss == "bce":
            self.linear.bias.copy_(torch.logit(self.encode(target).mean(0), eps=1e-4))
        else:
            exact = target.cpu().double()  # not every device has float64
            deviation = exact.std(0, correction=0)
            self.shift.copy_(exact.mean(0))
            # A column that never changes is answered with its value.
            self.scale.copy_(torch.where(exact.amax(0) > exact.amin(0), deviation, 1e-6))

    def loss(self, logits: Tensor, encoded: Tensor) -> Tensor:
        """Loss of every row (B,), averaged over its targets."""
        _check_equal_shapes(self, logits, encoded)
        losses: dict[str, Callable[..., Tensor]] = {
            "mse": functional.mse_loss,
            "l1": functional.l1_loss,
            "smooth_l1": functional.smooth_l1_loss,
            "bce": functional.binary_cross_entropy_with_logits,
        }
        return losses[self.kind_of_loss](logits.float(), encoded, reduction="none").mean(1)

    def decode(self, logits: Tensor) -> Tensor:
        """Logits (B, K) to values (B, K), inside [low, high] where they are given."""
        raw = logits.float().sigmoid() if self.kind_of_loss == "bce" else logits.float()
        values = raw * self.scale + self.shift
        return values if self.low is None and self.high is None else values.clamp(self.low, self.high)


class MultilabelHead(LinearHead):
    """Any number of K labels: linear layer and binary cross-entropy per label; probabilities.

    Args:
        in_features: D, given by the backbone.
        num_outputs: K, given by the labels.
        pos_weight: Weight of each label's positive rows, in the order of the prediction's columns; None for 1.
        dropout: Probability of dropping a feature, in [0, 1).
    """

    kind = "multilabel"
    default_metrics: ClassVar[list[str]] = ["mean_column_auc"]

    weights: Tensor

    def __init__(
        self, in_features: int, num_outputs: int, pos_weight: list[float] | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__(in_features, num_outputs, dropout)
        self.register_buffer("weights", _weights("pos_weight", pos_weight, num_outputs), persistent=False)

    def encode(self, target: Tensor) -> Tensor:
        """0/1 rows (B, K) as they are."""
        return target.float()

    def loss(self, logits: Tensor, encoded: Tensor) -> Tensor:
        """Binary cross-entropy of every row (B,), averaged over labels."""
        _check_equal_shapes(self, logits, encoded)
        losses = functional.binary_cross_entropy_with_logits(
            logits.float(), encoded, pos_weight=self.weights, reduction="none"
        )
        return losses.mean(1)

    def decode(self, logits: Tensor) -> Tensor:
        """Logits (B, K) to probabilities (B, K)."""
        return logits.float().sigmoid()


def _check_equal_shapes(head: Head, logits: Tensor, encoded: Tensor) -> None:
    if logits.shape != encoded.shape:
        raise InputError(
            f"{type(head).__name__} compares logits {tuple(logits.shape)} with encoded targets "
            f"{tuple(encoded.shape)}: they would be broadcast. Both must have one shape."
        )


def _weights(name: str, weights: list[float] | None, num_outputs: int) -> Tensor:
    if weights is None:
        return torch.ones(num_outputs)
    if len(weights) != num_outputs or any(weight not in NOT_NEGATIVE for weight in weights) or not any(weights):
        raise InputError(
            f"{name} has {number_of(len(weights), 'value')} {weights}; it needs {num_outputs} finite ones of 0 "
            "or more, one per output, and not all of them 0."
        )
    return torch.tensor(weights)


def _in_unit(name: str, value: float) -> float:
    if not 0 <= value < 1:
        raise InputError(f"{name} is {value}; it must be in [0, 1).")
    return value
