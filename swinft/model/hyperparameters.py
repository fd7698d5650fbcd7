"""A task's arguments as a checkpoint keeps them: plain values, under today's names."""

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch

from swinft.errors import InputError, suggest
from swinft.model.settings import ComputeConfig, TaskContext

# Arguments that were flat in earlier versions, by the one that holds them today.
SECTIONS: dict[str, list[str]] = {
    "compute": [field.name for field in fields(ComputeConfig)],
    "context": [field.name for field in fields(TaskContext)],
}


def plain(value: Any) -> Any:
    """The same without tuples, which YAML and JSON do not have."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, tuple | list) else value


def upgraded_arguments(cls: type, path: Any, given: dict[str, Any]) -> dict[str, Any]:
    """What `load_from_checkpoint` must be told besides what the checkpoint says in today's words.

    Args:
        cls: The class of the task.
        path: The checkpoint.
        given: Lightning's options, and arguments that replace the checkpoint's.

    Raises:
        InputError: The class has no such argument: Lightning would leave it out without a word.
    """
    parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]  # of this very class
    options = {"map_location", "hparams_file", "strict", "weights_only"}
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    for name in given if not takes_any else ():
        if name not in parameters and name not in options:
            section = next((section for section, names in SECTIONS.items() if name in names), None)
            hint = f" It is part of `{section}`." if section else suggest(name, [*parameters])
            raise InputError(f"{cls.__name__} has no argument '{name}'.{hint}")
    return {**_renamed(_saved_arguments(path)), **given}


def _renamed(kept: dict[str, Any]) -> dict[str, Any]:
    """The arguments that a checkpoint of an earlier version keeps flat, in those that hold them today."""
    old = {section: {name: kept[name] for name in names if name in kept} for section, names in SECTIONS.items()}
    return {section: values for section, values in old.items() if values and section not in kept}


def _saved_arguments(path: Any) -> dict[str, Any]:
    """The arguments that a local checkpoint keeps; none of a file that cannot be read so, of which Lightning speaks."""
    if not isinstance(path, str | Path) or not Path(path).is_file():
        return {}
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return dict(checkpoint.get("hyper_parameters") or {})
    except Exception:
        return {}
