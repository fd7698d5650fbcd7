"""Heads for ordered classes or grades: a sigmoid for each threshold between two grades.

Shapes: B batch, N training rows, D features, K outputs, G grades, J = G − 1 thresholds.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from swinft.errors import InputError
from swinft.model.heads.base import CERTAIN_NEGATIVE, FeatureDropout, Head, check_equal_shapes
from swinft.model.heads.loss import class_counts
from swinft.model.heads.regression import check_inside
from swinft.ranges import FINITE

OrdinalForm = Literal["cumulative", "coral"]
FORMS = ("cumulative", "coral")


class Thresholds(nn.Module):
    """Features (B, D) to the logits (B, K, J) that a target is above each threshold, in float32.

    Args:
        in_features: D.
        num_outputs: K.
        num_thresholds: J.
        form: `cumulative`: each threshold has its own weights; `coral`: all thresholds of an output share their
            weights and differ only in their biases (arXiv 1901.07884).
    """

    def __init__(self, in_features: int, num_outputs: int, num_thresholds: int, form: OrdinalForm) -> None:
        super().__init__()
        if form not in FORMS:
            raise InputError(f"form is '{form}'; it must be {' or '.join(FORMS)}.")
        self.per_output = 1 if form == "coral" else num_thresholds
        self.linear = nn.Linear(in_features, num_outputs * self.per_output, bias=False)
        nn.init.trunc_normal_(self.linear.weight, std=0.02)  # small, as of a linear head
        self.bias = nn.Parameter(torch.zeros(num_outputs, num_thresholds))

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, K, J)."""
        scores: Tensor = self.linear(features)
        return scores.float().reshape(-1, len(self.bias), self.per_output) + self.bias

    @torch.no_grad()
    def start_at(self, shares: Tensor) -> None:
        """Sets the biases to the fractions of the training rows that are above each threshold, (K, J)."""
        self.bias.copy_(torch.logit(shares, eps=1e-4))


def grade_probabilities(logits: Tensor) -> Tensor:
    """Logits of the thresholds (…, J) to probabilities of the grades (…, G).

    A grade's probability is the difference of the sigmoids of its two thresholds, clipped at 0 and normalised.
    """
    above = logits.sigmoid()
    ends = torch.ones_like(above[..., :1]), torch.zeros_like(above[..., :1])
    steps = torch.cat([ends[0], above], -1) - torch.cat([above, ends[1]], -1)
    steps = steps.clamp(min=0)
    return steps / steps.sum(-1, keepdim=True)


class OrdinalHead(Head):
    """Predicts one of K ordered classes: a sigmoid for each of the K − 1 thresholds; predictions are probabilities.

    The loss is the sum of the thresholds' binary cross-entropies. The order is that of the numbers if all classes are
    numbers, else that of `data.columns.class_order`.

    Args:
        in_features: D, given by the backbone.
        num_outputs: K, given by the classes.
        form: `cumulative`: each threshold has its own weights; `coral`: all thresholds share their weights.
        dropout: Probability of dropping a feature, in [0, 1).
        dropout_samples: Number of dropout masks per step; the logits are averaged over them.
    """

    kind = "classification"
    default_metrics: ClassVar[list[str]] = ["quadratic_kappa", "accuracy", "log_loss"]
    needs_order = True

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        form: OrdinalForm = "cumulative",
        dropout: float = 0.0,
        dropout_samples: int = 1,
    ) -> None:
        super().__init__(in_features, num_outputs)
        self.dropout = FeatureDropout(dropout, dropout_samples)
        self.thresholds = Thresholds(in_features, 1, max(num_outputs - 1, 1), form)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, K − 1) of the thresholds."""
        logits: Tensor = self.thresholds(self.dropout(features))
        return logits.flatten(1)

    def encode(self, target: Tensor) -> Tensor:
        """Class indices (B,) to whether the class is above each threshold, 0 or 1 (B, K − 1)."""
        one_hot = functional.one_hot(target, self.num_outputs)
        return one_hot.flip(1).cumsum(1).flip(1)[:, 1:].float()

    @torch.no_grad()
    def initialize(self, target: Tensor) -> None:
        """Sets the biases so that training starts at the fractions of the classes among the training rows."""
        shares = class_counts(target, self.num_outputs) / len(target)
        self.thresholds.start_at(shares.flip(0).cumsum(0).flip(0)[None, 1:].float())

    def loss(self, logits: Tensor, encoded: Tensor) -> Tensor:
        """Sum of the thresholds' binary cross-entropies of every row (B,)."""
        check_equal_shapes(self, logits, encoded)
        return functional.binary_cross_entropy_with_logits(logits.float(), encoded, reduction="none").sum(1)

    def decode(self, logits: Tensor) -> Tensor:
        """Logits (B, K − 1) to probabilities (B, K)."""
        return grade_probabilities(logits.float())

    def decode_rule(self) -> dict[str, Any]:
        """Differences of the sigmoids."""
        return {"rule": "differences of the sigmoids of the thresholds, clipped at 0, divided by their sum"}


class OrdinalRegressionHead(Head):
    """Predicts numbers that are grades: a sigmoid for each threshold; predictions are the expected grades.

    A target between two grades, such as a mean of votes, is a mixture of both.

    Args:
        in_features: D, given by the backbone.
        num_outputs: K, given by the target columns.
        grades: The G grades, from the lowest to the highest, in the target's units.
        form: As in `OrdinalHead`.
        dropout: Probability of dropping a feature, in [0, 1).
        dropout_samples: Number of dropout masks per step; the logits are averaged over them.
    """

    kind = "regression"
    default_metrics: ClassVar[list[str]] = ["rmse", "mae", "r2"]

    grades: Tensor

    def __init__(
        self,
        in_features: int,
        num_outputs: int,
        grades: list[float],
        form: OrdinalForm = "cumulative",
        dropout: float = 0.0,
        dropout_samples: int = 1,
    ) -> None:
        super().__init__(in_features, num_outputs)
        check_grades(grades)
        self.register_buffer("grades", torch.tensor(grades, dtype=torch.float32), persistent=False)
        self.dropout = FeatureDropout(dropout, dropout_samples)
        self.thresholds = Thresholds(in_features, num_outputs, len(grades) - 1, form)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, K, J)."""
        logits: Tensor = self.thresholds(self.dropout(features))
        return logits

    @property
    def neutral_logit(self) -> float:
        """A logit of the lowest grade."""
        return CERTAIN_NEGATIVE

    def encode(self, target: Tensor) -> Tensor:
        """Numbers (B, K) to the fraction of each interval between two grades that is below them (B, K, J)."""
        low, high = self.grades[:-1], self.grades[1:]
        return ((target.float()[..., None] - low) / (high - low)).clamp(0, 1)

    @torch.no_grad()
    def initialize(self, target: Tensor) -> None:
        """Sets the biases so that training starts at the fractions of the grades among the training rows.

        Raises:
            InputError: A target is outside the grades.
        """
        grades = self.grades.tolist()
        check_inside(target, grades[0], grades[-1], "grades")
        self.thresholds.start_at(self.encode(target).nanmean(0))

    def loss(self, logits: Tensor, encoded: Tensor) -> Tensor:
        """Sum of the thresholds' binary cross-entropies of every row (B,), averaged over its targets."""
        check_equal_shapes(self, logits, encoded)
        losses = functional.binary_cross_entropy_with_logits(logits.float(), encoded, reduction="none")
        return losses.sum(2).mean(1)

    def decode(self, logits: Tensor) -> Tensor:
        """Logits (B, K, J) to expected grades (B, K)."""
        return (grade_probabilities(logits.float()) * self.grades).sum(2)

    def decode_rule(self) -> dict[str, Any]:
        """The mean of the grades, weighted by their probabilities."""
        rule = "mean of the grades, weighted by the clipped and normalised differences of the thresholds' sigmoids"
        return {"rule": rule, "grades": self.grades.tolist()}


def check_grades(grades: Sequence[float]) -> None:
    """Checks that grades are rising finite numbers.

    Raises:
        InputError: They are not, or there are fewer than two.
    """
    if len(grades) < 2 or any(each not in FINITE for each in grades) or any(a >= b for a, b in pairwise(grades)):
        raise InputError(
            f"OrdinalRegressionHead: grades is {list(grades)}; it must hold two finite numbers or more, from the "
            f"lowest to the highest: [0, 1, 2, 3, 4]."
        )
