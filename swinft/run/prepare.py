"""What was checked before training is frozen into the run's folder."""

import hashlib
import json
import platform
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace

from swinft.data.drawing import visible
from swinft.data.folds import folds_csv
from swinft.errors import InputError
from swinft.limits import available_cores
from swinft.run.arguments import Parser
from swinft.run.check import check_run
from swinft.run.config import difference, dump
from swinft.run.devices import check_devices, devices_per_fold, freeze_devices
from swinft.run.inference import format_seconds
from swinft.run.layout import Run
from swinft.run.lock import hold
from swinft.run.looked import Looked, handed_down, look_again, looked
from swinft.run.precision import training_precision
from swinft.run.store import commit, is_committed, probe, verify

TABLES = ("train", "test", "sample_submission")
PACKAGES = ("swinft", "torch", "lightning", "timm", "albumentations", "torchmetrics", "numpy", "pandas", "pillow")


def prepare(run: Run, parser: Parser, config: Namespace, held: Path) -> Looked | None:
    """Checks everything that can be checked before training, then freezes it into the run's folder.

    Args:
        run: The run.
        parser: The parser that read the config.
        config: The config.
        held: The lock that this process holds.

    Returns:
        What is known of the images; None where the process that started this one has told already, or no fold waits.

    Raises:
        InputError: Data or config are wrong; or the folder exists and neither `--resume` nor `--overwrite` was given.
    """
    if config.resume and config.overwrite:
        raise InputError("--resume goes on with a run, --overwrite deletes it: give one of them.")
    if run.is_unstarted():
        print(f"{run.root}: an earlier start ended before the first fold; starting anew")
    elif config.resume:
        changes = difference(verify(Run.open(run.root).config).read_text(encoding="utf-8"), dump(parser, config))
        if changes:
            raise InputError(
                f"{run.root} was started with another config; resuming would mix the two.\n{changes}\n"
                f"Undo the change, or give the new run another --name."
            )
        check_inputs(run, config)
        check_devices(run, config)
        waiting = [index for index in run.planned_folds() if not run.fold(index).is_done]
        if handed_down() is not None or not (waiting if config.fold is None else config.fold in waiting):
            return None
        return look_again(run, parser, config)
    elif run.root.exists() and any(run.root.iterdir()) and not config.overwrite:
        raise InputError(
            f"{run.root} exists. --resume goes on with it, --overwrite deletes it, --name NAME makes another."
        )
    checked = check_run(parser, config)
    data = checked.data
    print(f"looked at {len(data.pictures):,} images in {format_seconds(checked.seconds)}")
    print(f"  {data.pictures.decision}")
    for note in data.notes:
        print(f"  {visible(note)}")
    print("\n".join(checked.submission()))
    # Per fold: weights, and two checkpoints of weights, average and AdamW's two moments while it is fitted.
    probe(run.root.parent, 4 * checked.num_parameters * (data.fold_of_row.max() + 9))
    if config.fold is not None and not 0 <= config.fold <= data.fold_of_row.max():
        raise InputError(f"--fold {config.fold}: the folds are 0 to {data.fold_of_row.max()}.")
    devices = devices_per_fold(config, int(data.fold_of_row.max()) + 1)
    if run.root.exists():
        was_started = not run.is_unstarted()
        _delete(run, held)
        if was_started:
            print(f"{run.root}: the earlier run is deleted (--overwrite)")
    commit(run.schema, json.dumps(data.schema.to_dict(), indent=1).encode(), "swinft fit")
    commit(run.folds, folds_csv(data.train_table.ids, data.fold_of_row).encode(), "swinft fit")
    commit(run.images, data.images_csv().encode(), "swinft fit")
    commit(run.inputs, json.dumps(_hash_inputs(config), indent=1).encode(), "swinft fit")
    freeze_devices(run, devices)
    commit(run.environment, json.dumps(_environment(config), indent=1).encode(), "swinft fit")
    commit(run.config, checked.config.encode(), "swinft fit")  # last: a folder with a config is a run
    return looked(data)


def check_inputs(run: Run, config: Namespace, tables: Sequence[str] = TABLES) -> None:
    """Compares the CSVs with those that the run was started with.

    Args:
        run: The run.
        config: Its config.
        tables: The keys of `data` whose tables are compared.

    Raises:
        InputError: One has changed: folds and targets would no longer be those of the finished folds.
    """
    frozen = json.loads(verify(run.inputs).read_text())
    now = _hash_inputs(config, tables)
    known = {str(Path(config.data.root) / config.data[name]) for name in tables if config.data[name]}
    frozen = {path: sha256 for path, sha256 in frozen.items() if path in known or set(tables) == set(TABLES)}
    changed = [
        f"{path} (SHA-256 was {frozen.get(path, 'absent')[:12]}, is {now.get(path, 'absent')[:12]})"
        for path in sorted({**frozen, **now})
        if frozen.get(path) != now.get(path)
    ]
    if changed:
        title = f"{run.root} was started with other data. Restore these files, or give the new run another --name:"
        raise InputError("\n  ".join([title, *changed]))


def _hash_inputs(config: Namespace, tables: Sequence[str] = TABLES) -> dict[str, str]:
    """SHA-256 of the CSVs that the config names."""
    paths = [Path(config.data.root) / config.data[name] for name in tables if config.data[name]]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths if path.is_file()}


def _environment(config: Namespace) -> dict[str, Any]:
    device, precision, reason = training_precision(config.trainer.accelerator, config.trainer.precision)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "versions": {package: version(package) for package in PACKAGES},
        "python": platform.python_version(),
        "device": f"{device.type} {name}",
        "cores": available_cores(),
        "precision": precision,
        "precision_reason": reason,
    }


def _delete(run: Run, held: Path) -> None:
    """Deletes a run's folder for `--overwrite`, while nobody else works in it.

    Raises:
        InputError: The folder holds something that no run made, or another process fits one of its folds.
    """
    if not is_committed(run.config) and not run.is_unstarted() and any(run.root.iterdir()):
        raise InputError(
            f"{run.root} is not a run: --overwrite deletes only what `swinft fit` made. Give another --name."
        )
    with ExitStack() as locks:
        for lock in {run.lock, *run.fold_locks()} - {held}:
            locks.enter_context(hold(lock))
        shutil.rmtree(run.root)
