"""Evaluated rows, gathered from all batches and ranks: each row once, in row order.

Shapes: B rows, K outputs, A auxiliary targets.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Evaluated(NamedTuple):
    """Row indices int64 (B,), negative for padding, with their predictions (B, K), targets (B, …) and losses (B,).

    `auxiliary` are the losses of the auxiliary targets (B, A), NaN in rows that lack them; None if there are none.
    """

    rows: Tensor
    predictions: Tensor
    targets: Tensor
    losses: Tensor
    auxiliary: Tensor | None = None

    @classmethod
    def joined(cls, parts: Sequence["Evaluated"]) -> "Evaluated":
        """Concatenates batches, on the CPU."""
        columns = (None if tensors[0] is None else torch.cat(tensors).cpu() for tensors in zip(*parts, strict=True))
        return cls(*columns)  # type: ignore[arg-type]


def pooled_rows(of_ranks: Sequence[Evaluated]) -> Evaluated:
    """The rows of all ranks, each once, in row order, without padding."""
    pooled = Evaluated.joined(of_ranks)
    order = pooled.rows.argsort(stable=True)
    is_first = torch.ones_like(order, dtype=torch.bool)
    is_first[1:] = pooled.rows[order][1:] != pooled.rows[order][:-1]
    chosen = order[is_first & (pooled.rows[order] >= 0)]
    return Evaluated(*(None if part is None else part[chosen] for part in pooled))  # type: ignore[arg-type]
