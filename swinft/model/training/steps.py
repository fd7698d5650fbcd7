"""Number of optimiser steps of a training, which the schedule needs in advance."""

import math
from dataclasses import dataclass
from typing import Any

from swinft.errors import InputError


@dataclass(frozen=True)
class Steps:
    """The planned optimiser steps of a training.

    Args:
        total: Steps of the whole training, at least 1.
        per_epoch: Steps of one epoch, at least 1.
    """

    total: int
    per_epoch: int

    @property
    def epochs(self) -> int:
        """Number of epochs, the last one possibly incomplete."""
        return -(-self.total // self.per_epoch)


def count_steps(num_batches: float, accumulate: int, max_epochs: int | None, max_steps: int) -> Steps:
    """Counts the steps of a training.

    Args:
        num_batches: Batches of an epoch on each device.
        accumulate: Batches per step; the remaining ones of an epoch are one more step.
        max_epochs: Limit of epochs; None or −1 for none.
        max_steps: Limit of steps; −1 for none.

    Raises:
        InputError: There are no batches, or no limit.
    """
    if not math.isfinite(num_batches):
        raise InputError(
            "the training loader does not tell how many batches it has, and the schedule needs the length of the "
            "training. Set the Trainer's limit_train_batches to the batches of an epoch."
        )
    if num_batches < 1:
        raise InputError(f"an epoch has {num_batches} training batches; a schedule needs a number from 1.")
    per_epoch = math.ceil(num_batches / accumulate)
    ends = [per_epoch * max_epochs] if max_epochs not in (None, -1) else []
    ends += [max_steps] if max_steps != -1 else []
    if not ends or min(ends) < 1:
        raise InputError(
            f"max_epochs is {max_epochs} and max_steps {max_steps}: the schedule needs the length of the training. "
            f"Set one of them, from 1."
        )
    return Steps(min(ends), per_epoch)


def steps_of(trainer: Any) -> Steps:
    """The steps of a Trainer; sets up its loader first, which determines the number of batches.

    Raises:
        InputError: As in `count_steps`.
    """
    if trainer.limit_train_batches == 0:
        raise InputError("limit_train_batches is 0: nothing would be trained. Remove it, or call Trainer.validate.")
    trainer.fit_loop.setup_data()
    batches = trainer.num_training_batches
    return count_steps(batches, trainer.accumulate_grad_batches, trainer.max_epochs, trainer.max_steps)
