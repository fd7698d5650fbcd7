"""The losses of an epoch's batches, kept on the device: their mean, and the first that is no number.

Asking a loss for its value waits for the device, and arithmetic on each one costs the launch of its kernels; the steps
do neither.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

STACKED = 256  # losses that become one tensor: on a GPU each takes a block of memory of its own


@dataclass(frozen=True)
class BatchLoss:
    """Of a batch: its number in the epoch, its mean loss () on the device, and its rows (B,)."""

    number: int
    loss: Tensor
    rows: Tensor


@dataclass(frozen=True)
class BadBatch:
    """A batch with a NaN or infinite loss: its number in the epoch, and its rows. The first of several is the least."""

    number: int
    rows: list[int]


class EpochLosses:
    """Losses of the batches that steps were taken with; those of steps that loss scaling skipped do not count."""

    def __init__(self) -> None:
        self.start_epoch()

    def start_epoch(self) -> None:
        """Forgets everything."""
        self._step: list[BatchLoss] = []  # since the last step
        self._taken: list[tuple[int, Tensor]] = []  # numbers and rows of all batches
        self._stacked: list[Tensor] = []  # their losses
        self._single: list[Tensor] = []  # those that are not stacked yet
        self.first_skipped: BadBatch | None = None  # the first bad one of the skipped steps

    def add(self, number: int, loss: Tensor, rows: Tensor) -> None:
        """Keeps the loss of a batch whose step is still to come."""
        self._step.append(BatchLoss(number, loss, rows))

    def end_step(self, is_taken: bool) -> None:
        """Counts the batches since the last step, or leaves them out."""
        batches, self._step = self._step, []
        if not is_taken:
            if self.first_skipped is None:  # seldom enough to ask the device
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
        """Mean loss () over the rows, and how many rows; None where no step was taken."""
        if not self._taken:
            return None
        losses = torch.cat([*self._stacked, *(loss.view(1) for loss in self._single)])
        counts = torch.tensor([float(len(rows)) for _, rows in self._taken], device=losses.device)
        return (losses * counts).sum() / counts.sum(), sum(len(rows) for _, rows in self._taken)

    def first_bad(self) -> BadBatch | None:
        """The first bad batch that a step was taken with. It waits for the device."""
        return _first_bad([*self._stacked, *(loss.view(1) for loss in self._single)], self._taken)


def _first_bad(losses: list[Tensor], batches: list[tuple[int, Tensor]]) -> BadBatch | None:
    """The first of some batches, given by numbers and rows, whose loss is not finite."""
    if not batches:
        return None
    bad = torch.cat([loss.view(-1) for loss in losses]).isfinite().logical_not().nonzero()
    if not len(bad):
        return None
    number, rows = batches[int(bad[0])]
    return BadBatch(number, rows.tolist())
