"""Folds as processes: which devices each gets, how many run at once, and what becomes of signals."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from jsonargparse import Namespace

from swinft.errors import InputError
from swinft.run.layout import Run

Slot = dict[str, str]  # what the environment of a fold's process gets besides the parent's


def slots_for(config: Namespace, num_folds: int) -> list[Slot]:
    """Shares this machine's GPUs among folds that wait to be fitted.

    A fold on one GPU loses nothing to communication: folds run side by side, one GPU each, and several GPUs work on one
    fold only where there are more GPUs than folds.

    Args:
        config: `trainer.accelerator`, `trainer.devices` and `devices_per_fold`.
        num_folds: Folds that wait.

    Returns:
        One entry per fold that can run at the same time.

    Raises:
        InputError: There are fewer GPUs than `devices_per_fold`, or `trainer.devices` contradicts it.
    """
    uses_gpus = config.trainer.accelerator in ("auto", "gpu", "cuda")
    names = visible_gpus() if uses_gpus else []
    wanted = config.devices_per_fold
    if wanted is None and (len(names) < 2 or config.trainer.devices != "auto"):
        return [{}]
    if config.trainer.devices != "auto":
        raise InputError(
            f"trainer.devices is {config.trainer.devices}, --devices-per-fold {wanted}: leave trainer.devices at auto."
        )
    per_fold = wanted if wanted is not None else max(1, len(names) // num_folds)
    if not 1 <= per_fold <= len(names):
        raise InputError(f"--devices-per-fold is {per_fold}, but there are {len(names)} GPUs here.")
    count = min(len(names) // per_fold, num_folds)
    return [{"CUDA_VISIBLE_DEVICES": ",".join(names[k * per_fold : (k + 1) * per_fold])} for k in range(count)]


def visible_gpus() -> list[str]:
    """Names of the GPUs that this process may use, as CUDA_VISIBLE_DEVICES takes them."""
    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return named[:count] if named else [str(index) for index in range(count)]


def same_code() -> dict[str, str]:
    """The environment of a process that must run the code that this one runs, whatever lies in the working folder.

    `python -m swinft` would import a folder called `swinft`, such as a clone, instead of the installed package.
    """
    package = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    if Path(package).name not in ("site-packages", "dist-packages"):  # there it is found anyway, behind Python's own
        before = os.environ.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([package, before] if before else [package])
    return environment


def run_folds(
    run: Run, folds: Sequence[int], allow_code: list[str], secrets: dict[str, str], slots: Sequence[Slot]
) -> dict[int, int]:
    """Runs `swinft fit --fold k` for each fold, as many at once as there are slots.

    After a failure no other fold is started; those that run are left to end.

    Args:
        run: The run, prepared.
        folds: Which folds.
        allow_code: As given to this process.
        secrets: What the environment needs besides.
        slots: Devices of those that run at the same time.

    Returns:
        The exit code of each fold that was started.
    """
    waiting, free, codes = list(folds), list(slots), dict[int, int]()
    running: dict[int, tuple[subprocess.Popen[bytes], Slot]] = {}
    with _forwarded(running):
        while running or (waiting and not any(codes.values())):
            while waiting and free and not any(codes.values()):
                index, slot = waiting.pop(0), free.pop(0)
                environment = {**same_code(), **secrets, **slot}
                running[index] = (subprocess.Popen(_command(run, index, allow_code), env=environment), slot)
            time.sleep(0.05)
            for index, (process, slot) in list(running.items()):
                if (code := process.poll()) is not None:
                    codes[index] = 128 - code if code < 0 else code  # a signal that ended it is a negative number
                    free.append(slot)
                    del running[index]
    return codes


@contextmanager
def _forwarded(running: dict[int, tuple[subprocess.Popen[bytes], Slot]]) -> Iterator[None]:
    """Signals that stop the parent stop the children first, which keep their last whole epochs."""

    def forward(number: int, _: FrameType | None) -> None:
        for process, _slot in list(running.values()):
            process.send_signal(number)

    previous = signal.signal(signal.SIGTERM, forward)
    try:
        yield
    except KeyboardInterrupt:  # the terminal sent it to the children as well: let them end before we say so
        for process, _slot in running.values():
            process.wait()
        raise
    finally:
        signal.signal(signal.SIGTERM, previous)


def _command(run: Run, index: int, allow_code: list[str]) -> list[str]:
    command = [sys.executable, "-m", "swinft", "fit", "--config", str(run.config), "--fold", str(index), "--resume"]
    return command + (["--allow-code", ",".join(allow_code)] if allow_code else [])
