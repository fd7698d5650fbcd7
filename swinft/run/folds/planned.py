"""Plans the epochs and steps of each fold once the folds are known, and checks the settings that depend on them."""

import math
from typing import NamedTuple

from jsonargparse import Namespace

from swinft.data.datamodule import CSVDataModule
from swinft.errors import InputError, number_of
from swinft.model.training.optim import OptimConfig
from swinft.model.training.schedules import warmup_steps
from swinft.model.training.steps import Steps, count_steps
from swinft.run.folds.kept import SoupConfig, kept_epochs


def step_problems(config: Namespace, data: CSVDataModule, num_ranks: int) -> list[str]:
    """Settings with which a fold cannot train; one sentence each.

    Args:
        config: The config.
        data: The datamodule, with its folds.
        num_ranks: Processes per fold.
    """
    folds = range(int(data.fold_of_row.max()) + 1)
    problems: list[str] = []
    steps: list[Steps] = []
    for fold in folds:
        try:
            steps.append(fold_steps(config, data.splits.num_training_rows(fold), num_ranks))
            warmup_steps(OptimConfig(**config.model.optim.as_dict()), steps[-1])
        except InputError as error:
            problems.append(f"fold {fold}: {error}")
    problems = problems[:1]  # folds differ by a row or two: the others would have the same problem
    limit = config.trainer.max_steps
    if steps and limit > max(each.total for each in steps):
        most = max(each.total for each in steps)
        problems.append(
            f"trainer.max_steps is {limit}, and trainer.max_epochs {config.trainer.max_epochs} ends after {most} "
            f"steps. Set trainer.max_epochs to null, or remove trainer.max_steps."
        )
    small = sum(stage.epochs for stage in config.model.optim.sizes or [])
    if steps and small >= steps[0].epochs:
        problems.append(
            f"model.optim.sizes holds {number_of(small, 'epoch')} at smaller sizes, and training takes "
            f"{steps[0].epochs}: none would be left at data.image_size. Set epochs to less."
        )
    kept = kept_epochs(config.checkpoint)
    if steps and isinstance(kept, SoupConfig) and kept.epochs > steps[0].epochs:
        problems.append(
            f"checkpoint.epochs is {kept.epochs}, and training has {number_of(steps[0].epochs, 'epoch')}. Set it to "
            "less."
        )
    start = getattr(config.model.ema_decay, "start_steps", 0)
    if steps and start >= min(each.total for each in steps):
        problems.append(
            f"model.ema_decay.start_steps is {start}, and training takes {min(each.total for each in steps)}: nothing "
            "would be averaged. Set it to less."
        )
    if config.model.optim.name == "sam" and config.trainer.accumulate_grad_batches > 1:
        problems.append(
            "model.optim.name 'sam' computes the gradients of one batch twice: set trainer.accumulate_grad_batches to "
            "1, or another optimiser."
        )
    if config.model.optim.name == "sam" and config.on_out_of_memory == "halve":
        problems.append(
            "on_out_of_memory is halve, which accumulates gradients, and model.optim.name 'sam' does not: set "
            "on_out_of_memory to error."
        )
    if steps:
        problems += _freezing_problems(config, steps[0].epochs, num_ranks)
    return problems


def _freezing_problems(config: Namespace, epochs: int, num_ranks: int) -> list[str]:
    """Freezing that would outlast the training, or that several processes do not expect."""
    given = {
        "model.freeze_epochs": config.model.freeze_epochs,
        "model.optim.freeze.epochs": config.model.optim.freeze.epochs,
    }
    expects = config.trainer.strategy == "ddp_find_unused_parameters_true"
    problems = []
    for key, frozen in given.items():
        if frozen and frozen > epochs:
            problems.append(f"{key} is {frozen}, and training has {number_of(epochs, 'epoch')}. Set it to less.")
        if frozen and num_ranks > 1 and not expects:
            problems.append(
                f"{key} leaves parameters without gradients, which several processes must expect: set "
                "trainer.strategy to ddp_find_unused_parameters_true."
            )
    return problems


class Planned(NamedTuple):
    """The amount of training in a run.

    Args:
        images: Images of all folds and epochs.
        steps: Optimiser steps of the fold with the fewest.
    """

    images: int
    steps: int


def planned(config: Namespace, data: CSVDataModule, num_ranks: int) -> Planned:
    """The images and steps of a checked config.

    Args:
        config: The config.
        data: The datamodule, with its folds.
        num_ranks: Processes per fold.
    """
    per_step = config.data.batch_size * config.trainer.accumulate_grad_batches * num_ranks
    rows = [data.splits.num_training_rows(fold) for fold in range(int(data.fold_of_row.max()) + 1)]
    steps = [fold_steps(config, each, num_ranks).total for each in rows]
    images = sum(total * min(per_step, each) for total, each in zip(steps, rows, strict=True))
    return Planned(images * len(config.seeds or [0]), min(steps))


def fold_steps(config: Namespace, num_rows: int, num_ranks: int) -> Steps:
    """The steps of a fold that trains on `num_rows` rows.

    Raises:
        InputError: An epoch has no rows or no batches.
    """
    trainer = config.trainer
    batches = epoch_batches(config, num_rows, num_ranks)
    return count_steps(batches, trainer.accumulate_grad_batches, trainer.max_epochs, trainer.max_steps)


def smallest_batch(config: Namespace, data: CSVDataModule, num_ranks: int) -> int:
    """Rows of the smallest batch that a fold trains on; arguments as of `planned`."""
    folds = range(int(data.fold_of_row.max()) + 1)
    rows = [_epoch_rows(config, data.splits.num_training_rows(fold), num_ranks) for fold in folds]
    batch_size: int = config.data.batch_size
    return min(batch_size, *rows)


def _epoch_rows(config: Namespace, num_rows: int, num_ranks: int) -> int:
    """The rows of an epoch on each device."""
    parts: int = config.data.loading.virtual_epochs
    return math.ceil(num_rows // parts / num_ranks)


def epoch_batches(config: Namespace, num_rows: int, num_ranks: int) -> int:
    """The batches of an epoch on each device; arguments and errors as of `fold_steps`.

    Raises:
        InputError: `virtual_epochs` or `limit_train_batches` leave nothing to train on.
    """
    trainer, parts, batch_size = config.trainer, config.data.loading.virtual_epochs, config.data.batch_size
    rows = _epoch_rows(config, num_rows, num_ranks)
    if not rows:
        raise InputError(
            f"data.loading.virtual_epochs is {parts}, and there {number_of(num_rows, 'row', verb='is')} to train on. "
            "Set it to less."
        )
    batches = max(1, rows // batch_size)  # an incomplete last batch is dropped unless it is the only one
    limit = trainer.limit_train_batches
    if isinstance(limit, float) and int(batches * limit) < 1:
        raise InputError(
            f"trainer.limit_train_batches is {limit} of {number_of(batches, 'batch', 'batches')}, which is "
            f"none. Set it to {1 / batches:.2g} or more, or to a number of batches."
        )
    return batches if limit is None else int(batches * limit) if isinstance(limit, float) else min(batches, limit)
