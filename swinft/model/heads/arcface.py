"""One of K classes by the angle between its features and the classes' directions, with a margin in training.

Shapes: B batch, D features, K outputs, C sub-centres.
"""

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from swinft.errors import InputError
from swinft.model.heads.base import FeatureDropout, Head, check_equal_shapes, checked_fraction
from swinft.model.heads.loss import class_counts
from swinft.ranges import POSITIVE, Range, check_ranges, is_whole

POWER = 0.25  # margins fall with this power of a class's rows (arXiv 2010.05350)
CLOSEST = 1e-6  # of 1 − cos²: the gradient of a sine is infinite at 0


class ArcFaceHead(Head):
    """One of K classes: cosines to the classes' directions, and an additive angular margin in training; probabilities.

    ArcFace (arXiv 1801.07698), with sub-centres (ECCV 2020) and margins by the classes' sizes where they are asked for.
    Predictions are the softmax of `scale` times the cosines, without margin.

    Args:
        in_features: D, given by the backbone.
        num_outputs: K, given by the classes.
        margin: Angle in radians that the true class is moved away by, in [0, 1.5].
        smallest_margin: Margin of the largest class among the rows that the fold trains on, where classes have margins
            by their rows: they fall with its fourth root, from `margin` for the smallest class. None for one margin.
        scale: Factor on the cosines, above 0.
        sub_centres: Directions per class, of which the closest counts: for classes of several looks, or wrong labels.
        embedding: Width of a linear layer in front; None for none.
        label_smoothing: Share of the target's mass spread over all classes, in [0, 1).
        dropout: Probability of dropping a feature, in [0, 1).
        dropout_samples: Masks of dropout per step, over which features are averaged in training (multi-sample dropout).
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
        counts = {"sub_centres": sub_centres, "embedding": 1 if embedding is None else embedding}
        if wrong := [name for name, count in counts.items() if not is_whole(count) or count < 1]:
            raise InputError(f"ArcFaceHead: {wrong[0]} is {counts[wrong[0]]!r}. Allowed: a whole number from 1.")
        if smallest_margin is not None and smallest_margin >= margin:
            raise InputError(f"ArcFaceHead: smallest_margin={smallest_margin} must be below margin={margin}.")
        self.margin, self.smallest_margin, self.scale = margin, smallest_margin, scale
        self.label_smoothing = checked_fraction("label_smoothing", label_smoothing)
        self.dropout = FeatureDropout(dropout, dropout_samples)
        self.embedding = None if embedding is None else nn.Linear(in_features, embedding)
        self.weight = nn.Parameter(torch.empty(num_outputs, sub_centres, embedding or in_features))
        nn.init.normal_(self.weight, std=0.02)  # of a direction only
        self.register_buffer("margins", torch.full((num_outputs,), margin), persistent=smallest_margin is not None)

    @property
    def learns_from_targets(self) -> bool:
        """Where margins follow the classes' rows."""
        return type(self).initialize is not ArcFaceHead.initialize or self.smallest_margin is not None

    @torch.no_grad()
    def initialize(self, target: Tensor) -> None:
        """Sets the margins by the classes' rows; a class without a row has the largest one."""
        if self.smallest_margin is None:
            return
        rows = class_counts(target, self.num_outputs)
        rarity = rows.clamp(min=1).pow(-POWER)
        most, least = rarity[rows > 0].max(), rarity.min()
        place = ((rarity - least) / (most - least)).clamp(max=1) if most > least else torch.ones_like(rarity)
        self.margins.copy_(self.smallest_margin + place * (self.margin - self.smallest_margin))

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to `scale` times the cosines (B, K), in float32."""
        features = self.dropout(features)
        features = features if self.embedding is None else self.embedding(features)
        with torch.autocast(features.device.type, enabled=False):
            given = functional.normalize(features.float(), dim=1)
            directions = functional.normalize(self.weight.float(), dim=2).flatten(0, 1)
            cosines = (given @ directions.T).reshape(-1, self.num_outputs, self.weight.shape[1]).amax(2)
            scaled: Tensor = self.scale * cosines
        return scaled

    def encode(self, target: Tensor) -> Tensor:
        """Class indices (B,) to one-hot rows (B, K)."""
        return functional.one_hot(target, self.num_outputs).float()

    def loss(self, logits: Tensor, encoded: Tensor) -> Tensor:
        """Cross-entropy with a margin on the true class of every row (B,).

        A mixture of classes has the mixture of their losses, each with the margin on its class.
        """
        check_equal_shapes(self, logits, encoded)
        logits = logits.float()
        smoothed = encoded * (1 - self.label_smoothing) + self.label_smoothing / self.num_outputs
        losses = functional.softplus(log_sum_of_others(logits) - self.scale * self._with_margin(logits / self.scale))
        return (smoothed * losses).sum(1)

    def _with_margin(self, cosines: Tensor) -> Tensor:
        """Cosines (B, K) of the angles plus the margins; beyond half a turn a line that goes on falling."""
        cos, sin = self.margins.cos(), self.margins.sin()
        sines = (1 - cosines.square()).clamp(min=CLOSEST).sqrt()
        return torch.where(cosines > -cos, cosines * cos - sines * sin, cosines - sin * self.margins)

    def decode(self, logits: Tensor) -> Tensor:
        """Scaled cosines (B, K) to probabilities (B, K), without margin."""
        return logits.float().softmax(1)

    def decode_rule(self) -> dict[str, Any]:
        """Softmax of the scaled cosines."""
        return {"rule": "softmax"}


def log_sum_of_others(logits: Tensor) -> Tensor:
    """For each class the log of the sum of the exponentials of all the others, (B, K), without cancellation."""
    best = logits.argmax(1, keepdim=True)
    without_best = logits.scatter(1, best, -math.inf).logsumexp(1, keepdim=True)
    total = logits.logsumexp(1, keepdim=True)
    # A class that is not the largest has half of the sum at most.
    shares = (logits - total).exp().clamp(max=0.5)
    return (total + torch.log1p(-shares)).scatter(1, best, without_best)
