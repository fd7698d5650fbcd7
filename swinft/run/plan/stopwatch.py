"""The clock of a shortened training: when its epochs, batches and validations begin and end."""

import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

LEAST = 0.5  # batches from which a rate is told


@dataclass
class EpochTimes:
    """When the parts of an epoch were over, in seconds of `time.monotonic`.

    Args:
        started: Its start.
        batches: The end of each training batch.
        validation_started: The start of its validation; 0 without one.
        validated: The end of each validation batch.
        validation_ended: The end of its validation.
        ended: Its end, after what was saved.
    """

    started: float
    batches: list[float] = field(default_factory=list)
    validation_started: float = 0.0
    validated: list[float] = field(default_factory=list)
    validation_ended: float = 0.0
    ended: float = 0.0


class Stopwatch(Callback):
    """Notes the times of every epoch. The device is waited for, so that the time of a batch is its own."""

    def __init__(self) -> None:
        self.epochs: list[EpochTimes] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the epoch before, which has been saved, and starts one."""
        self._end_epoch(trainer)
        self.epochs.append(EpochTimes(time.monotonic()))

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Notes the end of a batch."""
        self.epochs[-1].batches.append(self._now(trainer))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes the start of a validation."""
        self.epochs[-1].validation_started = self._now(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Notes the end of a batch of the validation."""
        self.epochs[-1].validated.append(self._now(trainer))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes the end of a validation."""
        self.epochs[-1].validation_ended = self._now(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends the last epoch."""
        self._end_epoch(trainer)

    def _end_epoch(self, trainer: Trainer) -> None:
        if self.epochs:
            self.epochs[-1].ended = self._now(trainer)

    def _now(self, trainer: Trainer) -> float:
        device = trainer.strategy.root_device
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return time.monotonic()


def of_batches(times: list[float], started: float, skipped: int, number: float | None = None) -> tuple[float, float]:
    """Seconds of a batch, and of all else until the last one.

    Args:
        times: The end of each batch.
        started: When the first one could begin.
        skipped: Batches at the start by whose end the clock starts, if enough are left.
        number: How many they are, if the last one is incomplete.
    """
    number = len(times) if number is None else number
    skipped = min(skipped, math.ceil(number) - 1)
    if skipped < 1 or number - skipped < LEAST:
        return (times[-1] - started) / max(number, LEAST), 0.0
    batch = (times[-1] - times[skipped - 1]) / (number - skipped)
    return batch, max(0.0, times[-1] - started - number * batch)
