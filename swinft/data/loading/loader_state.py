"""Epoch, rank and device of a datamodule's loaders, from the Trainer or, without one, from the passes so far."""

from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerStatus

from swinft.data.loading.device_loader import default_device
from swinft.data.loading.workers import Destination
from swinft.errors import InputError


class LoaderState:
    """Epoch and destination of the loaders.

    The Trainer is an argument: storing it would keep the datamodule and its cache alive after use.
    """

    def __init__(self) -> None:
        self.resumed_epoch = 0  # from a checkpoint
        self.passes = 0  # in loops without a Trainer
        self.destination: Destination | None = None  # set by a command

    def epoch(self, trainer: Trainer | None) -> int:
        """The current epoch.

        Lightning restores its own count only after it has started the first loader (to count its batches), whose
        workers have then fetched rows already. The datamodule's state is restored before that. Right after a resume,
        `trainer.current_epoch` would be one too low.
        """
        progress: Any = trainer.fit_loop.epoch_progress.current if trainer else None
        return max(self.resumed_epoch, int(progress.processed) if progress else 0)

    def next_pass(self) -> int:
        """The epoch of the next pass in a loop without a Trainer."""
        self.passes += 1
        return self.passes - 1

    def resolve_destination(self, trainer: Trainer | None) -> Destination:
        """Where the batches go: set by a command, else the Trainer's devices, else the GPU if there is one."""
        if self.destination is not None:
            return self.destination
        return Destination(device_of(trainer), devices=trainer.num_devices if trainer else 1)


def is_running(trainer: Trainer | None) -> bool:
    """Whether a Trainer runs; it stays attached after it has ended."""
    return trainer is not None and trainer.state.status == TrainerStatus.RUNNING


def rank_and_world_size(trainer: Trainer | None) -> tuple[int, int]:
    """Rank and number of processes of a running Trainer; (0, 1) otherwise.

    Raises:
        InputError: The Trainer would split the rows a second time.
    """
    if trainer is None or not is_running(trainer):
        return 0, 1
    if trainer.world_size > 1 and trainer._accelerator_connector.use_distributed_sampler:
        # Lightning would split the rows of each rank again: most rows would never be visited.
        raise InputError("build the Trainer with use_distributed_sampler=False: the datamodule splits the rows itself.")
    return trainer.global_rank, trainer.world_size


def device_of(trainer: Trainer | None) -> torch.device:
    """The Trainer's device; without a Trainer, the GPU if there is one."""
    return trainer.strategy.root_device if trainer else default_device()
