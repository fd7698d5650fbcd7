"""Embedding of metadata columns, concatenated to the image's: standardised numbers and embedded categories.

A row's embedding depends on the row and on statistics of the training rows, never on the other rows of its batch. It is
the same in training and evaluation, and a batch may have one row.

Shapes: B batch, N training rows, F features, E encoded features, D embedding.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from swinft.errors import InputError


class MetadataNetwork(nn.Module):
    """Standardises numbers by the training rows, embeds categories, and combines both in one linear layer.

    A missing number is replaced by the mean; if the training rows have missing numbers, an indicator feature marks it.
    A category that is not in the training rows (all its columns 0) gets the mean embedding of the training rows.
    Embeddings start at 0, so that a rare category does not keep a random initial vector.

    Args:
        num_features: F: numbers (NaN if missing), then the one-hot columns of each category column.
        category_sizes: Number of one-hot columns of each category column; empty if all features are numbers.
        width: D.

    Raises:
        InputError: There are fewer features than one-hot columns.
    """

    mean: Tensor
    scale: Tensor
    has_gaps: Tensor
    frequency: Tensor

    def __init__(self, num_features: int, category_sizes: Sequence[int], width: int) -> None:
        super().__init__()
        self.num_features, self.category_sizes = num_features, list(category_sizes)
        self.num_numeric = num_features - sum(self.category_sizes)
        if self.num_numeric < 0 or any(size < 0 for size in self.category_sizes):
            raise InputError(f"category_sizes {self.category_sizes} do not fit into num_metadata, {num_features}.")
        # Statistics of the training rows, saved with the weights.
        self.register_buffer("mean", torch.zeros(self.num_numeric))
        self.register_buffer("scale", torch.ones(self.num_numeric))
        self.register_buffer("has_gaps", torch.zeros(self.num_numeric))
        self.register_buffer("frequency", torch.zeros(sum(self.category_sizes)))
        self.linear = nn.Linear(num_features + self.num_numeric, width)
        nn.init.zeros_(self.linear.weight[:, 2 * self.num_numeric :])

    @torch.no_grad()
    def initialize(self, features: Tensor) -> None:
        """Computes the statistics from the features of the training rows (N, F), in float64."""
        numbers, one_hot = features[:, : self.num_numeric].double(), features[:, self.num_numeric :]
        is_known = ~numbers.isnan()
        count = is_known.sum(0).clamp_min(1)
        mean = numbers.nan_to_num(0.0).sum(0) / count
        deviation = ((numbers - mean).nan_to_num(0.0).square().sum(0) / count).sqrt()
        largest, smallest = numbers.nan_to_num(-torch.inf).amax(0), numbers.nan_to_num(torch.inf).amin(0)
        # A constant column trains no weight: another value at prediction must not be multiplied by a random one.
        varies = largest > smallest
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(varies, 1 / deviation, 0.0))
        self.has_gaps.copy_(~is_known.all(0))
        # Summed in float64 without a float64 copy, which would take twice the memory.
        counts = [block.sum(0, dtype=torch.float64) for block in torch.split(one_hot, self.category_sizes, 1)]
        self.frequency.copy_(torch.cat([count / count.sum().clamp_min(1) for count in counts] or [one_hot[0]]))

    def encode(self, features: Tensor) -> Tensor:
        """Features (B, F) to encoded features that can be mixed (mixup), float32 (B, E)."""
        numbers, one_hot = features[:, : self.num_numeric].float(), features[:, self.num_numeric :].float()
        is_missing = numbers.isnan()
        standard = ((numbers - self.mean) * self.scale).masked_fill(is_missing, 0.0)
        # If a row's one-hot columns sum to less than 1, the rest is distributed as in the training rows.
        blocks = zip(
            torch.split(one_hot, self.category_sizes, 1), torch.split(self.frequency, self.category_sizes), strict=True
        )
        categories = [block + (1 - block.sum(1, keepdim=True)) * frequency for block, frequency in blocks]
        return torch.cat([standard, is_missing * self.has_gaps, *categories], dim=1)

    def embed(self, encoded: Tensor) -> Tensor:
        """Encoded features (B, E) to the embedding (B, D)."""
        return functional.gelu(self.linear(encoded))

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, F) to the embedding (B, D)."""
        return self.embed(self.encode(features))

    def draw(self, num_rows: int, generator: torch.Generator) -> Tensor:
        """Random features (num_rows, F), each column distributed as in the training rows, independently."""
        spread = (1 / self.scale).nan_to_num(posinf=0.0)
        numbers = self.mean + spread * torch.randn(num_rows, self.num_numeric, generator=generator)
        columns = [
            functional.one_hot((frequency + 1e-6).multinomial(num_rows, True, generator=generator), len(frequency))
            for frequency in torch.split(self.frequency, self.category_sizes)
            if len(frequency)
        ]
        return torch.cat([numbers, *columns], dim=1)
