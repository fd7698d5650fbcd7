"""Which devices fit a fold: how many is part of a run's recipe, which ones is not."""

import json
import math
import os
from typing import Any

import torch
from jsonargparse import Namespace

from swinft.errors import InputError, number_of
from swinft.run.layout import Run
from swinft.store import commit
from swinft.system.device import HIDE, check_usable, slot_of, visible_gpus
from swinft.system.precision import training_device
from swinft.system.processes import Slot

SIDE_BY_SIDE = "SWINFT_FOLDS_AT_A_TIME"  # in the environment of a fold's process


def check_training_devices(config: Namespace) -> None:
    """Proves that every device that folds will be fitted on computes.

    Raises:
        InputError: One cannot be used.
    """
    device = training_device(config.trainer.accelerator)
    devices = [device]
    if device.type == "cuda":
        chosen = _indices(config.trainer.devices, torch.cuda.device_count())
        devices = [torch.device("cuda", index) for index in chosen if index < torch.cuda.device_count()]
    # A run goes on as it was started: its accelerator is part of its config.
    check_usable(devices, HIDE if config.get("resume") else "add --trainer.accelerator cpu")


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
        raise InputError(f"--devices-per-fold is {wanted}, but there {number_of(len(names), 'GPU', verb='is')} here.")
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
            f"each fold of {run.root} is fitted on {number_of(frozen, 'device')}, and {number_of(asked, 'is', 'are')} "
            f"asked for: batches and schedule would be others. Ask for {frozen}, or give the new run another --name."
        )
    if config.trainer.devices == "auto" and frozen > max(1, len(names)):
        raise InputError(
            f"each fold of {run.root} is fitted on {number_of(frozen, 'GPU')}, and there are {len(names)} "
            f"here: batches and schedule would be others. Go on where there are {frozen}, or give the new run another "
            f"--name."
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
    return [slot_of(names[k * per_fold : (k + 1) * per_fold]) for k in range(count)]


def side_by_side(slots: list[Slot]) -> dict[str, str]:
    """What tells a fold's process how many folds run at the same time: they share the cores."""
    return {SIDE_BY_SIDE: str(len(slots))}


def folds_at_a_time() -> int:
    """How many folds run side by side, as the process that started this one has told; 1 where nobody has."""
    return int(os.environ.get(SIDE_BY_SIDE, "1"))


def describe_slots(config: Namespace, slots: list[Slot], per_fold: int, num_waiting: int) -> list[str]:
    """How folds share this machine's GPUs, in lines to print; nothing where there are no two of them.

    Args:
        config: `trainer.accelerator` and `trainer.devices`.
        slots: As `slots_for` gives them.
        per_fold: Devices that work on one fold.
        num_waiting: Folds that wait.
    """
    num_gpus, configured = len(_gpus_for(config)), config.trainer.devices
    if num_gpus < 2:
        return []
    idle = num_gpus - per_fold * len(slots)
    lines = []
    if len(slots) > 1 or num_waiting > 1:
        groups = [slot["CUDA_VISIBLE_DEVICES"] for slot in slots if "CUDA_VISIBLE_DEVICES" in slot]
        on = f", on GPUs {' and '.join(groups)}" if groups else ""
        rounds, last = math.ceil(num_waiting / len(slots)), (num_waiting - 1) % len(slots) + 1
        said = f"{len(slots)} folds at a time" if len(slots) > 1 else "one fold at a time"
        ends = f", {last} in the last" if last < len(slots) else ""
        lines.append(f"{said}{on}: {num_waiting} folds in {rounds} {'rounds' if rounds > 1 else 'round'}{ends}")
    if idle > 0:
        fitted = "fold is" if num_waiting == 1 else "folds are"
        why = f"{num_waiting} {fitted} to be fitted on {per_fold} each"
        why = why if configured == "auto" else f"trainer.devices is {configured}"
        hint = ": with auto, folds are fitted side by side" if configured != "auto" else ""
        lines.append(f"{idle} of {num_gpus} GPUs stay idle, because {why}{hint}")
    return lines


def _gpus_for(config: Namespace) -> list[str]:
    return visible_gpus() if config.trainer.accelerator in ("auto", "gpu", "cuda") else []


def _count(devices: Any, num_gpus: int) -> int:
    """How many devices a value of `trainer.devices` names."""
    return max(1, len(_indices(devices, num_gpus)))


def _indices(devices: Any, num_gpus: int) -> list[int]:
    """Which devices a value of `trainer.devices` names, as Lightning reads it: 2, "2", "0,1", [0, 1], -1 or auto.

    Raises:
        InputError: It names none.
    """
    try:
        if isinstance(devices, str) and "," in devices:
            devices = [int(name) for name in devices.split(",") if name.strip()]
        if isinstance(devices, list):
            return [int(index) for index in devices]
        number = num_gpus if devices == "auto" else int(devices)
    except ValueError as error:
        raise InputError(
            f"trainer.devices is {devices!r}. Allowed: auto, how many devices, or which of them, such as '0,1'."
        ) from error
    return list(range(number if number >= 0 else num_gpus))
