"""Which devices fit a fold: how many is part of a run's recipe, which ones is not."""

import json
import os
from typing import Any

import torch
from jsonargparse import Namespace

from swinft.errors import InputError
from swinft.run.layout import Run
from swinft.run.processes import Slot
from swinft.run.store import commit

SIDE_BY_SIDE = "SWINFT_FOLDS_AT_A_TIME"  # in the environment of a fold's process


def devices_per_fold(config: Namespace, num_folds: int) -> int:
    """How many devices work on each fold of a run that is started here.

    A fold on one GPU loses nothing to communication: folds run side by side, one GPU each, and several GPUs work on one
    fold only where there are more GPUs than folds. The batch, the steps of an epoch and with them the schedule follow
    from this number, so that it is the same for every fold and for every resume.

    Args:
        config: `trainer.accelerator`, `trainer.devices` and `devices_per_fold`.
        num_folds: All folds of the run, those that are done included.

    Raises:
        InputError: There are fewer GPUs than `devices_per_fold`, or `trainer.devices` contradicts it.
    """
    names, wanted, configured = _gpus_for(config), config.devices_per_fold, config.trainer.devices
    if configured != "auto":
        if wanted is not None:
            raise InputError(
                f"trainer.devices is {configured}, --devices-per-fold {wanted}: leave trainer.devices at auto."
            )
        return _count(configured, len(names))
    if wanted is None:
        return max(1, len(names) // num_folds)
    if not 1 <= wanted <= max(1, len(names)):
        raise InputError(f"--devices-per-fold is {wanted}, but there are {len(names)} GPUs here.")
    return int(wanted)


def freeze_devices(run: Run, number: int) -> None:
    """Writes down how many devices work on each fold."""
    commit(run.devices, json.dumps({"devices_per_fold": number}, indent=1).encode(), "swinft fit")


def check_devices(run: Run, config: Namespace) -> None:
    """Compares this machine and the command line with the number of devices that a run was started with.

    Raises:
        InputError: Another number is asked for, or there are fewer GPUs here.
    """
    frozen, names, wanted = run.devices_per_fold(), _gpus_for(config), config.devices_per_fold
    asked = wanted if config.trainer.devices == "auto" else _count(config.trainer.devices, len(names))
    if asked is not None and asked != frozen:
        raise InputError(
            f"each fold of {run.root} is fitted on {frozen} device(s), and {asked} are asked for: batches and schedule "
            f"would be others. Ask for {frozen}, or give the new run another --name."
        )
    if config.trainer.devices == "auto" and frozen > max(1, len(names)):
        raise InputError(
            f"each fold of {run.root} is fitted on {frozen} GPUs, and there are {len(names)} here: batches and "
            f"schedule would be others. Go on where there are {frozen}, or give the new run another --name."
        )


def slots_for(config: Namespace, per_fold: int, num_waiting: int) -> list[Slot]:
    """Shares this machine's GPUs among folds that wait to be fitted.

    Args:
        config: `trainer.accelerator` and `trainer.devices`.
        per_fold: Devices that work on one fold.
        num_waiting: Folds that wait.

    Returns:
        One entry per fold that can run at the same time.
    """
    names = _gpus_for(config)
    if len(names) < 2 or config.trainer.devices != "auto":
        return [{}]
    count = max(1, min(len(names) // per_fold, num_waiting))
    return [{"CUDA_VISIBLE_DEVICES": ",".join(names[k * per_fold : (k + 1) * per_fold])} for k in range(count)]


def side_by_side(slots: list[Slot]) -> dict[str, str]:
    """What tells a fold's process how many folds run at the same time: they share the cores."""
    return {SIDE_BY_SIDE: str(len(slots))}


def folds_at_a_time() -> int:
    """How many folds run side by side, as the process that started this one has told; 1 where nobody has."""
    return int(os.environ.get(SIDE_BY_SIDE, "1"))


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them."""
    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:count] if named else [str(index) for index in range(count)]


def _gpus_for(config: Namespace) -> list[str]:
    return visible_gpus() if config.trainer.accelerator in ("auto", "gpu", "cuda") else []


def _count(devices: Any, num_gpus: int) -> int:
    """How many devices a value of `trainer.devices` names: 2, "2", "0,1", [0, 1], or -1 for all."""
    if isinstance(devices, list):
        return len(devices)
    names = [name for name in str(devices).split(",") if name.strip()]
    if len(names) > 1:
        return len(names)
    number = int(names[0])
    return number if number >= 0 else max(1, num_gpus)
