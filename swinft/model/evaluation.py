"""Evaluated rows, gathered from all batches and ranks: each row once, in row order.

Shapes: B rows, K outputs.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Evaluated(NamedTuple):
    """Row indices int64 (B,), negative for padding, with their predictions (B, K), targets (B, …) and losses (B,)."""

    rows: Tensor
    predictions: Tensor
    targets: Tensor
    losses: Tensor

    @classmethod
    def joined(cls, parts: Sequence["Evaluated"]) -> "Evaluated":
        """Concatenates batches, on the CPU."""
        return cls(*(torch.cat(tensors).cpu() for tensors in zip(*parts, strict=True)))


def pooled_rows(of_ranks: Sequence[Evaluated]) -> Evaluated:
    """The rows of all ranks, each once, in row order, without padding."""
    pooled = Evaluated.joined(of_ranks)
    order = pooled.rows.argsort(stable=True)
    is_first = torch.ones_like(order, dtype=torch.bool)
    is_first[1:] = pooled.rows[order][1:] != pooled.rows[order][:-1]
    chosen = order[is_first & (pooled.rows[order] >= 0)]
    return Evaluated(*(part[chosen] for part in pooled))
