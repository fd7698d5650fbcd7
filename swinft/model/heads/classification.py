"""Head for one of K classes.

Shapes: B batch, D features, K outputs.
"""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from swinft.errors import InputError
from swinft.model.heads.base import LinearHead, check_equal_shapes, checked_fraction, checked_weights
from swinft.model.heads.loss import Loss, refuse_weights


class ClassificationHead(LinearHead):
    """Predicts one of K classes: linear layer, cross-entropy; predictions are probabilities.

    Args:
        in_features: D, given by the backbone.
        num_outputs: K, given by the classes.
        label_smoothing: Fraction of the target's probability spread evenly over all classes, in [0, 1).
        class_weights: Weight of each class in the loss, in the order of the prediction's columns. They are divided by
            their mean over the training rows, to keep the scale of the loss. None for equal weights.
        dropout: Probability of dropping a feature, in [0, 1).
        loss: `cross_entropy`, or an object of a custom class, which does not use `class_weights`.
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
        loss: Literal["cross_entropy"] | Loss = "cross_entropy",
    ) -> None:
        super().__init__(in_features, num_outputs, dropout, loss, ["cross_entropy"])
        refuse_weights("ClassificationHead", loss, "class_weights", class_weights)
        self.label_smoothing = checked_fraction("label_smoothing", label_smoothing)
        weights = checked_weights("class_weights", class_weights, num_outputs)
        if not weights.any():
            raise InputError("class_weights are all 0: nothing would be learnt.")
        # `initialize` divides them by a statistic of the training rows, so they are saved with the weights.
        self.register_buffer("weights", weights / weights.mean(), persistent=class_weights is not None)

    def encode(self, target: Tensor) -> Tensor:
        """Class indices (B,) to one-hot rows (B, K)."""
        return functional.one_hot(target, self.num_outputs).float()

    @property
    def learns_from_targets(self) -> bool:
        """Only in subclasses: without `initialize`, class weights are normalised by their mean over the classes."""
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
        """Cross-entropy of every row (B,), weighted by class; or the custom loss, with smoothed targets."""
        check_equal_shapes(self, logits, encoded)
        smoothed = encoded * (1 - self.label_smoothing) + self.label_smoothing / self.num_outputs
        if self.own_loss is not None:
            losses: Tensor = self.own_loss(logits.float(), smoothed.float())
            return losses
        return -(smoothed * self.weights * logits.float().log_softmax(1)).sum(1)

    def decode(self, logits: Tensor) -> Tensor:
        """Logits (B, K) to probabilities (B, K)."""
        return logits.float().softmax(1)

    def decode_rule(self) -> dict[str, Any]:
        """Softmax over the classes."""
        return {"rule": "softmax"}
