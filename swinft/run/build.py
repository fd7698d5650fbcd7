"""Objects from a parsed config: the datamodule, the task and the network that predicts."""

import re
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from safetensors.torch import load_file, save

from swinft.data.datamodule import CSVDataModule
from swinft.data.decoders import tune_decoders
from swinft.data.schema import Schema
from swinft.errors import InputError, listed
from swinft.model.layout import plain_where_needed
from swinft.model.network import ImageModel
from swinft.model.task import FineTuneTask
from swinft.model.window_attention import FastAttention, set_attention
from swinft.run.arguments import Parser
from swinft.run.precision import Precision, half_of
from swinft.run.store import commit, verify


def build_datamodule(parser: Parser, config: Namespace, **changes: Any) -> CSVDataModule:
    """The datamodule of a config; `changes` replace its arguments, and `folds` all that would make other ones."""
    tune_decoders()
    arguments = section(parser, config, "data")
    if "folds" in changes:
        arguments |= {"fold_kind": "auto", "num_folds": None, "rare_classes": "error", "duplicates": "report"}
    return CSVDataModule(**{**arguments, "seed": config.seed, "sample_id": config.submission.id, **changes})


def build_task(parser: Parser, config: Namespace, schema: Schema, **changes: Any) -> FineTuneTask:
    """The task of a config for a table's outputs; `changes` replace its arguments.

    Raises:
        InputError: The head is for another kind of target than `data.target_kind`.
    """
    arguments = section(parser, config, "model")
    task = FineTuneTask(
        **{
            **arguments,
            "num_outputs": len(schema.outputs),
            "num_metadata": schema.num_features,
            "category_sizes": schema.category_sizes,
            "image_size": config.data.image_size,
            "seed": config.seed,
            **changes,
        }
    )
    task.check_schema(schema)
    return task


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
    precision: Precision = "32-true",
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
        precision: What it predicts in, resolved.

    Raises:
        InputError: A weight is NaN or infinite.
    """
    net = build_task(parser, config, schema, pretrained=False, ema_decay=None).net
    net.load_state_dict(load_file(verify(path)))
    _check_weights(net, path)
    net = net.eval().to(device)
    plain_where_needed(net, device)
    wanted = config.model.fast_attention if fast_attention is None else fast_attention
    set_attention(net, device, wanted, dtype=half_of(precision) or torch.float)
    return net


def _check_weights(net: ImageModel, path: Path) -> None:
    """Refuses weights that are no numbers: each prediction would be none.

    Raises:
        InputError: One is NaN, or a parameter is infinite.
    """
    bad = [name for name, tensor in net.named_parameters() if not tensor.isfinite().all()]
    bad += [name for name, tensor in net.named_buffers() if tensor.isnan().any()]
    if bad:
        raise InputError(
            f"{path} holds NaN or infinite weights ({listed(bad, 3)}): the training of this fold has diverged. Predict "
            f"without it (--folds), or fit anew with a lower model.optim.lr or trainer.precision 32-true, under "
            f"another --name."
        )


def section(parser: Parser, config: Namespace, name: str) -> dict[str, Any]:
    """One section's arguments, with the objects that its class paths name.

    Raises:
        InputError: A class does not take what it is given.
    """
    alone = Namespace(**{name: config[name]})  # type: ignore[no-untyped-call]
    try:
        return dict(parser.instantiate(alone)[name])
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{name}: {reason(str(error))}") from error


def reason(message: str) -> str:
    """A complaint of Lightning's or jsonargparse's in one line; of a list of types, that of the named class."""
    line = " ".join(message.split())
    named = re.search(r"Problem with given class_path '(.+?)': (.+?)(?= - Expected| Given value type|$)", line)
    if named:
        return f"{named[1]}: {named[2]}"
    first = re.search(r"Errors: - (?!Expected)(.+?)(?= - |$)", line)
    return first[1] if first else line
