"""How many optimiser steps a training takes: what the schedule is planned over."""

import math
from dataclasses import dataclass
from typing import Any

from swinft.errors import InputError


@dataclass(frozen=True)
class Steps:
    """The planned optimiser steps of a training.

    Args:
        total: Of the whole training, at least 1.
        per_epoch: Of one epoch, at least 1.
    """

    total: int
    per_epoch: int

    @property
    def epochs(self) -> int:
        """Epochs that are begun."""
        return -(-self.total // self.per_epoch)


def count_steps(num_batches: float, accumulate: int, max_epochs: int | None, max_steps: int) -> Steps:
    """Counts the steps of a training.

    Args:
        num_batches: Batches of an epoch on each device.
        accumulate: Batches per step; the last ones of an epoch are a step of their own.
        max_epochs: When training ends; None or −1 for no limit.
        max_steps: The same in steps; −1 for no limit.

    Raises:
        InputError: There are no batches, or no end that a schedule could be planned over.
    """
    if not math.isfinite(num_batches) or num_batches < 1:
        raise InputError(f"an epoch has {num_batches} training batches; a schedule needs a number from 1.")
    per_epoch = math.ceil(num_batches / accumulate)
    ends = [per_epoch * max_epochs] if max_epochs not in (None, -1) else []
    ends += [max_steps] if max_steps != -1 else []
    if not ends or min(ends) < 1:
        raise InputError(
            f"max_epochs is {max_epochs} and max_steps {max_steps}: training has no end that the learning rate could "
            f"be planned for. Set one of them, from 1."
        )
    return Steps(min(ends), per_epoch)


def steps_of(trainer: Any) -> Steps:
    """The steps that a Trainer is about to take; its loader is made first, or it would not know its batches.

    Raises:
        InputError: As `count_steps`.
    """
    trainer.fit_loop.setup_data()
    batches = trainer.num_training_batches
    return count_steps(batches, trainer.accumulate_grad_batches, trainer.max_epochs, trainer.max_steps)
