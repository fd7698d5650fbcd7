"""fp16's loss scaling: which optimiser steps it skips, how many, and when that is more than finding a scale takes.

fp16 holds numbers up to 65,504. A GradScaler multiplies the loss so that small gradients are not lost, and where a
gradient overflows it leaves the optimiser out, halves the scale and goes on: the weights stay as they were. What counts
steps that were taken (averages of weights, the schedule) must not count those.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

# Of an epoch's steps. Once a scale is found, one step in 2,000 is skipped to try a larger one. Where a tenth of them
# is, the rows behind them are not learnt from, and the scale falls until small gradients vanish.
MAX_SKIPPED = 0.1
STATISTICS = ("running_mean", "running_var")  # buffers of BatchNorm


@dataclass(frozen=True)
class Skips:
    """What loss scaling did in an epoch.

    Args:
        steps: Optimiser steps that were due.
        skipped: Those of them that were not taken.
        scale_before: What the loss was multiplied by at the start.
        scale: The same at the end.
    """

    steps: int
    skipped: int
    scale_before: float
    scale: float

    @property
    def is_too_many(self) -> bool:
        """Whether more steps were skipped than it takes to find a scale.

        Each halves the scale. At a scale of 1 a gradient that overflows is itself out of range, so that what was above
        it at the start is what may be lost by looking for one: 16 halvings from torch's first scale, 65,536.
        """
        halvings = math.log2(self.scale_before) if self.scale_before > 1 else 0.0
        return self.skipped > halvings + MAX_SKIPPED * self.steps

    def describe(self) -> str | None:
        """One line, without an end; None where no step was skipped."""
        if not self.skipped:
            return None
        said = f"{self.skipped} of {self.steps} steps were skipped: fp16 overflow, scale now {self.scale:.6g}"
        return said if self.scale >= 1 else f"{said}; below 1 small gradients are lost, which 32-true keeps"


class StepTracker:
    """Knows of every batch whether the optimiser ran, and counts.

    A scaler waits for the device to say whether it must skip the step; that the optimiser did not run is known without
    asking again.
    """

    def __init__(self) -> None:
        self.is_due = self.is_taken = False  # in this batch
        self._due = self._skipped = 0  # in this epoch
        self._scale_before = 1.0

    @property
    def is_skipped(self) -> bool:
        """Whether the batch should have been followed by an optimiser step, and was not."""
        return self.is_due and not self.is_taken

    def track(self, optimizers: Iterable[Optimizer]) -> None:
        """Sees from now on when an optimiser runs."""
        self.end_batch()
        for optimizer in optimizers:
            optimizer.register_step_post_hook(self._note)

    def start_epoch(self, scaler: Any) -> None:
        """Counts from 0.

        Args:
            scaler: torch's GradScaler; None without loss scaling.
        """
        self._due = self._skipped = 0
        self._scale_before = scaler.get_scale() if scaler else 1.0

    def end_batch(self) -> None:
        """Counts what the batch came to."""
        self._due += self.is_due
        self._skipped += self.is_skipped
        self.is_due = self.is_taken = False

    def skips(self, scaler: Any) -> Skips | None:
        """What was skipped since the epoch's start; None without loss scaling. It waits for the device."""
        return Skips(self._due, self._skipped, self._scale_before, scaler.get_scale()) if scaler else None

    def _note(self, *_: Any) -> None:
        self.is_taken = True


@torch.no_grad()
def first_not_finite(net: nn.Module) -> str | None:
    """Name of the first weight, or statistic of BatchNorm, that is not finite; other buffers may hold infinities."""
    tensors: dict[str, Tensor] = dict(net.named_parameters())
    tensors |= {name: buffer for name, buffer in net.named_buffers() if name.endswith(STATISTICS)}
    norms = torch.stack([norm.float() for norm in torch._foreach_norm([*tensors.values()])])
    is_finite = norms.isfinite().tolist()
    return next((name for name, is_right in zip(tensors, is_finite, strict=True) if not is_right), None)
