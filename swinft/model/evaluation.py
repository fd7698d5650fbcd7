"""Predictions and evaluated rows of a batch, of images or of tiles; evaluated rows of all batches and ranks, each once.

Shapes: B rows, K outputs, A auxiliary targets.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from swinft.errors import InputError, listed
from swinft.model.auxiliary import KEY
from swinft.model.heads.contract import decoded, encoded_targets, evaluated, row_losses
from swinft.model.network import ImageModel
from swinft.model.tiles import LogitsOf, Tiling, evaluated_tiles, predicted_tiles

LARGE = 512  # numbers of a row; 100,000 rows are then 200 MB


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
        if len(parts) == 1:
            return cls(*(None if each is None else each.cpu() for each in parts[0]))  # type: ignore[arg-type]
        columns = (None if tensors[0] is None else torch.cat(tensors).cpu() for tensors in zip(*parts, strict=True))
        return cls(*columns)  # type: ignore[arg-type]

    def kept(self) -> "Evaluated":
        """The batch as it is kept until all are scored: of many classes on the CPU, or they would fill a GPU."""
        if self.predictions.numel() < LARGE * len(self.rows):
            return self
        return Evaluated.joined([self])


def pooled_rows(of_ranks: Sequence[Evaluated]) -> Evaluated:
    """The rows of all ranks, each once, in row order, without padding.

    Raises:
        InputError: Rows with different targets have the same number: one of them would not be scored.
    """
    pooled = Evaluated.joined(of_ranks)
    order = pooled.rows.argsort(stable=True)
    order = order[pooled.rows[order] >= 0]
    is_first = torch.ones_like(order, dtype=torch.bool)
    is_first[1:] = pooled.rows[order][1:] != pooled.rows[order][:-1]
    again = (~is_first).nonzero().flatten()
    before, after = (pooled.targets[order[places]].double() for places in (again - 1, again))
    if not torch.equal(before.nan_to_num(nan=-1e300), after.nan_to_num(nan=-1e300)):
        raise InputError(
            f"two rows with the number {int(pooled.rows[order[again[0]]])} in `row` of the batches have different "
            f"targets: number each row of the loaders differently, from 0."
        )
    chosen = order[is_first]
    if torch.equal(chosen, torch.arange(len(pooled.rows))):
        return pooled
    return Evaluated(*(None if part is None else part[chosen] for part in pooled))  # type: ignore[arg-type]


def check_batch(batch: Any, *more: str) -> None:
    """Checks the keys of a batch of a loader, which may be a user's own.

    Args:
        batch: What the loader gave.
        more: Keys that it must have besides `image` and `row`.

    Raises:
        InputError: It is no dictionary, or lacks some.
    """
    names = ("image", "row", *more)
    if not isinstance(batch, Mapping):
        raise InputError(f"a batch is a {type(batch).__name__}; it must be a dictionary with {listed(names)}.")
    if lacking := [name for name in names if name not in batch]:
        raise InputError(
            f"a batch lacks {listed(lacking)}: it must have {listed(names)}; `row` is a number for each row, int64 "
            f"(B,), by which each is scored once."
        )


def predicted_batch(net: ImageModel, logits_of: LogitsOf, batch: dict[str, Tensor]) -> Tensor:
    """Predictions (B, K), or maps (B, K, H, W), in the competition's units; arguments as of `evaluated_batch`."""
    if (tiling := Tiling.of(batch)) is not None:
        return predicted_tiles(net.head, logits_of, batch, tiling)
    return decoded(net.head, logits_of(batch)[0])


def evaluated_batch(net: ImageModel, logits_of: LogitsOf, batch: dict[str, Tensor]) -> Evaluated:
    """Rows, predictions, targets and losses of a batch.

    Args:
        net: The network that predicts.
        logits_of: A batch to logits (B, …) of the head, and to those of the auxiliary targets.
        batch: With its targets; of one image if that is predicted in tiles.
    """
    head = net.head
    if (tiling := Tiling.of(batch)) is not None:
        return Evaluated(batch["row"], *evaluated_tiles(head, logits_of, batch, tiling))
    logits, others = logits_of(batch)
    losses = row_losses(head, logits, encoded_targets(head, batch["target"], len(logits)))
    found = Evaluated(batch["row"], *evaluated(head, logits, batch["target"]), losses)
    if net.auxiliary is not None and KEY.format(0) in batch:  # a test table may lack them
        found = found._replace(auxiliary=net.auxiliary.evaluated(others, batch))
    return found
