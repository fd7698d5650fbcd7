"""Lightning's callbacks that would be wrong beside a task without an error: refused, with what to set instead."""

from collections.abc import Iterable
from typing import Any

from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    ModelPruning,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher
from lightning.pytorch.trainer.states import TrainerFn
from torch import nn

from swinft.errors import InputError
from swinft.model.training.optim import OptimConfig

EDIT = "Call task.initialize_from(datamodule) before trainer.fit"


def check_callbacks(callbacks: Iterable[Any], config: OptimConfig, net: nn.Module | None, has_average: bool) -> None:
    """Refuses callbacks of a plain Trainer that would be silently wrong.

    Args:
        callbacks: The Trainer's.
        config: Its schedule is planned for a number of steps.
        net: The network; None if it is made when the table is known.
        has_average: Whether the task averages weights.

    Raises:
        InputError: There is such a callback; the message says what to set instead.
    """
    for callback in callbacks:
        if found := _problem(callback, config, net, has_average):
            raise InputError(f"{type(callback).__name__}: {found}.")


def check_launcher(trainer: Any, net: nn.Module | None) -> None:
    """Refuses a fit in processes from which the weights would not come back.

    Args:
        trainer: The Trainer; with `ddp_notebook`, `ddp_fork` and `ddp_spawn` it trains copies of the task, and loads
            what of their weights the task has a place for.
        net: The network; None if it is made when the table is known.

    Raises:
        InputError: The task has no network.
    """
    is_elsewhere = isinstance(trainer.strategy.launcher, _MultiProcessingLauncher)
    if net is None and is_elsewhere and trainer.state.fn == TrainerFn.FITTING:
        raise InputError(
            f"this strategy trains in other processes, and a task without num_outputs would have no network for the "
            f"trained weights. {EDIT}."
        )


def _problem(callback: Any, config: OptimConfig, net: nn.Module | None, has_average: bool) -> str | None:
    averages = isinstance(callback, WeightAveraging | StochasticWeightAveraging)
    if averages and has_average:
        return "it would average the weights that ema_decay averages already. Remove it, or set ema_decay to None"
    if isinstance(callback, WeightAveraging | ModelPruning) and net is None:
        return f"it takes the network before a task without num_outputs has one. {EDIT}" + (
            ", or set ema_decay, which averages the weights" if averages else ""
        )
    # torch averages them as floats and truncates: Swin's bias is then read at wrong positions.
    if isinstance(callback, WeightAveraging) and callback._use_buffers and net is not None and _counts(net):
        return "it would average whole numbers, such as Swin's indices. Give it use_buffers=False, or set ema_decay"
    if isinstance(callback, BaseFinetuning):
        return "it adds groups to the optimiser, which the schedule does not know. Set freeze_epochs or optim.freeze"
    if isinstance(callback, GradientAccumulationScheduler) and not _is_constant(config):
        return (
            "it changes the number of steps, for which the schedule is planned. Set the Trainer's "
            "accumulate_grad_batches, or a schedule without a plan: OptimConfig(schedule='constant', warmup_epochs=0)"
        )
    # Tuner adds them to a fit of its own, which ends with the search.
    if isinstance(callback, LearningRateFinder) and not callback._early_exit:
        return "the optimiser has its rates already. Call Tuner(trainer).lr_find(task, datamodule=…) before trainer.fit"
    if isinstance(callback, BatchSizeFinder) and not callback._early_exit:
        return (
            "the schedule is planned already, by the number of batches. Call Tuner(trainer).scale_batch_size(task, "
            "datamodule=…) before trainer.fit"
        )
    return None


def _counts(net: nn.Module) -> bool:
    """Whether there are arrays of whole numbers; BatchNorm's counters, which no result depends on, are none."""
    return any(buffer.ndim > 0 and not buffer.is_floating_point() for buffer in net.buffers())


def _is_constant(config: OptimConfig) -> bool:
    return config.schedule == "constant" and config.warmup_epochs == 0
