"""The devices of each fold: their number is frozen with the run, their indices are not."""

import json
import math
import os
from collections.abc import Sequence
from typing import Any

import torch
from jsonargparse import Namespace

from swinft.errors import InputError, number_of
from swinft.run.layout import Run
from swinft.store import commit
from swinft.system.cluster.environment import SLOTS_ON_NODE
from swinft.system.cluster.place import LOCAL
from swinft.system.cluster.slots import cluster_slots
from swinft.system.device import HIDE, check_usable, slot_of, visible_gpus
from swinft.system.precision import named_devices, training_device
from swinft.system.processes import Slot

FOLDS_AT_A_TIME = "SWINFT_FOLDS_AT_A_TIME"  # environment variable of a fold's process


def check_training_devices(config: Namespace) -> None:
    """Checks that every device on which folds will be fitted works.

    Raises:
        InputError: One cannot be used.
    """
    device = training_device(config.trainer)
    devices = [device]
    if device.type == "cuda":
        chosen = _indices(config.trainer.devices, torch.cuda.device_count())
        devices = [torch.device("cuda", index) for index in chosen if index < torch.cuda.device_count()]
    # The accelerator is frozen with the run: a resume cannot change it.
    check_usable(devices, HIDE if config.get("resume") else "add --trainer.accelerator cpu")


def one_device(config: Namespace) -> list[int] | int:
    """A value of `trainer.devices` for a training on one device: the first of those that it names, else any.

    Raises:
        InputError: It is neither `auto`, a number, nor indices.
    """
    chosen = config.trainer.devices
    _indices(chosen, 0)
    return named_devices(chosen)[:1] or 1


def devices_per_fold(config: Namespace, num_folds: int, gpus: Sequence[str] | None = None) -> int:
    """The number of devices per fold for a run that starts here.

    A fold on one GPU needs no communication: folds run in parallel, one GPU each. Several GPUs work on one fold only if
    there are more GPUs than folds. The batch size, the steps of an epoch and the schedule depend on this number, so it
    is the same for every fold and every resume.

    Args:
        config: `trainer.accelerator`, `trainer.devices` and `devices_per_fold`.
        num_folds: All folds of the run, with the finished ones.
        gpus: Names of GPUs to plan for, in the place of those here.

    Raises:
        InputError: There are fewer GPUs than `devices_per_fold`, or `trainer.devices` contradicts it.
    """
    names = _gpus_for(config) if gpus is None else gpus
    wanted, configured = config.devices_per_fold, config.trainer.devices
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
    """Stores the number of devices per fold."""
    commit(run.devices, json.dumps({"devices_per_fold": number}, indent=1).encode(), "swinft fit")


def check_devices(run: Run, config: Namespace) -> None:
    """Compares this machine and the command line with the number of devices at the run's start.

    Raises:
        InputError: Another number is requested, or this machine has fewer GPUs.
    """
    frozen, names, wanted = run.devices_per_fold(), _gpus_for(config), config.devices_per_fold
    requested = wanted if config.trainer.devices == "auto" else _count(config.trainer.devices, len(names))
    if requested is not None and requested != frozen:
        raise InputError(
            f"each fold of {run.root} is fitted on {number_of(frozen, 'device')}, and "
            f"{number_of(requested, 'is', 'are')} requested: batches and schedule would differ. Request {frozen}, or "
            f"give the new run another --name."
        )
    if config.trainer.devices == "auto" and frozen > max(1, len(names)):
        raise InputError(
            f"each fold of {run.root} is fitted on {number_of(frozen, 'GPU')}, and this machine has {len(names)}: "
            f"batches and schedule would differ. Resume on a machine with {frozen}, or give the new run another --name."
        )


def slots_for(
    config: Namespace, per_fold: int, num_waiting: int, on: str = LOCAL, gpus: Sequence[str] | None = None
) -> list[Slot]:
    """Divides the GPUs of this machine, or of a cluster, among unfinished folds.

    Args:
        config: `trainer.accelerator` and `trainer.devices`.
        per_fold: Devices per fold.
        num_waiting: Unfinished folds.
        on: Where they run.
        gpus: Names of GPUs to plan for, in the place of those here.

    Returns:
        One entry per fold that can run at the same time.

    Raises:
        InputError: The cluster does not have what a fold takes.
    """
    if on != LOCAL:
        has_gpu = training_device(config.trainer).type != "cpu"
        return cluster_slots(on, per_fold if has_gpu else 0, num_waiting, config.trainer.accelerator == "cpu")
    names = _gpus_for(config) if gpus is None else gpus
    if len(names) < 2 or config.trainer.devices != "auto":
        return [{}]
    count = max(1, min(len(names) // per_fold, num_waiting))
    return [slot_of(names[k * per_fold : (k + 1) * per_fold]) for k in range(count)]


def parallel_folds_variable(slots: list[Slot]) -> dict[str, str]:
    """The environment variable with the number of folds that run in parallel, of all trials, and share the cores."""
    return {FOLDS_AT_A_TIME: str(folds_at_a_time() * len(slots))}


def folds_at_a_time() -> int:
    """How many folds run in parallel, from the parent process; 1 without one."""
    return int(os.environ.get(FOLDS_AT_A_TIME, "1"))


def folds_on_machine() -> int:
    """How many folds share this machine's cores."""
    return int(os.environ.get(SLOTS_ON_NODE, folds_at_a_time()))


def describe_slots(config: Namespace, slots: list[Slot], per_fold: int, num_waiting: int) -> list[str]:
    """Lines that describe how folds share this machine's GPUs; none with fewer than two GPUs.

    Args:
        config: `trainer.accelerator` and `trainer.devices`.
        slots: As returned by `slots_for`.
        per_fold: Devices per fold.
        num_waiting: Unfinished folds.
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
        parallel = f"{len(slots)} folds at a time" if len(slots) > 1 else "one fold at a time"
        ends = f", {last} in the last" if last < len(slots) else ""
        lines.append(f"{parallel}{on}: {num_waiting} folds in {rounds} {'rounds' if rounds > 1 else 'round'}{ends}")
    if idle > 0:
        fitted = "fold is" if num_waiting == 1 else "folds are"
        why = f"{num_waiting} {fitted} to be fitted on {per_fold} each"
        why = why if configured == "auto" else f"trainer.devices is {configured}"
        hint = ": with auto, folds are fitted in parallel" if configured != "auto" else ""
        lines.append(f"{idle} of {num_gpus} GPUs stay idle, because {why}{hint}")
    return lines


def _gpus_for(config: Namespace) -> list[str]:
    return visible_gpus() if config.trainer.accelerator in ("auto", "gpu", "cuda") else []


def _count(devices: Any, num_gpus: int) -> int:
    """The number of devices in a value of `trainer.devices`."""
    return max(1, len(_indices(devices, num_gpus)))


def _indices(devices: Any, num_gpus: int) -> list[int]:
    """The device indices in a value of `trainer.devices`, as Lightning reads it: 2, "2", "0,1", [0, 1], -1 or auto.

    Raises:
        InputError: It is not such a value.
    """
    try:
        if isinstance(devices, str) and "," in devices:
            devices = [int(name) for name in devices.split(",") if name.strip()]
        if isinstance(devices, list):
            return [int(index) for index in devices]
        number = num_gpus if devices == "auto" else int(devices)
    except ValueError as error:
        raise InputError(
            f"trainer.devices is {devices!r}. Allowed: auto, a number of devices, or their indices, such as '0,1'."
        ) from error
    return list(range(number if number >= 0 else num_gpus))
