"""Checks the section `trainer:` by building its Trainer once, before the run starts."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy

from swinft.errors import together
from swinft.ranges import COUNT, MOST, MOST_PROCESSES, NOT_NEGATIVE, SHOWN_DIGITS, Range, most_of, short
from swinft.run.compute.devices import devices_per_fold
from swinft.run.config.callbacks import callback_problems
from swinft.run.experiment import Experiment
from swinft.run.trackers.checks import check_trackers
from swinft.run.trackers.configured import trackers_in
from swinft.run.trainer import callbacks_of, silence_lightning
from swinft.system.precision import Precision, training_precision

ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
PROFILERS = ("simple", "advanced", "pytorch")
PROCESSES = Range(1, MOST_PROCESSES)
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")


def check_trainer(experiment: Experiment, num_folds: int) -> Trainer:
    """Builds the Trainer of a fold once, without using a device or writing a file.

    Args:
        experiment: The experiment.
        num_folds: Folds of the run, which share the GPUs.

    Returns:
        The Trainer, for inspection only.

    Raises:
        InputError: Values of `trainer:` are wrong; all of them are listed.
    """
    silence_lightning()
    config = experiment.config
    problems = _value_problems(config.trainer)
    if problems:
        raise together(problems)
    _, precision, _ = training_precision(config.trainer)
    # A fold sees only its own GPUs.
    has_choice = config.trainer.devices == "auto"
    devices = {"devices": devices_per_fold(config, num_folds)} if has_choice else {}
    with _restored_flags():
        trainer = experiment.trainer(Path(gettempdir()), precision, Checkpoint(), **devices)
    problems = callback_problems(callbacks_of(trainer), bool(trainer.loggers), config.checkpoint == "last")
    problems += _device_problems(trainer, config.trainer, precision)
    if problems:
        raise together(problems)
    check_trackers(trackers_in(trainer.loggers))
    return trainer


def _value_problems(given: Namespace) -> list[str]:
    """Values of `trainer:` that are invalid or have no effect; one sentence each."""
    has_steps = given.max_steps != -1
    limit, clip, on_cpu = given.limit_train_batches, given.gradient_clip_val, given.accelerator == "cpu"
    allowed = {
        "max_epochs": (
            given.max_epochs in COUNT if given.max_epochs not in (None, -1) else has_steps,
            "a whole number from 1, or null if trainer.max_steps is set",
        ),
        "max_steps": (given.max_steps in COUNT or not has_steps, "a whole number from 1, or -1 for no limit"),
        "accumulate_grad_batches": (given.accumulate_grad_batches in COUNT, "a whole number from 1"),
        "limit_train_batches": (
            limit is None or (0 < limit <= 1 if isinstance(limit, float) else limit in COUNT),
            "a number of batches from 1, a fraction above 0 and up to 1.0, or null",
        ),
        "gradient_clip_val": (clip is None or clip in NOT_NEGATIVE, "a number from 0, or null for none"),
        "gradient_clip_algorithm": (
            given.gradient_clip_algorithm in (None, "norm", "value"),
            "norm, value, or null for norm",
        ),
        "log_every_n_steps": (
            given.log_every_n_steps is None or given.log_every_n_steps in COUNT,
            "a whole number from 1, or null",
        ),
        "fast_dev_run": (given.fast_dev_run in Range(0, MOST), "true, false, or a number of batches"),
        "num_nodes": (given.num_nodes in PROCESSES, f"a whole number from 1 to {MOST_PROCESSES}"),
        "accelerator": (_is_one_of(given.accelerator, ACCELERATORS), ", ".join(ACCELERATORS)),
        "devices": (
            not on_cpu or given.devices == "auto" or _is_count(given.devices),
            f"auto, or on the CPU a number of processes from 1 to {MOST_PROCESSES}",
        ),
        "profiler": (_is_one_of(given.profiler, PROFILERS), f"{', '.join(PROFILERS)}, a profiler's class, or null"),
        "strategy": (
            _is_one_of(given.strategy, STRATEGIES),
            f"{', '.join(STRATEGIES)}, or the class_path of a DDPStrategy: a fold's process saves the whole network",
        ),
    }
    problems = [
        f"trainer.{key} is {_shown(given[key])}. Allowed: {words}{most_of(given[key])}."
        for key, (is_right, words) in allowed.items()
        if not is_right
    ]
    if given.accelerator in ("gpu", "cuda", "mps") and not _has_device(given.accelerator):
        problems.append(f"trainer.accelerator is {given.accelerator}, and torch finds none. Allowed: auto, cpu.")
    if given.gradient_clip_algorithm and not clip:
        problems.append("trainer.gradient_clip_algorithm does nothing without trainer.gradient_clip_val: set it.")
    if given.log_every_n_steps and not given.logger:
        problems.append("trainer.log_every_n_steps does nothing without a logger: set trainer.logger, or remove it.")
    return problems


def _shown(value: Any) -> str:
    return "null" if value is None else short(getattr(value, "class_path", value))


def _has_device(accelerator: str) -> bool:
    mps = accelerator in ("gpu", "mps") and torch.backends.mps.is_available()
    return mps or (accelerator != "mps" and torch.cuda.is_available())


def _is_one_of(value: Any, words: tuple[str, ...]) -> bool:
    """Whether a text is one of the allowed words; True for objects, which are checked by their class."""
    return not isinstance(value, str) or value in words


def _is_count(value: Any) -> bool:
    return str(value).isdigit() and len(str(value)) < SHOWN_DIGITS and int(value) in PROCESSES


def _device_problems(trainer: Trainer, given: Namespace, precision: Precision) -> list[str]:
    """Problems of a Trainer's strategy and devices; one sentence each."""
    problems = []
    strategy: Strategy = trainer.strategy
    wanted, found = trainer.accelerator.name(), strategy.root_device.type
    if found != wanted:
        problems.append(f"trainer.strategy trains on {found}, and trainer.accelerator is {wanted}: name one of them.")
    if trainer.precision != precision:
        problems.append(
            f"trainer.strategy computes in {trainer.precision}, but trainer.precision, which the run reports, is "
            f"{precision}. Set trainer.precision, and remove the strategy's precision_plugin."
        )
    if not isinstance(strategy, DDPStrategy | SingleDeviceStrategy) or (
        isinstance(strategy, DDPStrategy) and strategy._start_method != "popen"
    ):
        problems.append(
            f"trainer.strategy: with {type(strategy).__name__} the process that saves does not have the whole trained "
            f"network. Allowed: {', '.join(STRATEGIES)}, or a DDPStrategy."
        )
    if given.sync_batchnorm and (trainer.world_size == 1 or strategy.root_device.type != "cuda"):
        problems.append(
            f"trainer.sync_batchnorm needs several GPUs, and a fold trains on {trainer.world_size} "
            f"{strategy.root_device.type}: remove it."
        )
    return problems


@contextmanager
def _restored_flags() -> Iterator[None]:
    """Restores the process-wide settings that a Trainer changes."""
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, environment = torch.backends.cudnn.benchmark, dict(os.environ)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        torch.backends.cudnn.benchmark = benchmark
        for name in set(os.environ).difference(environment):
            del os.environ[name]
