"""Tracks the optimiser steps that fp16's loss scaling skips, and detects when they are too many.

The largest fp16 number is 65,504. A GradScaler multiplies the loss so that small gradients are not lost. If a gradient
overflows, it skips the optimiser step and halves the scale; the weights do not change. Such steps must not count for
the averaged weights and the schedule.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

# Fraction of an epoch's steps. With a stable scale, one step in 2,000 is skipped to try a larger one. If a tenth is
# skipped, their rows are not learnt from, and the scale falls until small gradients vanish.
MAX_SKIPPED = 0.1
STATISTICS = ("running_mean", "running_var")  # buffers of BatchNorm


@dataclass(frozen=True)
class Skips:
    """Loss scaling in an epoch.

    Args:
        steps: Optimiser steps that were due.
        skipped: Number of skipped steps.
        scale_before: The scale at the start.
        scale: The scale at the end.
    """

    steps: int
    skipped: int
    scale_before: float
    scale: float

    @property
    def is_too_many(self) -> bool:
        """Whether more steps were skipped than needed to find a scale.

        Each skipped step halves the scale. At scale 1, a gradient that overflows is itself out of range. So finding a
        scale may take as many halvings as there are from the initial scale to 1: 16 from torch's default of 65,536.
        """
        halvings = math.log2(self.scale_before) if self.scale_before > 1 else 0.0
        return self.skipped > halvings + MAX_SKIPPED * self.steps

    def describe(self) -> str | None:
        """One line, without a full stop; None if no step was skipped."""
        if not self.skipped:
            return None
        line = f"{self.skipped} of {self.steps} steps were skipped: fp16 overflow, scale now {self.scale:.6g}"
        return line if self.scale >= 1 else f"{line}; below 1 small gradients are lost, which 32-true keeps"


class StepTracker:
    """Tracks for every batch whether the optimiser took a step.

    The scaler has already synchronised with the device to decide; a hook of the optimiser sees the result without doing
    so again.
    """

    def __init__(self) -> None:
        self.is_due = self.is_taken = False  # in this batch
        self._due = self._skipped = 0  # in this epoch
        self._scale_before = 1.0

    @property
    def is_skipped(self) -> bool:
        """Whether a step was due after the batch and was skipped."""
        return self.is_due and not self.is_taken

    def track(self, optimizers: Iterable[Optimizer]) -> None:
        """Registers hooks on the optimisers."""
        self.end_batch()
        for optimizer in optimizers:
            optimizer.register_step_post_hook(self._note)

    def start_epoch(self, scaler: Any) -> None:
        """Resets the counters.

        Args:
            scaler: torch's GradScaler; None without loss scaling.
        """
        self._due = self._skipped = 0
        self._scale_before = scaler.get_scale() if scaler else 1.0

    def end_batch(self) -> None:
        """Counts the batch's step, if one was due."""
        self._due += self.is_due
        self._skipped += self.is_skipped
        self.is_due = self.is_taken = False

    def skips(self, scaler: Any) -> Skips | None:
        """Skipped steps since the epoch's start; None without loss scaling. Synchronises the device."""
        return Skips(self._due, self._skipped, self._scale_before, scaler.get_scale()) if scaler else None

    def _note(self, *_: Any) -> None:
        self.is_taken = True


@torch.no_grad()
def first_not_finite(net: nn.Module) -> str | None:
    """Name of the first weight, or statistic of BatchNorm, that is not finite; other buffers may contain infinities."""
    tensors: dict[str, Tensor] = dict(net.named_parameters())
    tensors |= {name: buffer for name, buffer in net.named_buffers() if name.endswith(STATISTICS)}
    norms = torch.stack([norm.float() for norm in torch._foreach_norm([*tensors.values()])])
    is_finite = norms.isfinite().tolist()
    return next((name for name, is_right in zip(tensors, is_finite, strict=True) if not is_right), None)
