"""Head for any number of K labels.

Shapes: B batch, D features, K outputs.
"""

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional

from swinft.model.heads.base import CERTAIN_NEGATIVE, LinearHead, check_equal_shapes, checked_weights
from swinft.model.heads.label_losses import LABEL_LOSSES
from swinft.model.heads.loss import Loss, class_counts, refuse_weights

LabelLossName = Literal["bce", "focal", "asymmetric", "poly1"]  # the names of `LABEL_LOSSES`


class MultilabelHead(LinearHead):
    """Predicts any number of K labels: linear layer, a loss per label; predictions are probabilities.

    Args:
        in_features: D, given by the backbone.
        num_outputs: K, given by the labels.
        pos_weight: Weight of each label's positive rows, in the order of the prediction's columns. `balanced`:
            the number of negative training rows over that of positive ones. None for 1.
        dropout: Probability of dropping a feature, in [0, 1).
        loss: `bce`, `focal`, `asymmetric` or `poly1`; or a class with arguments, such as `swinft.AsymmetricLoss` or a
            custom one. `pos_weight` can be combined only with `bce`.
        dropout_samples: Number of dropout masks per step; the logits are averaged over them.
        target_weights: Weight of each label in the loss, in the order of the prediction's columns; None for all 1. They
            are divided by their mean.
    """

    kind = "multilabel"
    default_metrics: ClassVar[list[str]] = ["mean_column_auc"]

    weights: Tensor

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        pos_weight: list[float] | Literal["balanced"] | None = None,
        dropout: float = 0.0,
        loss: LabelLossName | Loss = "bce",
        dropout_samples: int = 1,
        target_weights: list[float] | None = None,
    ) -> None:
        super().__init__(in_features, num_outputs, dropout, loss, LABEL_LOSSES, dropout_samples)
        self.weigh_targets(target_weights)
        refuse_weights("MultilabelHead", self.own_loss, "pos_weight", pos_weight)
        self.is_balanced = pos_weight == "balanced"
        weights = checked_weights("pos_weight", pos_weight, num_outputs)
        # Weights computed from the training rows are saved with the network.
        self.register_buffer("weights", weights, persistent=self.is_balanced)

    @property
    def learns_from_targets(self) -> bool:
        """If it counts labels."""
        return type(self).initialize is not MultilabelHead.initialize or self.is_balanced or self.loss_learns

    @torch.no_grad()
    def initialize(self, target: Tensor) -> None:
        """Computes balanced weights of positive rows, and the statistics that the loss needs."""
        if self.own_loss is not None:
            self.own_loss.initialize(target)
        if self.is_balanced:
            positive, known = class_counts(target, self.num_outputs), (~target.isnan()).sum(0).cpu()
            # Counts of at least 1, so that no weight is 0 or infinite.
            self.weights.copy_((known - positive).clamp(min=1) / positive.clamp(min=1))

    @property
    def neutral_logit(self) -> float:
        """A logit of a certain negative."""
        return CERTAIN_NEGATIVE

    def encode(self, target: Tensor) -> Tensor:
        """0/1 rows (B, K), as float."""
        return target.float()

    def loss(self, logits: Tensor, encoded: Tensor) -> Tensor:
        """Binary cross-entropy of every row (B,), averaged over labels; or another loss."""
        check_equal_shapes(self, logits, encoded)
        if self.own_loss is not None:
            return self.custom_losses(logits, encoded)
        losses = functional.binary_cross_entropy_with_logits(
            logits.float(), encoded, pos_weight=self.weights, reduction="none"
        )
        return self.mean_over_targets(losses)

    def loss_towards(self, logits: Tensor, prediction: Tensor, temperature: float = 1.0) -> Tensor:
        """Binary cross-entropy towards the predicted probabilities (B,), averaged over labels, without `pos_weight`."""
        if temperature != 1 or self.decode_rule()["rule"] != "sigmoid":
            return super().loss_towards(logits, prediction, temperature)
        losses = functional.binary_cross_entropy_with_logits(logits.float(), prediction.float(), reduction="none")
        return self.mean_over_targets(losses)

    def decode(self, logits: Tensor) -> Tensor:
        """Logits (B, K) to probabilities (B, K)."""
        return logits.float().sigmoid()

    def decode_rule(self) -> dict[str, Any]:
        """A sigmoid of each label."""
        return {"rule": "sigmoid"}
