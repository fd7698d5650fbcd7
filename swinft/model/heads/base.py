"""Base class of heads, and the linear head.

Only a head knows the target's units: it encodes targets for training, and decodes predictions to the competition's
units.

Shapes: B batch, D features, K outputs.
"""

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from swinft.class_spec import InitArgsMixin
from swinft.errors import InputError, number_of
from swinft.model.heads.loss import Loss, check_loss
from swinft.ranges import NOT_NEGATIVE, is_whole

CERTAIN_NEGATIVE = -30.0  # a logit of probability 1e-13, at which no loss of a negative overflows


class Head(InitArgsMixin, nn.Module):
    """Base class of heads.

    Args:
        in_features: D, given by the backbone.
        num_outputs: K, given by the target.
    """

    kind: ClassVar[str]
    default_metrics: ClassVar[list[str]]
    needs_order: ClassVar[bool] = False  # whether classes must be numbers, or ordered by data.columns.class_order
    # What it is given: a vector per image; or maps of the backbone's stages, and targets are maps, too, (B, K, H, W).
    reads: ClassVar[Literal["vector", "maps"]] = "vector"
    NUM_SUPPLIED = 2  # D and K

    def __init__(self, in_features: int, num_outputs: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.num_outputs = num_outputs
        self.has_gaps = False  # whether some rows lack some targets: their loss is masked, see `contract`

    @property
    def takes_classes(self) -> bool:
        """Whether targets are class indices int64 (B,), and not numbers (B, K)."""
        return takes_classes(self.kind)

    @property
    def gives_probabilities(self) -> bool:
        """Whether predictions are in 0–1, and not in the units of each target."""
        return self.kind != "regression"

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, …), in any form that `loss` and `decode` accept."""
        raise NotImplementedError

    def neck(self, features: Tensor) -> Tensor:
        """Features (B, D) to what the last layer reads, (B, E): by default the features."""
        return features

    def encode(self, target: Tensor) -> Tensor:
        """Targets of a batch to encoded targets for the loss, float (B, …), which mixup can mix."""
        raise NotImplementedError

    def encode_soft(self, target: Tensor) -> Tensor:
        """Soft targets, float (B, K) with rows of sum 1, to the mixture of the encoded classes; for classes only."""
        of_classes = self.encode(torch.arange(self.num_outputs, device=target.device)).float()  # (K, …)
        # Not a matrix product, which a GPU may round to 10 bits.
        columns = target.float()[(...,) + (None,) * (of_classes.ndim - 1)]  # (B, K, 1, …)
        return (columns * of_classes).sum(1)

    @property
    def neutral_logit(self) -> float:
        """A logit at which the loss of the encoded target 0 is 0; it replaces the logit where a target is missing."""
        return 0.0

    def loss(self, logits: Tensor, encoded: Tensor) -> Tensor:
        """Loss of every row (B,), in float32, independent of the other rows."""
        raise NotImplementedError

    def loss_towards(self, logits: Tensor, prediction: Tensor, temperature: float = 1.0) -> Tensor:
        """Loss of every row (B,) towards the prediction of another network (distillation).

        By default the head's own loss, with the prediction as the target.

        Args:
            logits: Logits (B, …).
            prediction: What a network for the same target predicts, (B, K) in the competition's units.
            temperature: Of the softmax of both, above 0.

        Raises:
            InputError: There is a temperature, and predictions are no softmax of the logits.
        """
        if temperature != 1:
            raise InputError(
                f"distill.temperature is {temperature:g}, which softens the softmax over classes, and the predictions "
                f"of {type(self).__name__} are no softmax of its logits: remove it."
            )
        encoded = self.encode_soft(prediction) if self.takes_classes else self.encode(prediction)
        return self.loss(logits, encoded)

    def decode(self, logits: Tensor) -> Tensor:
        """Logits to predictions (B, K) in the competition's units."""
        raise NotImplementedError

    def connect(self, channels: list[int]) -> None:
        """Called once of a head that reads maps, with the channels of the images and of the maps of strides 2, 4, …."""

    def evaluated(self, logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor] | None:
        """What metrics get of a batch instead of predictions and targets, a row for each image; None for these."""
        return None

    def counted(self, predictions: Tensor, target: Tensor) -> tuple[Tensor, Tensor] | None:
        """The same of a part of each image, from its predictions: numbers that are added up; None for none."""
        return None

    def example_targets(self, targets: Tensor, size: tuple[int, int]) -> Tensor:
        """Targets of a trial step at a height and width, from what the table says of the rows; by default these."""
        return targets

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


def takes_classes(kind: str) -> bool:
    """Whether the targets of a kind are classes: indices int64 (B,), or soft targets (B, K)."""
    return kind == "classification"


class FeatureDropout(nn.Dropout):
    """Dropout of features, averaged over one or several masks (multi-sample dropout, arXiv 1905.09788).

    Before a linear layer, averaging the masked features equals averaging the layer's outputs, and is cheaper.

    Args:
        probability: Probability of dropping a feature, in [0, 1).
        samples: Number of masks per step, 1 or more.
    """

    def __init__(self, probability: float, samples: int = 1) -> None:
        super().__init__(checked_fraction("dropout", probability))
        if not is_whole(samples) or samples < 1:
            raise InputError(f"dropout_samples is {samples!r}. Allowed: a whole number from 1.")
        if samples > 1 and probability == 0:
            raise InputError(f"dropout_samples is {samples}, and dropout is 0: set dropout above 0, or remove both.")
        self.samples = samples

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) with some of them set to 0 in training; unchanged in evaluation."""
        if not self.training or self.samples == 1:
            return super().forward(features)
        return torch.stack([super(FeatureDropout, self).forward(features) for _ in range(self.samples)]).mean(0)


class LinearHead(Head):
    """A head of one linear layer after dropout.

    Args:
        in_features: D, given by the backbone.
        num_outputs: K, given by the target.
        dropout: Probability of dropping a feature, in [0, 1).
        loss: The name of a built-in loss, or a `Loss` object to call instead.
        named: The class of each built-in loss; None for those that the head computes itself.
        dropout_samples: Number of dropout masks per step, as in `FeatureDropout`.
    """

    target_weights: Tensor | None

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        dropout: float,
        loss: str | Loss = "",
        named: Mapping[str, type[Loss] | None] | None = None,
        dropout_samples: int = 1,
    ) -> None:
        super().__init__(in_features, num_outputs)
        self.own_loss = made_loss(self, loss, {"": None} if named is None else named)
        self.dropout = FeatureDropout(dropout, dropout_samples)
        self.register_buffer("target_weights", None, persistent=False)  # set by `weigh_targets`
        self.linear = nn.Linear(in_features, num_outputs)
        # Small, as in timm's classifiers: large initial gradients would disturb pretrained features.
        nn.init.trunc_normal_(self.linear.weight, std=0.02)
        nn.init.zeros_(self.linear.bias)

    @property
    def loss_learns(self) -> bool:
        """Whether the loss needs statistics of the training targets."""
        return self.own_loss is not None and self.own_loss.learns_from_targets

    def weigh_targets(self, weights: list[float] | None) -> None:
        """Sets the argument `target_weights` of a head: one for each of its K targets, divided by their mean.

        Raises:
            InputError: They are not K finite numbers of 0 or more; or the loss does not give the loss of one target.
        """
        if weights is None:
            return
        if self.own_loss is not None and not self.own_loss.is_per_target:
            raise InputError(
                f"{type(self).__name__}: target_weights needs the loss of each target alone, and loss is "
                f"{type(self.own_loss).__name__}, whose is_per_target is False. Remove target_weights, and apply "
                f"weights in the loss."
            )
        found = checked_weights("target_weights", weights, self.num_outputs)
        self.target_weights = found / found.mean()

    def mean_over_targets(self, losses: Tensor) -> Tensor:
        """Losses (B, K) to the loss of every row (B,): their mean, weighted by `target_weights`."""
        return losses.mean(1) if self.target_weights is None else (losses * self.target_weights).mean(1)

    def custom_losses(self, logits: Tensor, encoded: Tensor) -> Tensor:
        """The custom loss of every row (B,), weighted by `target_weights`."""
        assert self.own_loss is not None
        given, wanted = logits.float(), encoded.float()
        if self.target_weights is None:
            losses: Tensor = self.own_loss(given, wanted)
            return losses
        return self.mean_over_targets(
            torch.stack([self.own_loss(given[:, [k]], wanted[:, [k]]) for k in range(self.num_outputs)], dim=1)
        )

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, K)."""
        logits: Tensor = self.linear(self.dropout(features))
        return logits


def made_loss(head: Head, loss: str | Loss, named: Mapping[str, type[Loss] | None]) -> Loss | None:
    """The object that computes a head's loss; None if the head computes it itself.

    Args:
        head: The head, with K outputs.
        loss: Its argument `loss`.
        named: As in `LinearHead`.

    Raises:
        InputError: It is neither a built-in loss nor a `Loss`, or it is for another kind of target.
    """
    check_loss(type(head).__name__, loss, named, getattr(head, "kind", ""))
    if isinstance(loss, Loss):
        made = copy.deepcopy(loss)  # a copy for each network
    else:
        kind = named[loss]
        if kind is None:
            return None
        made = kind()
    made.prepare(head.num_outputs)
    return made


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


def softened_divergence(logits: Tensor, probabilities: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of every row (B,) from softened probabilities (arXiv 1503.02531).

    Both are divided by the temperature as logits. The square of the temperature keeps the gradient's size.

    Args:
        logits: Of the softmax, (B, K).
        probabilities: Of another network, (B, K).
        temperature: Above 0.
    """
    least = torch.finfo(torch.float).tiny
    goal = (probabilities.float().clamp(min=least).log() / temperature).log_softmax(1)
    own = (logits.float() / temperature).log_softmax(1)
    return temperature**2 * functional.kl_div(own, goal, reduction="none", log_target=True).sum(1)


def checked_weights(name: str, weights: list[float] | str | None, num_outputs: int) -> Tensor:
    """Weights (K,); all 1 if none are given, and for `balanced`, which `initialize` computes.

    Raises:
        InputError: They are not K finite numbers of 0 or more, or all are 0.
    """
    if weights is None or weights == "balanced":
        return torch.ones(num_outputs)
    if isinstance(weights, str):
        raise InputError(f"{name} is '{weights}'; it must be balanced, or a list of {num_outputs} numbers.")
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
