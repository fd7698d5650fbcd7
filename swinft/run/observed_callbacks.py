"""Callbacks of a run only observe: one whose hook changes weights or a batch ends its fold with an error."""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelPruning, ProgressBar
from torch import Tensor

from swinft.errors import InputError

OTHERS = ("on_exception", "on_load_checkpoint", "on_save_checkpoint")  # which have no task, or restore one
HOOKS = [name for name in dir(Callback) if name.startswith("on_") and name not in OTHERS]
# Where the weights of a training are, and its tensors as a hook found them: to list them takes milliseconds.
Known = dict[int, list[Tensor]]


def observed(callback: Callback) -> Callback:
    """The same callback, whose hooks raise an `InputError` if they change weights or a batch in place.

    Changes behind torch's back, such as of `weight.data`, are not seen here; the recorder compares what was validated.
    """
    if isinstance(callback, ModelPruning | ProgressBar):  # which may prune; and which only draws, at every batch
        return callback
    known: Known = {}
    for name in HOOKS:
        if getattr(type(callback), name) is not getattr(Callback, name):
            setattr(callback, name, functools.partial(_checked, getattr(callback, name), known))
    return callback


def _checked(
    hook: Callable[..., Any], known: Known, trainer: Trainer, task: LightningModule, *given: Any, **named: Any
) -> Any:
    """What a hook returns.

    Raises:
        InputError: It has changed weights or a batch.
    """
    if "batch" not in hook.__name__ or id(task) not in known:  # at other sizes of images, a network has other tensors
        known.clear()
        known[id(task)] = [*task.parameters(), *task.buffers()]
    batches = [each for each in (*given, *named.values()) if isinstance(each, Mapping)]
    things = {"weights": known[id(task)], "batch": [each for batch in batches for each in batch.values()]}
    before = {what: _state(tensors) for what, tensors in things.items()}
    found = hook(trainer, task, *given, **named)
    for what, tensors in things.items():
        if _state(tensors) != before[what]:
            name = f"{type(getattr(hook, '__self__', None)).__name__}.{hook.__name__}"
            raise InputError(
                f"trainer.callbacks: {name} changes the {what}, and a callback may only observe. Remove it: "
                f"model.ema_decay averages weights, model.freeze_epochs freezes them, data.augment and model.mix "
                f"change images."
            )
    return found


def _state(tensors: Iterable[Any]) -> list[tuple[int, int]]:
    """Place and version of tensors; an inference tensor has no version."""
    ordinary = (each for each in tensors if isinstance(each, Tensor) and not each.is_inference())
    return [(each.data_ptr(), each._version) for each in ordinary]
