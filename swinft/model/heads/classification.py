"""Head for one of K classes.

Shapes: B batch, D features, K outputs.
"""

from typing import Any, ClassVar, Literal

import torch
from timm.loss.class_weights import compute_class_weights
from torch import Tensor
from torch.nn import functional

from swinft.errors import InputError
from swinft.model.heads.base import (
    LinearHead,
    check_equal_shapes,
    checked_fraction,
    checked_weights,
    softened_divergence,
)
from swinft.model.heads.class_losses import CLASS_LOSSES
from swinft.model.heads.loss import Loss, class_counts, refuse_weights

ClassLossName = Literal[
    "cross_entropy", "focal", "kl", "poly1", "class_balanced", "balanced_softmax", "bi_tempered"
]  # the names of `CLASS_LOSSES`


class ClassificationHead(LinearHead):
    """Predicts one of K classes: linear layer, cross-entropy or another loss; predictions are probabilities.

    Args:
        in_features: D, given by the backbone.
        num_outputs: K, given by the classes.
        label_smoothing: Fraction of the target's probability spread evenly over all classes, in [0, 1).
        class_weights: Weight of each class in the loss, in the order of the prediction's columns. They are divided by
            their mean over the training rows, so that they do not change the learning rate. `balanced`: inversely
            proportional to the number of training rows of each class. None for equal weights.
        dropout: Probability of dropping a feature, in [0, 1).
        loss: `cross_entropy`, `focal`, `kl`, `poly1`, `class_balanced`, `balanced_softmax` or `bi_tempered`; or a
            class with arguments, such as `swinft.FocalLoss` or a custom one. `class_weights` cannot be combined with
            `class_balanced`, `balanced_softmax` or a custom loss.
        dropout_samples: Number of dropout masks per step; the logits are averaged over them.
    """

    kind = "classification"
    default_metrics: ClassVar[list[str]] = ["accuracy", "macro_f1", "log_loss"]

    weights: Tensor

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        label_smoothing: float = 0.0,
        class_weights: list[float] | Literal["balanced"] | None = None,
        dropout: float = 0.0,
        loss: ClassLossName | Loss = "cross_entropy",
        dropout_samples: int = 1,
    ) -> None:
        super().__init__(in_features, num_outputs, dropout, loss, CLASS_LOSSES, dropout_samples)
        refuse_weights("ClassificationHead", self.own_loss, "class_weights", class_weights)
        self.label_smoothing = checked_fraction("label_smoothing", label_smoothing)
        self.is_weighted, self.is_balanced = class_weights is not None, class_weights == "balanced"
        weights = checked_weights("class_weights", class_weights, num_outputs)
        if not weights.any():
            raise InputError("class_weights are all 0: nothing would be learnt.")
        # `initialize` divides them by a statistic of the training rows, so they are saved with the weights.
        self.register_buffer("weights", weights / weights.mean(), persistent=class_weights is not None)

    def encode(self, target: Tensor) -> Tensor:
        """Class indices (B,) to one-hot rows (B, K)."""
        return functional.one_hot(target, self.num_outputs).float()

    def encode_soft(self, target: Tensor) -> Tensor:
        """Soft targets (B, K), unchanged."""
        is_own = type(self).encode is not ClassificationHead.encode
        return super().encode_soft(target) if is_own else target.float()

    @property
    def learns_from_targets(self) -> bool:
        """If it counts classes. Otherwise only in subclasses: class weights are then normalised over the classes."""
        is_own = type(self).initialize is not ClassificationHead.initialize
        return is_own or self.is_balanced or self.loss_learns

    @torch.no_grad()
    def initialize(self, target: Tensor) -> None:
        """Computes balanced class weights, and divides class weights by their mean over the training rows.

        Raises:
            InputError: Every class of the training rows has weight 0.
        """
        if self.own_loss is not None:
            self.own_loss.initialize(target)
        if self.is_balanced:
            counts = class_counts(target, self.num_outputs)
            self.weights.copy_(compute_class_weights(counts, len(target), "inv_freq")[1])
        mean = self.row_weights(target).double().mean()
        if not mean > 0:
            raise InputError("class_weights gives every class of the training rows weight 0: nothing would be learnt.")
        self.weights.div_(mean)

    def loss(self, logits: Tensor, encoded: Tensor) -> Tensor:
        """Cross-entropy or another loss of every row (B,), with smoothed targets and class weights."""
        check_equal_shapes(self, logits, encoded)
        smoothed = encoded * (1 - self.label_smoothing) + self.label_smoothing / self.num_outputs
        if self.own_loss is not None:
            losses: Tensor = self.own_loss(logits.float(), smoothed.float())
            return losses * self.row_weights(encoded) if self.is_weighted else losses
        return -(smoothed * self.weights * logits.float().log_softmax(1)).sum(1)

    def row_weights(self, target: Tensor) -> Tensor:
        """The class weight of each row (B,); for soft targets (B, K), the mean weighted by them."""
        return self.weights[target] if target.ndim == 1 else (target * self.weights).sum(1)

    def loss_towards(self, logits: Tensor, prediction: Tensor, temperature: float = 1.0) -> Tensor:
        """Divergence from the softened prediction (B,), without class weights; the own loss where it is no softmax."""
        if self.decode_rule()["rule"] != "softmax":
            return super().loss_towards(logits, prediction, temperature)
        return softened_divergence(logits, prediction, temperature)

    def decode(self, logits: Tensor) -> Tensor:
        """Logits (B, K) to probabilities (B, K): their softmax, unless the loss defines another function."""
        found = None if self.own_loss is None else self.own_loss.probabilities(logits.float())
        return logits.float().softmax(1) if found is None else found

    def decode_rule(self) -> dict[str, Any]:
        """Softmax over the classes, or the rule of the loss."""
        return (None if self.own_loss is None else self.own_loss.decode_rule()) or {"rule": "softmax"}
