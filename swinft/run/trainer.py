"""The section `trainer:` and the Trainer that comes of it, built once before anything is frozen."""

import logging
import warnings
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer

from swinft.errors import InputError
from swinft.run.arguments import Parser
from swinft.run.build import section
from swinft.run.precision import Precision, training_precision
from swinft.run.store import commit, discard, verify


def check_trainer(parser: Parser, config: Namespace) -> None:
    """Builds the Trainer once and throws it away; nothing is written and no device is used.

    Raises:
        InputError: A value of `trainer:` is wrong.
    """
    quiet()
    _, precision, _ = training_precision(config.trainer.accelerator, config.trainer.precision)
    build_trainer(parser, config, Path(gettempdir()), precision, [])


def build_trainer(
    parser: Parser, config: Namespace, root: Path, precision: Precision, callbacks: list[Callback]
) -> Trainer:
    """Lightning's Trainer, which keeps every file inside `root` and saves through the store.

    Args:
        parser: The parser that read the config.
        config: The config.
        root: The fold's folder.
        precision: The resolved precision.
        callbacks: What the run adds to the user's callbacks.

    Raises:
        InputError: Lightning does not take a value.
    """
    try:
        arguments = section(parser, config, "trainer")
        users = arguments.pop("callbacks") or []
        arguments["precision"] = precision
        return Trainer(
            **arguments,
            callbacks=[*(users if isinstance(users, list) else [users]), *callbacks],
            default_root_dir=root,
            plugins=[StoreCheckpointIO()],
            # Our own callback saves; Lightning's writes through the system's temporary folder.
            enable_checkpointing=False,
            use_distributed_sampler=False,  # the datamodule shards by itself, without padding the validation rows
            num_sanity_val_steps=0,  # validation before training would consume random numbers and prove nothing
        )
    except (MisconfigurationException, ImportError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"trainer: {' '.join(str(error).split())}") from error


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
        r".*does not have many workers",  # data.num_workers is the user's choice
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
