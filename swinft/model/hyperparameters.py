"""Hyper-parameters of a checkpoint: plain values, with the names of earlier versions converted."""

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

import torch

from swinft.errors import InputError, suggest
from swinft.model.settings import ComputeConfig, TaskContext

T = TypeVar("T")
# Arguments that earlier versions had flat, by the argument that contains them now.
SECTIONS: dict[str, list[str]] = {
    "compute": [field.name for field in fields(ComputeConfig)],
    "context": [field.name for field in fields(TaskContext)],
}


def plain(value: Any) -> Any:
    """The value with lists instead of tuples, which YAML and JSON do not have."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    return [plain(each) for each in value] if isinstance(value, tuple | list) else value


def of_plain(cls: type[T], given: Any) -> T:
    """Settings from the plain values of a checkpoint; anything else as it is."""
    return cls(**given) if isinstance(given, dict) else given


def upgraded_arguments(cls: type, path: Any, given: dict[str, Any]) -> dict[str, Any]:
    """Arguments to pass to `load_from_checkpoint`: the given ones, and flat ones of a checkpoint of an earlier version.

    Args:
        cls: The class of the task.
        path: The checkpoint.
        given: Lightning's options, and arguments that replace the checkpoint's.

    Raises:
        InputError: The class has no such argument; Lightning would ignore it silently.
    """
    parameters = inspect.signature(cls.__init__).parameters  # type: ignore[misc]  # of this very class
    options = {"map_location", "hparams_file", "strict", "weights_only"}
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters.values())
    for name in given if not takes_any else ():
        if name not in parameters and name not in options:
            section = next((section for section, names in SECTIONS.items() if name in names), None)
            hint = f" It is part of `{section}`." if section else suggest(name, [*parameters])
            raise InputError(f"{cls.__name__} has no argument '{name}'.{hint}")
    return {**_nested(_saved_arguments(path)), **given}


def _nested(saved: dict[str, Any]) -> dict[str, Any]:
    """The flat arguments of a checkpoint of an earlier version, by the argument that contains them now."""
    old = {section: {name: saved[name] for name in names if name in saved} for section, names in SECTIONS.items()}
    return {section: values for section, values in old.items() if values and section not in saved}


def _saved_arguments(path: Any) -> dict[str, Any]:
    """The hyper-parameters of a local checkpoint; none if it cannot be read: Lightning then reports the error."""
    if not isinstance(path, str | Path) or not Path(path).is_file():
        return {}
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return dict(checkpoint.get("hyper_parameters") or {})
    except Exception:
        return {}
