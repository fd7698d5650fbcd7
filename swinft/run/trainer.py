"""Builds Lightning's Trainer for a run: every file in the fold's folder, checkpoints through the store."""

import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelSummary, ProgressBar
from lightning.pytorch.loggers import CSVLogger

from swinft.errors import InputError
from swinft.run.config.explain import reason
from swinft.run.observed_callbacks import observed
from swinft.run.trackers.configured import CSV, loggers_of
from swinft.store import commit, discard, verify


def make_trainer(arguments: dict[str, Any], root: Path, recorder: Checkpoint) -> Trainer:
    """Lightning's Trainer, which writes every file inside `root` and saves through the store.

    Args:
        arguments: Arguments of the section `trainer:`, with a resolved precision.
        root: The fold's folder.
        recorder: The callback that saves; Lightning calls it after all callbacks of the config.

    Raises:
        InputError: Lightning rejects a value, or a package that the config needs is not installed.
    """
    try:
        del arguments["fast_dev_run"]  # handled by the run: Lightning's own neither saves nor predicts
        if arguments["benchmark"] is None:  # all images have one size, so cuDNN need not benchmark again
            arguments["benchmark"] = not arguments["deterministic"]
        configured = arguments.pop("callbacks") or []
        callbacks: list[Callback] = configured if isinstance(configured, list) else [configured]
        arguments["logger"] = _loggers(arguments["logger"], root)
        if any(isinstance(callback, ProgressBar) for callback in callbacks):
            arguments["enable_progress_bar"] = True  # with our default of False, Lightning would refuse the bar
        if arguments["enable_model_summary"] and not any(isinstance(callback, ModelSummary) for callback in callbacks):
            callbacks = [*callbacks, ModelSummary()]  # plain lines: where rich is installed, Lightning takes its table
        return Trainer(
            **arguments,
            callbacks=[*map(observed, callbacks), recorder],
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
    """The callbacks of the config, without the last one, which saves."""
    callbacks: list[Callback] = trainer.callbacks[:-1]  # type: ignore[attr-defined]  # Lightning sets it elsewhere
    return callbacks


def _loggers(wanted: Any, root: Path) -> Any:
    """The loggers that the config names; trackers are opened by the fold, in the run's folder.

    Every start writes to a new version folder: Lightning's CSV logger deletes the files of an earlier logger.
    """
    return [CSVLogger(root, name="logs") if each == CSV else each for each in loggers_of(wanted)] or False


def silence_lightning() -> None:
    """Silences Lightning's start-up messages and warnings that do not apply; its other warnings are shown.

    Callbacks and profilers use other loggers, and print only if the config asks for it.
    """
    for name in ("pytorch.utilities.rank_zero", "pytorch.trainer", "pytorch.accelerators", "pytorch.strategies"):
        logging.getLogger(f"lightning.{name}").setLevel(logging.WARNING)
    logging.getLogger("lightning.fabric").setLevel(logging.WARNING)
    for message in (
        r".*module\(s\) in eval mode at the start of training",  # the averaged weights are never trained
        r".*isinstance\(treespec, LeafSpec\)",  # Lightning itself uses a deprecated torch name
        r".*does not have many workers",  # a fold reports its waiting time for the loader
        r"This DataLoader will create",  # more workers than cores: we print our own message
        r".*It is recommended to use `self\.log\(.*sync_dist=True",  # all ranks score the same pooled rows
        r".*The number of training batches .* is smaller than the logging interval",  # swinft logs per epoch
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
