"""The section `trainer:` and the Trainer that comes of it, built and checked once before anything is frozen."""

import logging
import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir
from typing import Any, Literal

import torch
from jsonargparse import Namespace
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy

from swinft.errors import InputError
from swinft.run.arguments import Parser
from swinft.run.build import reason, section
from swinft.run.callbacks import callback_problems
from swinft.run.devices import devices_per_fold
from swinft.run.precision import Precision, training_precision
from swinft.run.store import commit, discard, verify

LoggerName = Literal["csv", "tensorboard", "wandb"]
ACCELERATORS = ("auto", "cpu", "gpu", "cuda", "mps")
PROFILERS = ("simple", "advanced", "pytorch")
STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true", "ddp_find_unused_parameters_false")


def check_trainer(parser: Parser, config: Namespace, num_folds: int) -> Trainer:
    """Builds the Trainer of a fold once, on no device and without a file.

    Args:
        parser: The parser that read the config.
        config: The config.
        num_folds: Of the run, which share the GPUs.

    Returns:
        The Trainer, to be looked at and thrown away.

    Raises:
        InputError: Values of `trainer:` are wrong; all of them are listed.
    """
    quiet()
    problems = _value_problems(config.trainer)
    if problems:
        raise InputError("\n".join(problems))
    _, precision, _ = training_precision(config.trainer.accelerator, config.trainer.precision)
    # A fold sees its own GPUs only.
    has_choice = config.trainer.devices == "auto"
    devices = {"devices": devices_per_fold(config, num_folds)} if has_choice else {}
    with _kept_flags():
        trainer = build_trainer(parser, config, Path(gettempdir()), precision, Checkpoint(), **devices)
    problems = callback_problems(callbacks_of(trainer), bool(trainer.loggers), config.checkpoint)
    problems += _device_problems(trainer, config.trainer, precision)
    if problems:
        raise InputError("\n".join(problems))
    return trainer


def build_trainer(
    parser: Parser, config: Namespace, root: Path, precision: Precision, recorder: Checkpoint, **changes: Any
) -> Trainer:
    """Lightning's Trainer, which keeps every file inside `root` and saves through the store.

    Args:
        parser: The parser that read the config.
        config: The config.
        root: The fold's folder.
        precision: The resolved precision.
        recorder: Saves the run. Lightning calls it after all callbacks of the config.
        changes: Replace arguments of the config.

    Raises:
        InputError: Lightning does not take a value, or something that the config names is not installed.
    """
    try:
        arguments: dict[str, Any] = {**section(parser, config, "trainer"), "precision": precision, **changes}
        del arguments["fast_dev_run"]  # a run's own: Lightning's neither saves nor predicts
        if arguments["benchmark"] is None:  # images have one size: the first step finds the quickest convolutions
            arguments["benchmark"] = not arguments["deterministic"]
        users = arguments.pop("callbacks") or []
        callbacks: list[Callback] = users if isinstance(users, list) else [users]
        arguments["logger"] = _logger(arguments["logger"], config.name, root)
        if any(isinstance(callback, ProgressBar) for callback in callbacks):
            arguments["enable_progress_bar"] = True  # Lightning would refuse the bar for our default of none
        return Trainer(
            **arguments,
            callbacks=[*callbacks, recorder],
            default_root_dir=root,
            plugins=[StoreCheckpointIO()],
            use_distributed_sampler=False,  # the datamodule shards by itself, without padding the validation rows
            num_sanity_val_steps=0,  # validation before training would consume random numbers and prove nothing
        )
    except (MisconfigurationException, ImportError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"trainer: {reason(str(error))}") from error


def callbacks_of(trainer: Trainer) -> list[Callback]:
    """The callbacks of the config, without the one that saves, which is the last."""
    callbacks: list[Callback] = trainer.callbacks[:-1]  # type: ignore[attr-defined]  # Lightning sets it elsewhere
    return callbacks


def _logger(wanted: Any, name: str, root: Path) -> Any:
    """The logger that a word of the config stands for, with its files in the fold's folder; others as they are.

    A start of its own version: Lightning's CSV logger deletes what an earlier one wrote into the same folder.
    """
    if wanted is True or wanted == "csv":
        return CSVLogger(root, name="logs")
    if wanted == "tensorboard":
        return TensorBoardLogger(root, name="logs")
    if wanted == "wandb":
        return WandbLogger(name=f"{name}/{root.name}", save_dir=root, group=name)
    return wanted


def _value_problems(given: Namespace) -> list[str]:
    """Values of `trainer:` that cannot train or would not act; one sentence each."""
    has_steps = given.max_steps != -1
    limit, clip, on_cpu = given.limit_train_batches, given.gradient_clip_val, given.accelerator == "cpu"
    allowed = {
        "max_epochs": (
            given.max_epochs >= 1 if given.max_epochs not in (None, -1) else has_steps,
            "a whole number from 1, or null where trainer.max_steps says when training ends",
        ),
        "max_steps": (given.max_steps >= 1 or not has_steps, "a whole number from 1, or -1 for no limit"),
        "accumulate_grad_batches": (given.accumulate_grad_batches >= 1, "a whole number from 1"),
        "limit_train_batches": (
            limit is None or (0 < limit <= 1 if isinstance(limit, float) else limit >= 1),
            "a number of batches from 1, a share of them above 0 and up to 1.0, or null",
        ),
        "gradient_clip_val": (clip is None or (math.isfinite(clip) and clip >= 0), "a number from 0, or null for none"),
        "gradient_clip_algorithm": (
            given.gradient_clip_algorithm in (None, "norm", "value"),
            "norm, value, or null for norm",
        ),
        "log_every_n_steps": (
            given.log_every_n_steps is None or given.log_every_n_steps >= 1,
            "a whole number from 1, or null",
        ),
        "fast_dev_run": (given.fast_dev_run >= 0, "true, false, or a number of batches"),
        "num_nodes": (given.num_nodes >= 1, "a whole number from 1"),
        "accelerator": (_is_one_of(given.accelerator, ACCELERATORS), ", ".join(ACCELERATORS)),
        "devices": (
            not on_cpu or given.devices == "auto" or _is_count(given.devices),
            "auto, or on the CPU a number of processes from 1",
        ),
        "profiler": (_is_one_of(given.profiler, PROFILERS), f"{', '.join(PROFILERS)}, a profiler's class, or null"),
        "strategy": (
            _is_one_of(given.strategy, STRATEGIES),
            f"{', '.join(STRATEGIES)}, or the class_path of a DDPStrategy: a fold's process saves the whole network",
        ),
    }
    problems = [
        f"trainer.{key} is {_shown(given[key])}. Allowed: {words}."
        for key, (is_right, words) in allowed.items()
        if not is_right
    ]
    if given.accelerator in ("gpu", "cuda", "mps") and not _has_device(given.accelerator):
        problems.append(f"trainer.accelerator is {given.accelerator}, and torch finds none here. Allowed: auto, cpu.")
    if given.gradient_clip_algorithm and not clip:
        problems.append("trainer.gradient_clip_algorithm does nothing without trainer.gradient_clip_val: set it.")
    if given.log_every_n_steps and not given.logger:
        problems.append("trainer.log_every_n_steps does nothing without a logger: set trainer.logger, or remove it.")
    return problems


def _shown(value: Any) -> str:
    return "null" if value is None else str(getattr(value, "class_path", value))


def _has_device(accelerator: str) -> bool:
    mps = accelerator in ("gpu", "mps") and torch.backends.mps.is_available()
    return mps or (accelerator != "mps" and torch.cuda.is_available())


def _is_one_of(value: Any, words: tuple[str, ...]) -> bool:
    """Whether a word is among those that are allowed; objects are checked by their class."""
    return not isinstance(value, str) or value in words


def _is_count(value: Any) -> bool:
    return str(value).isdigit() and int(value) >= 1


def _device_problems(trainer: Trainer, given: Namespace, precision: Precision) -> list[str]:
    """What is wrong with the strategy and the devices of a Trainer; one sentence each."""
    problems = []
    strategy: Strategy = trainer.strategy
    wanted, found = trainer.accelerator.name(), strategy.root_device.type
    if found != wanted:
        problems.append(f"trainer.strategy trains on {found}, and trainer.accelerator is {wanted}: name one of them.")
    if trainer.precision != precision:
        problems.append(
            f"trainer.strategy computes in {trainer.precision}, and trainer.precision is {precision}, which the run "
            f"would say of itself. Set trainer.precision, and remove the strategy's precision_plugin."
        )
    if not isinstance(strategy, DDPStrategy | SingleDeviceStrategy) or (
        isinstance(strategy, DDPStrategy) and strategy._start_method != "popen"
    ):
        problems.append(
            f"trainer.strategy: {type(strategy).__name__} does not leave the whole trained network in the process that "
            f"saves it. Allowed: {', '.join(STRATEGIES)}, or a DDPStrategy."
        )
    if given.sync_batchnorm and (trainer.world_size == 1 or strategy.root_device.type != "cuda"):
        problems.append(
            f"trainer.sync_batchnorm needs several GPUs, and a fold trains on {trainer.world_size} "
            f"{strategy.root_device.type}: remove it."
        )
    return problems


@contextmanager
def _kept_flags() -> Iterator[None]:
    """Puts back what a Trainer sets for the whole process: it is to be looked at only."""
    deterministic = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark, environment = torch.backends.cudnn.benchmark, dict(os.environ)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(deterministic[0], warn_only=deterministic[1])
        torch.backends.cudnn.benchmark = benchmark
        for name in set(os.environ).difference(environment):
            del os.environ[name]


def quiet() -> None:
    """Silences what Lightning says at every start and what is as it should be; its other warnings stay.

    What callbacks and profilers say is said by other loggers, and only where the config asks for it.
    """
    for name in ("pytorch.utilities.rank_zero", "pytorch.trainer", "pytorch.accelerators", "pytorch.strategies"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in (
        r".*module\(s\) in eval mode at the start of training",  # the averaged weights are never trained
        r".*isinstance\(treespec, LeafSpec\)",  # Lightning's own use of an old torch name
        r".*does not have many workers",  # a fold says how many, and what it waits for them
        r"This DataLoader will create",  # more than there are cores: said in our own words
        r".*It is recommended to use `self\.log\(.*sync_dist=True",  # all ranks score the same pooled rows
        r".*The number of training batches .* is smaller than the logging interval",  # we log per epoch
    ):
        warnings.filterwarnings("ignore", message)


class StoreCheckpointIO(CheckpointIO):
    """Saves and loads Lightning's checkpoints through the store: atomic, recorded, verified, without pickle."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Commits a checkpoint."""
        commit(Path(path), lambda file: torch.save(checkpoint, file), "swinft fit")

    def load_checkpoint(
        self, path: str | Path, map_location: Any | None = None, weights_only: bool | None = None
    ) -> Any:
        """Loads a verified checkpoint; objects other than tensors and plain values are refused."""
        return torch.load(verify(Path(path)), map_location=map_location or "cpu", weights_only=True)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Deletes a checkpoint and its record."""
        discard(Path(path))
