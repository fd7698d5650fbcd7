"""Head for one of K classes by the angles between features and class directions, with a margin in training.

Shapes: B batch, D features, K outputs, C sub-centres.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from swinft.errors import InputError
from swinft.model.heads.base import FeatureDropout, Head, check_equal_shapes, checked_fraction, softened_divergence
from swinft.model.heads.loss import class_counts
from swinft.ranges import POSITIVE, Range, check_ranges, check_whole

POWER = 0.25  # margins fall with this power of the number of rows of a class (arXiv 2010.05350)
CLOSEST = 1e-6  # lowest 1 − cos²: the gradient of the sine is infinite at 0


class ArcFaceHead(Head):
    """Predicts one of K classes by cosines to class directions, with an angular margin in training.

    ArcFace (arXiv 1801.07698), optionally with sub-centres (ECCV 2020) and with margins by class size. Predictions are
    probabilities: the softmax of `scale` times the cosines, without margin.

    Args:
        in_features: D, given by the backbone.
        num_outputs: K, given by the classes.
        margin: Added to the angle of the true class in training, in radians, in [0, 1.5].
        smallest_margin: Margin of the class with the most training rows. The smallest class has `margin`, and margins
            in between fall with the fourth root of the number of rows. None for the same margin for all classes.
        scale: Factor on the cosines, above 0.
        sub_centres: Number of directions per class; the closest one counts. For varied classes, or wrong labels.
        embedding: Width of a linear layer before the cosines; None for no such layer.
        label_smoothing: Fraction of the target's probability spread evenly over all classes, in [0, 1).
        dropout: Probability of dropping a feature, in [0, 1).
        dropout_samples: Number of dropout masks per step; the features are averaged over them.
    """

    kind = "classification"
    default_metrics: ClassVar[list[str]] = ["accuracy", "macro_f1", "log_loss"]

    margins: Tensor

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        margin: float = 0.5,
        smallest_margin: float | None = None,
        scale: float = 30.0,
        sub_centres: int = 1,
        embedding: int | None = None,
        label_smoothing: float = 0.0,
        dropout: float = 0.0,
        dropout_samples: int = 1,
    ) -> None:
        super().__init__(in_features, num_outputs)
        numbers = {"margin": margin, "smallest_margin": smallest_margin, "scale": scale}
        angle = Range(0, 1.5)
        check_ranges("ArcFaceHead", numbers, {"margin": angle, "smallest_margin": angle, "scale": POSITIVE})
        check_whole("ArcFaceHead", "sub_centres", sub_centres)
        if embedding is not None:
            check_whole("ArcFaceHead", "embedding", embedding)
        if smallest_margin is not None and smallest_margin >= margin:
            raise InputError(f"ArcFaceHead: smallest_margin={smallest_margin} must be below margin={margin}.")
        self.margin, self.smallest_margin, self.scale = margin, smallest_margin, scale
        self.label_smoothing = checked_fraction("label_smoothing", label_smoothing)
        self.dropout = FeatureDropout(dropout, dropout_samples)
        self.embedding = None if embedding is None else nn.Linear(in_features, embedding)
        self.weight = nn.Parameter(torch.empty(num_outputs, sub_centres, embedding or in_features))
        nn.init.normal_(self.weight, std=0.02)  # only the direction matters
        self.register_buffer("margins", torch.full((num_outputs,), margin), persistent=smallest_margin is not None)

    @property
    def learns_from_targets(self) -> bool:
        """If margins depend on the number of rows of each class."""
        return type(self).initialize is not ArcFaceHead.initialize or self.smallest_margin is not None

    @torch.no_grad()
    def initialize(self, target: Tensor) -> None:
        """Computes the margins by class size; a class without training rows has the largest margin."""
        if self.smallest_margin is None:
            return
        rows = class_counts(target, self.num_outputs)
        rarity = rows.clamp(min=1).pow(-POWER)
        most, least = rarity[rows > 0].max(), rarity.min()
        place = ((rarity - least) / (most - least)).clamp(max=1) if most > least else torch.ones_like(rarity)
        self.margins.copy_(self.smallest_margin + place * (self.margin - self.smallest_margin))

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to `scale` times the cosines (B, K), in float32."""
        features = self.neck(self.dropout(features))
        with torch.autocast(features.device.type, enabled=False):
            given = functional.normalize(features.float(), dim=1)
            directions = functional.normalize(self.weight.float(), dim=2).flatten(0, 1)
            cosines = (given @ directions.T).reshape(-1, self.num_outputs, self.weight.shape[1]).amax(2)
            scaled: Tensor = self.scale * cosines
        return scaled

    def neck(self, features: Tensor) -> Tensor:
        """Features (B, D) through the layer before the cosines, if there is one."""
        return features if self.embedding is None else self.embedding(features)

    def encode(self, target: Tensor) -> Tensor:
        """Class indices (B,) to one-hot rows (B, K)."""
        return functional.one_hot(target, self.num_outputs).float()

    def loss(self, logits: Tensor, encoded: Tensor) -> Tensor:
        """Cross-entropy with a margin on the true class of every row (B,).

        The loss of a mixture of classes is the mixture of their losses, each with the margin on its class.
        """
        check_equal_shapes(self, logits, encoded)
        logits = logits.float()
        smoothed = encoded * (1 - self.label_smoothing) + self.label_smoothing / self.num_outputs
        losses = functional.softplus(log_sum_of_others(logits) - self.scale * self._with_margin(logits / self.scale))
        return (smoothed * losses).sum(1)

    def _with_margin(self, cosines: Tensor) -> Tensor:
        """Cosines (B, K) of the angles plus the margins; beyond π, a line in the cosine that keeps falling."""
        cos, sin = self.margins.cos(), self.margins.sin()
        sines = (1 - cosines.square()).clamp(min=CLOSEST).sqrt()
        return torch.where(cosines > -cos, cosines * cos - sines * sin, cosines - sin * self.margins)

    def loss_towards(self, logits: Tensor, prediction: Tensor, temperature: float = 1.0) -> Tensor:
        """Divergence from the softened prediction, without margin (B,)."""
        return softened_divergence(logits, prediction, temperature)

    def decode(self, logits: Tensor) -> Tensor:
        """Scaled cosines (B, K) to probabilities (B, K), without margin."""
        return logits.float().softmax(1)

    def decode_rule(self) -> dict[str, Any]:
        """Softmax of the scaled cosines."""
        return {"rule": "softmax"}


def log_sum_of_others(logits: Tensor) -> Tensor:
    """The logsumexp of all other classes for each class, (B, K), without cancellation."""
    best = logits.argmax(1, keepdim=True)
    without_best = logits.scatter(1, best, -math.inf).logsumexp(1, keepdim=True)
    total = logits.logsumexp(1, keepdim=True)
    # The probability of a class that is not the largest is at most 0.5.
    shares = (logits - total).exp().clamp(max=0.5)
    return (total + torch.log1p(-shares)).scatter(1, best, without_best)
