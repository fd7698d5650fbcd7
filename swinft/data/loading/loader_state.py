"""What a datamodule's loaders follow: the Trainer's epoch and processes, or passes of a loop without one."""

from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import TrainerStatus

from swinft.data.loading.device_loader import default_device
from swinft.data.loading.workers import Destination
from swinft.errors import InputError


class LoaderState:
    """Which epoch it is, which process this is, and what computes.

    The Trainer is an argument: an object that held the datamodule would keep it, and its cache, when nobody uses it.
    """

    def __init__(self) -> None:
        self.resumed_epoch = 0  # of a checkpoint
        self.passes = 0  # of loops without a Trainer
        self.destination: Destination | None = None  # as a command has set it

    def epoch(self, trainer: Trainer | None) -> int:
        """The epoch to visit rows for.

        Lightning restores its own count only after it has started the first loader (to count its batches), whose
        processes have then fetched rows already; the datamodule's state is restored before. `trainer.current_epoch`
        would be one too low right after a resume.
        """
        progress: Any = trainer.fit_loop.epoch_progress.current if trainer else None
        return max(self.resumed_epoch, int(progress.processed) if progress else 0)

    def next_pass(self) -> int:
        """The epoch of the next pass of loops without a Trainer."""
        self.passes += 1
        return self.passes - 1

    def resolve_destination(self, trainer: Trainer | None) -> Destination:
        """What the batches go to: as a command has set it, else the Trainer's devices, else the GPU if there is one."""
        if self.destination is not None:
            return self.destination
        return Destination(device_of(trainer), devices=trainer.num_devices if trainer else 1)


def is_running(trainer: Trainer | None) -> bool:
    """Whether a Trainer runs; it stays attached when it has ended."""
    return trainer is not None and trainer.state.status == TrainerStatus.RUNNING


def rank_and_world_size(trainer: Trainer | None) -> tuple[int, int]:
    """This process and all of them, while a Trainer runs; outside of one a loader yields every row.

    Raises:
        InputError: The Trainer would share out the rows a second time.
    """
    if trainer is None or not is_running(trainer):
        return 0, 1
    if trainer.world_size > 1 and trainer._accelerator_connector.use_distributed_sampler:
        # Lightning would share out what is shared out already: most rows would never be seen.
        raise InputError("build the Trainer with use_distributed_sampler=False: the datamodule shares out the rows.")
    return trainer.global_rank, trainer.world_size


def device_of(trainer: Trainer | None) -> torch.device:
    """The Trainer's device; where there is none the GPU, if there is one."""
    return trainer.strategy.root_device if trainer else default_device()
