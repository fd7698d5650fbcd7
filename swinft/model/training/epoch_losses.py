"""The losses of an epoch's batches, kept on the device: their mean, and the first that is not finite.

Reading the value of a loss synchronises the device, and arithmetic on each one launches kernels; training steps do
neither.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

STACKED = 256  # losses stacked into one tensor: on a GPU each single one takes a memory block


@dataclass(frozen=True)
class BatchLoss:
    """A batch's number in the epoch, its mean loss () on the device, and its rows (B,)."""

    number: int
    loss: Tensor
    rows: Tensor


@dataclass(frozen=True)
class BadBatch:
    """A batch with a NaN or infinite loss: its number in the epoch, and its rows."""

    number: int
    rows: list[int]


class EpochLosses:
    """Losses of the batches whose optimiser step was taken; steps skipped by loss scaling are left out."""

    def __init__(self) -> None:
        self.start_epoch()

    def start_epoch(self) -> None:
        """Clears all losses."""
        self._step: list[BatchLoss] = []  # since the last step
        self._taken: list[tuple[int, Tensor]] = []  # numbers and rows of all batches of taken steps
        self._stacked: list[Tensor] = []  # their losses
        self._single: list[Tensor] = []  # losses not stacked yet
        self.first_skipped: BadBatch | None = None  # the first bad batch of skipped steps

    def add(self, number: int, loss: Tensor, rows: Tensor) -> None:
        """Adds the loss of a batch whose optimiser step is not done yet."""
        self._step.append(BatchLoss(number, loss, rows))

    def end_step(self, is_taken: bool) -> None:
        """Counts the batches since the last step, or leaves them out if it was skipped."""
        batches, self._step = self._step, []
        if not is_taken:
            if self.first_skipped is None:  # rare enough to synchronise the device
                losses = [batch.loss for batch in batches]
                self.first_skipped = _first_bad(losses, [(batch.number, batch.rows) for batch in batches])
            return
        for batch in batches:
            self._taken.append((batch.number, batch.rows))
            self._single.append(batch.loss.float())
        if len(self._single) >= STACKED:
            self._stacked.append(torch.stack(self._single))
            self._single = []

    def mean(self) -> tuple[Tensor, int] | None:
        """Mean loss () over the rows, and how many rows; None if no step was taken."""
        if not self._taken:
            return None
        losses = torch.cat([*self._stacked, *(loss.view(1) for loss in self._single)])
        counts = torch.tensor([float(len(rows)) for _, rows in self._taken], device=losses.device)
        return (losses * counts).sum() / counts.sum(), sum(len(rows) for _, rows in self._taken)

    def first_bad(self) -> BadBatch | None:
        """The first bad batch whose step was taken. Synchronises the device."""
        return _first_bad([*self._stacked, *(loss.view(1) for loss in self._single)], self._taken)


def _first_bad(losses: list[Tensor], batches: list[tuple[int, Tensor]]) -> BadBatch | None:
    """The first batch (number, rows) whose loss is not finite."""
    if not batches:
        return None
    bad = torch.cat([loss.view(-1) for loss in losses]).isfinite().logical_not().nonzero()
    if not len(bad):
        return None
    number, rows = batches[int(bad[0])]
    return BadBatch(number, rows.tolist())
