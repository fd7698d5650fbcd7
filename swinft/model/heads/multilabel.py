"""Head for any number of K labels.

Shapes: B batch, D features, K outputs.
"""

from typing import Any, ClassVar, Literal

from torch import Tensor
from torch.nn import functional

from swinft.model.heads.base import LinearHead, check_equal_shapes, checked_weights
from swinft.model.heads.loss import Loss, refuse_weights


class MultilabelHead(LinearHead):
    """Predicts any number of K labels: linear layer, binary cross-entropy per label; predictions are probabilities.

    Args:
        in_features: D, given by the backbone.
        num_outputs: K, given by the labels.
        pos_weight: Weight of each label's positive rows, in the order of the prediction's columns; None for all 1.
        dropout: Probability of dropping a feature, in [0, 1).
        loss: `bce`, or an object of a custom class, which does not use `pos_weight`.
    """

    kind = "multilabel"
    default_metrics: ClassVar[list[str]] = ["mean_column_auc"]

    weights: Tensor

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        pos_weight: list[float] | None = None,
        dropout: float = 0.0,
        loss: Literal["bce"] | Loss = "bce",
    ) -> None:
        super().__init__(in_features, num_outputs, dropout, loss, ["bce"])
        refuse_weights("MultilabelHead", loss, "pos_weight", pos_weight)
        self.register_buffer("weights", checked_weights("pos_weight", pos_weight, num_outputs), persistent=False)

    def encode(self, target: Tensor) -> Tensor:
        """0/1 rows (B, K), as float."""
        return target.float()

    def loss(self, logits: Tensor, encoded: Tensor) -> Tensor:
        """Binary cross-entropy of every row (B,), averaged over labels; or the custom loss."""
        check_equal_shapes(self, logits, encoded)
        if self.own_loss is not None:
            custom: Tensor = self.own_loss(logits.float(), encoded.float())
            return custom
        losses = functional.binary_cross_entropy_with_logits(
            logits.float(), encoded, pos_weight=self.weights, reduction="none"
        )
        return losses.mean(1)

    def decode(self, logits: Tensor) -> Tensor:
        """Logits (B, K) to probabilities (B, K)."""
        return logits.float().sigmoid()

    def decode_rule(self) -> dict[str, Any]:
        """A sigmoid of each label."""
        return {"rule": "sigmoid"}
