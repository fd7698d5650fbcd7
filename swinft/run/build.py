"""Objects from a parsed config: the datamodule, the task, the Trainer and the network that predicts."""

from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.fabric.plugins.io.checkpoint_io import CheckpointIO
from lightning.pytorch import Callback, Trainer
from safetensors.torch import load_file, save

from swinft.data.datamodule import CSVDataModule
from swinft.data.schema import Schema
from swinft.errors import InputError
from swinft.model.task import FineTuneTask, ImageModel
from swinft.model.window_attention import FastAttention, set_attention
from swinft.run.arguments import Parser
from swinft.run.precision import Precision
from swinft.run.store import commit, discard, verify


def build_datamodule(parser: Parser, config: Namespace, **changes: Any) -> CSVDataModule:
    """The datamodule of a config; `changes` replace its arguments."""
    arguments = _section(parser, config, "data")
    return CSVDataModule(**{**arguments, "seed": config.seed, **changes})


def build_task(parser: Parser, config: Namespace, schema: Schema, **changes: Any) -> FineTuneTask:
    """The task of a config for a table's outputs; `changes` replace its arguments.

    Raises:
        InputError: The head is for another kind of target than `data.target_kind`.
    """
    arguments = _section(parser, config, "model")
    task = FineTuneTask(
        **{
            **arguments,
            "num_outputs": len(schema.outputs),
            "num_metadata": schema.num_features,
            "image_size": config.data.image_size,
            "seed": config.seed,
            **changes,
        }
    )
    kind = task.net.head.kind
    if kind != schema.kind:
        raise InputError(
            f"model.head {config.model.head.class_path} is for {kind}, but data.target_kind is '{schema.kind}'. "
            f"Change one of the two."
        )
    return task


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
    """
    arguments = _section(parser, config, "trainer")
    users = arguments.pop("callbacks") or []
    arguments["precision"] = precision
    return Trainer(
        **arguments,
        callbacks=[*(users if isinstance(users, list) else [users]), *callbacks],
        default_root_dir=root,
        plugins=[StoreCheckpointIO()],
        enable_checkpointing=False,  # our own callback saves; Lightning's writes through the system's temporary folder
        use_distributed_sampler=False,  # the datamodule shards by itself, without padding the validation rows
        num_sanity_val_steps=0,  # validation before training would consume random numbers and prove nothing
    )


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


def save_net(net: ImageModel, path: Path) -> None:
    """Commits a network's weights as safetensors."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in net.state_dict().items()}
    commit(path, save(tensors), "swinft fit")


def load_net(
    parser: Parser,
    config: Namespace,
    schema: Schema,
    path: Path,
    device: torch.device,
    fast_attention: FastAttention | None = None,
) -> ImageModel:
    """A fresh network with verified weights, ready to predict.

    It never comes from the Trainer that fitted it: what is predicted with is what is on disk.

    Args:
        parser: The parser that read the config.
        config: The run's config.
        schema: The run's outputs.
        path: The weights.
        device: Where it predicts.
        fast_attention: Whether Swin's attention is computed faster, and "triton" for by which; None for as configured.
    """
    net = build_task(parser, config, schema, pretrained=False, ema_decay=None).net
    net.load_state_dict(load_file(verify(path)))
    net = net.eval().to(device)
    set_attention(net, device, config.model.fast_attention if fast_attention is None else fast_attention)
    return net


def _section(parser: Parser, config: Namespace, name: str) -> dict[str, Any]:
    """One section's arguments, with the objects that its class paths name."""
    alone = Namespace(**{name: config[name]})  # type: ignore[no-untyped-call]
    return dict(parser.instantiate(alone)[name])
