"""Base class of heads, and the linear head.

Only a head knows the target's units: it encodes targets for training, and decodes predictions to the competition's
units.

Shapes: B batch, D features, K outputs.
"""

import copy
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from swinft.errors import InputError, number_of
from swinft.model.class_spec import InitArgsMixin
from swinft.model.heads.loss import Loss, check_loss
from swinft.ranges import NOT_NEGATIVE


class Head(InitArgsMixin, nn.Module):
    """Base class of heads.

    Args:
        in_features: D, given by the backbone.
        num_outputs: K, given by the target.
    """

    kind: ClassVar[str]
    default_metrics: ClassVar[list[str]]
    NUM_SUPPLIED = 2  # D and K

    def __init__(self, in_features: int, num_outputs: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.num_outputs = num_outputs

    @property
    def takes_classes(self) -> bool:
        """Whether targets are class indices int64 (B,), and not numbers (B, K)."""
        return self.kind == "classification"

    @property
    def gives_probabilities(self) -> bool:
        """Whether predictions are in 0–1, and not in the units of each target."""
        return self.kind != "regression"

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, …), in any form that `loss` and `decode` accept."""
        raise NotImplementedError

    def encode(self, target: Tensor) -> Tensor:
        """Targets of a batch to encoded targets for the loss, float (B, …), which mixup can mix."""
        raise NotImplementedError

    def loss(self, logits: Tensor, encoded: Tensor) -> Tensor:
        """Loss of every row (B,), in float32, independent of the other rows."""
        raise NotImplementedError

    def decode(self, logits: Tensor) -> Tensor:
        """Logits to predictions (B, K) in the competition's units."""
        raise NotImplementedError

    def decode_rule(self) -> dict[str, Any]:
        """What `decode` does, as plain values for a program without swinft; override it together with `decode`.

        Returns:
            `rule`, a word, and its constants.
        """
        return {"rule": "custom", "head": type(self).__name__}

    def initialize(self, target: Tensor) -> None:
        """Called once before training with the targets of the training rows (N, …): check them, set an output bias."""

    @property
    def learns_from_targets(self) -> bool:
        """Whether `initialize` must be called before training."""
        return type(self).initialize is not Head.initialize


class LinearHead(Head):
    """A head of one linear layer after dropout.

    Args:
        in_features: D, given by the backbone.
        num_outputs: K, given by the target.
        dropout: Probability of dropping a feature, in [0, 1).
        loss: The name of a built-in loss, or a `Loss` object to call instead.
        named: The names of the built-in losses.
    """

    def __init__(
        self, in_features: int, num_outputs: int, dropout: float, loss: str | Loss = "", named: Iterable[str] = ("",)
    ) -> None:
        super().__init__(in_features, num_outputs)
        check_loss(type(self).__name__, loss, named)
        self.own_loss = copy.deepcopy(loss) if isinstance(loss, Loss) else None  # a copy for each network
        self.dropout = nn.Dropout(checked_fraction("dropout", dropout))
        self.linear = nn.Linear(in_features, num_outputs)
        # Small, as in timm's classifiers: large initial gradients would disturb pretrained features.
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, K)."""
        logits: Tensor = self.linear(self.dropout(features))
        return logits


def check_equal_shapes(head: Head, logits: Tensor, encoded: Tensor) -> None:
    """Checks that logits and encoded targets have the same shape.

    Raises:
        InputError: They differ.
    """
    if logits.shape != encoded.shape:
        raise InputError(
            f"{type(head).__name__} compares logits {tuple(logits.shape)} with encoded targets "
            f"{tuple(encoded.shape)}: they would be broadcast. Both must have the same shape."
        )


def checked_weights(name: str, weights: list[float] | None, num_outputs: int) -> Tensor:
    """Weights (K,); all 1 if none are given.

    Raises:
        InputError: They are not K finite numbers of 0 or more, or all are 0.
    """
    if weights is None:
        return torch.ones(num_outputs)
    if len(weights) != num_outputs or any(weight not in NOT_NEGATIVE for weight in weights) or not any(weights):
        raise InputError(
            f"{name} has {number_of(len(weights), 'value')} {weights}; it needs {num_outputs} finite values of 0 "
            "or more, one per output, not all 0."
        )
    return torch.tensor(weights)


def checked_fraction(name: str, value: float) -> float:
    """The value, unchanged.

    Raises:
        InputError: It is outside [0, 1).
    """
    if not 0 <= value < 1:
        raise InputError(f"{name} is {value}; it must be in [0, 1).")
    return value
