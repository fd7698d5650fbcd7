"""Copies the head of another run's fold for outputs of the same name; the backbone is loaded with the network."""

from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from swinft.data.schema import Schema
from swinft.errors import listed
from swinft.model.heads import LinearHead
from swinft.model.network import ImageModel
from swinft.model.pooling import NAMED
from swinft.model.task import FineTuneTask
from swinft.run.fold_files import Fold
from swinft.run.layout import Run
from swinft.store import verify


def copy_head(task: FineTuneTask, schema: Schema, source: Fold) -> str:
    """Copies the head of a fold into an initialised task; returns a line that describes what was copied.

    Values that come from the training rows, such as the mean and scale of a regression target, stay those of the new
    rows: the weights apply to standardised targets.

    Args:
        task: The initialised task.
        schema: Schema of its table.
        source: A finished fold with the same backbone.
    """
    run = Run.at(source.root.resolve().parent)
    old, state = Schema.from_dict(run.read_schema()), load_file(verify(source.weights))
    subject = f"model.pretrained: the head of {source.root}"
    if reason := _mismatch(task.net, schema, old, run.read_config()["model"]):
        return f"{subject} is not used: {reason}"
    common = [name for name in schema.outputs if name in old.outputs]
    own = task.net.state_dict()
    names = [f"head.{name}" for name, _ in task.net.head.named_parameters()]
    names += [f"metadata.{name}" for name, _ in task.net.metadata.named_parameters()] if task.net.metadata else []
    left = [name for name in names if not _fits(own[name], state.get(name), schema, old)]
    if left:
        return f"{subject} is not used: {listed(left)} have other shapes"
    rows = [(schema.outputs.index(name), old.outputs.index(name)) for name in common]
    new, before = (torch.tensor(indices) for indices in zip(*rows, strict=True))
    for name in names:
        if schema.outputs == old.outputs or name.startswith("metadata."):
            own[name].copy_(state[name])
        else:
            own[name][new] = state[name][before].to(own[name])
    if task.averaged is not None:
        task.averaged.module.load_state_dict(task.net.state_dict())
    fresh = [name for name in schema.outputs if name not in common]
    return f"{subject} is used{f', except for the outputs {listed(fresh)}, which it lacks' if fresh else ''}"


def _mismatch(net: ImageModel, schema: Schema, old: Schema, model: dict[str, Any]) -> str:
    """Why the head of another run, with the settings `model`, cannot be used here; empty if it can."""
    head, pooling = model["head"], model.get("pooling", "avg")
    if head["class_path"].rpartition(".")[2] != type(net.head).__name__ or old.kind != schema.kind:
        return f"it is a {head['class_path']}"
    if _pooling_name(pooling) != (type(net.pooling).__name__ if net.pooling else None):
        return f"its pooling differs (model.pooling {pooling})"
    if (old.numeric_features, old.categories) != (schema.numeric_features, schema.categories):
        return "its metadata columns differ"
    if not set(schema.outputs) & set(old.outputs):
        return f"its outputs are {listed(old.outputs)}"
    if schema.outputs != old.outputs and not isinstance(net.head, LinearHead):
        return f"its outputs are {listed(old.outputs)}, and not every weight of it belongs to one of them"
    # A custom loss, a class with arguments, does not affect how the head decodes.
    plain = {key: value for key, value in (head.get("init_args") or {}).items() if not isinstance(value, dict)}
    before = type(net.head)(net.head.in_features, len(old.outputs), **plain).decode_rule()
    learnt = ("scale", "shift", "knots")
    differ = [key for key, value in net.head.decode_rule().items() if key not in learnt and before.get(key) != value]
    return f"its decoding differs ({listed(differ)})" if differ else ""


def _pooling_name(pooling: Any) -> str | None:
    """The class of the setting `model.pooling`; None for the backbone's own."""
    if isinstance(pooling, dict):
        return str(pooling["class_path"]).rpartition(".")[2]
    return None if pooling == "avg" else NAMED[pooling].__name__


def _fits(own: Tensor, other: Tensor | None, schema: Schema, old: Schema) -> bool:
    """Whether a tensor of the other run has the expected shape."""
    if other is None:
        return False
    is_per_output = len(own.shape) > 0 and own.shape[0] == len(schema.outputs) and schema.outputs != old.outputs
    expected = (len(old.outputs), *own.shape[1:]) if is_per_output else tuple(own.shape)
    return tuple(other.shape) == expected
