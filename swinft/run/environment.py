"""The environment of a fold: versions, device and precision. It can change the score, and may differ on resume."""

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jsonargparse import Namespace

from swinft.errors import StoreError
from swinft.run.fold_files import FoldId
from swinft.run.layout import Run
from swinft.system.limits import available_cores
from swinft.system.precision import training_precision
from swinft.versions import version

PACKAGES = ("swinft", "torch", "lightning", "timm", "albumentations", "torchmetrics", "numpy", "pandas", "pillow")
COMPARED = ("versions", "python", "device", "precision")


def describe_environment(config: Namespace) -> dict[str, Any]:
    """Versions, hardware, and the precision that a config resolves to on this machine."""
    device, precision, reason = training_precision(config.trainer)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "versions": {package: version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "device": f"{device.type} {name}",
        "cores": available_cores(),
        "precision": precision,
        "precision_reason": reason,
    }


def made_with(config: Namespace, devices: int) -> dict[str, Any]:
    """The part of the environment that a fold's result stores."""
    environment = describe_environment(config)
    return {**{key: environment[key] for key in COMPARED}, "devices": devices}


def trained_in(run: Run, folds: Sequence[FoldId]) -> list[str]:
    """The precision of each finished fold; if its result has none, that of the run's start."""
    found = [run.fold(index).read_result().get("made_with", {}).get("precision") for index in folds]
    return [each or str(run.read_environment()["precision"]) for each in found]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs between two environments, as `torch 2.10 → 2.11`; a key that one of them lacks is ignored."""
    flat = [
        {**dict(each.get("versions", {})), **{key: each[key] for key in COMPARED[1:] if key in each}}
        for each in (before, now)
    ]
    return [
        f"{key} {value} → {flat[1][key]}" for key, value in flat[0].items() if key in flat[1] and value != flat[1][key]
    ]


def note_of_resume(run: Run, config: Namespace) -> str | None:
    """A line if this environment differs from that of the finished folds, or of the start; None otherwise."""
    now = describe_environment(config)
    done = [index for index in run.planned_folds() if run.fold(index).is_done]
    known = [(f"fold {index}", _made_with(run, index)) for index in done]
    for name, before in known or [("the start", run.read_environment())]:
        if found := differences(before, now):
            return f"differs from {name}: {', '.join(found)}. Scores of folds may differ for this reason too."
    return None


def note_of_folds(results: list[dict[str, Any]]) -> str | None:
    """A line if folds were made in another environment than the first; None otherwise."""
    first = results[0].get("made_with", {})
    notes = [
        f"fold {result['fold']}: {', '.join(found)}"
        for result in results[1:]
        if (found := differences(first, result.get("made_with", {})))
    ]
    return f"folds made in another environment than fold {results[0]['fold']}: {'; '.join(notes)}" if notes else None


def _made_with(run: Run, index: FoldId) -> dict[str, Any]:
    try:
        environment: dict[str, Any] = run.fold(index).read_result().get("made_with", {})
    except StoreError:  # reported where the result is needed
        return {}
    return environment
