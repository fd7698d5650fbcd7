"""Number of loader workers, their prefetch factor, and the time spent waiting for them."""

import math
import multiprocessing
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch.utils.data import DataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

from swinft.data.augment.geometry import DevicePreset
from swinft.errors import InputError, RunError, number_of
from swinft.system.limits import available_cores, available_memory, format_bytes

if TYPE_CHECKING:
    from swinft.data.datamodule import CSVDataModule

NumWorkers = int | Literal["auto"]
# What the workers do: prepare training images; only draw augmentation parameters, where the device augments; prepare
# validation images, while the training workers are idle but keep their memory; or prepare images to predict.
Work = Literal["train", "draw", "validate", "predict"]

MAX_WORKERS = 8  # of `auto`; users may set more
MAX_DRAW_WORKERS = 2
PREFETCH = 4  # batches that each worker prefetches, if they fit in memory
SPARE = 2  # batches beside the prefetched ones: one in use, one being copied to the device
MEMORY_SHARE = 0.1  # of the available memory, for prefetched batches
SHARED_MEMORY = Path("/dev/shm")  # Linux's shared memory; Docker's default is 64 MB
SHM_FIX = f"give the container more of {SHARED_MEMORY} (docker run --shm-size 8g, or --ipc host)"
SLOW_SHARE = {"cpu": 0.5}  # of the time spent waiting for the loader: above it, advice is printed
SLOW_SHARE_OF_GPU = 0.1


@dataclass(frozen=True)
class Destination:
    """The device that a loader's batches go to, and the processes that share this machine's cores.

    Args:
        device: The device that computes.
        folds: Folds that are fitted at the same time on this machine.
        devices: Devices of one fold, or of one prediction, with a process for each.
        is_command: Called from a command of swinft. Workers that are not forked import the main module, which a user's
            script may not be prepared for.
    """

    device: torch.device
    folds: int = 1
    devices: int = 1
    is_command: bool = False


@dataclass(frozen=True)
class LoaderPlan:
    """Options of a loader.

    Args:
        num_workers: Loader processes; 0 to prepare batches in the main process.
        prefetch_factor: Batches that each worker prefetches.
        pin_memory: Batches are in page-locked memory, from which a CUDA device copies while it computes.
        reason: Why this number of workers, in words.
        warning: What is wrong with their number, as a sentence; empty if nothing is.
    """

    num_workers: int
    prefetch_factor: int
    pin_memory: bool
    reason: str
    warning: str = ""

    def __str__(self) -> str:
        if not self.num_workers:
            return f"batches are made without loader processes ({self.reason})"
        return f"batches come from {number_of(self.num_workers, 'loader process', 'loader processes')} ({self.reason})"


def plan_loader(wanted: NumWorkers, to: Destination, batch_bytes: int, num_batches: int, work: Work) -> LoaderPlan:
    """Chooses the options of a loader.

    Args:
        wanted: `data.loading.num_workers`.
        to: Where the batches go.
        batch_bytes: Size of one batch.
        num_batches: Batches of one pass.
        work: What the workers do.

    Raises:
        InputError: Shared memory is too small for the batches of so many workers.
    """
    cores, sharing = available_cores(), to.folds * to.devices
    memory = int(MEMORY_SHARE * available_memory()) // sharing
    shared = _free_shared_memory() // sharing
    waiting = max(0, min(memory, shared) // batch_bytes - SPARE)  # batches that may be prefetched
    warning = ""
    if wanted == "auto":
        number, reason = _choose(cores, to, num_batches, work)
        if waiting < number:
            size = f"{format_bytes(batch_bytes)} a batch, {format_bytes(min(memory, shared))} for those that wait"
            hint = f"; for more, {SHM_FIX}" if shared < memory else ""
            number, reason = waiting, f"data.loading.num_workers auto: {size}{hint}"
    else:
        number, reason = wanted, f"data.loading.num_workers {wanted}"
        if number and shared // batch_bytes < number + SPARE:
            raise InputError(
                f"data.loading.num_workers is {number}, and {SHARED_MEMORY} has {format_bytes(shared)} for batches of "
                f"{format_bytes(batch_bytes)}: loader processes would end with a bus error. Set "
                f"data.loading.num_workers (for predict --num-workers) to auto or 0, lower the batch size, or "
                f"{SHM_FIX}."
            )
        if number * sharing > cores:
            warning = (
                f"data.loading.num_workers is {number}{_shared_among(to)}, and there {'are' if cores > 1 else 'is'} "
                f"{number_of(cores, 'core')}: loader processes wait for each other. Set it to auto, or to less."
            )
    prefetch = min(PREFETCH, max(1, waiting // number)) if number else 0
    return LoaderPlan(number, prefetch, to.device.type == "cuda", reason, warning)


def _choose(cores: int, to: Destination, num_batches: int, work: Work) -> tuple[int, str]:
    """The number of workers for `auto`, and why."""
    if to.device.type == "cpu":
        return 0, "data.loading.num_workers auto: on a CPU they would take cores from the network"
    if not to.is_command and not _may_be_imported():
        return (
            0,
            "data.loading.num_workers auto: here they would import the script; set a number where its code is guarded",
        )
    own = cores // to.folds // to.devices
    number = max(0, min(MAX_WORKERS, own - 1))
    number = {"draw": min(number, MAX_DRAW_WORKERS), "validate": -(-number // 2)}.get(work, number)
    number = min(number, num_batches)
    return number, f"data.loading.num_workers auto: {number_of(cores, 'core')}{_shared_among(to)}, 1 to launch kernels"


def _shared_among(to: Destination) -> str:
    folds = f" ÷ {to.folds} folds at a time" if to.folds > 1 else ""
    return f"{folds} ÷ {to.devices} devices" if to.devices > 1 else folds


def start_method() -> str:
    """The start method of this process's children; asking does not fix it."""
    return multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]


def _may_be_imported() -> bool:
    """Whether workers do not import the main module: forked ones do not, and a notebook has none.

    Other workers do, and a script without `if __name__ == "__main__"` would start itself again.
    """
    return start_method() == "fork" or not hasattr(sys.modules["__main__"], "__file__")


def _free_shared_memory() -> int:
    """Free bytes of shared memory; unlimited where the system does not report it."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free if sys.platform == "linux" else sys.maxsize
    except OSError:
        return sys.maxsize


@contextmanager
def explain_worker_crash(where: str, saved: str, fewer: str) -> Iterator[None]:
    """Explains the crash of a worker by its most frequent cause.

    Args:
        where: Prefix of the message.
        saved: What is not lost, as a sentence.
        fewer: The option that switches workers off.

    Raises:
        RunError: A worker crashed.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        if "Bus error" in str(error):
            raise RunError(
                f"{where}a loader process found no free shared memory. {saved}Add {fewer}, or {SHM_FIX}."
            ) from error
        raise RunError(
            f"{where}{str(error).splitlines()[0]} {saved}'Killed' most often means too little memory: add {fewer}. A "
            f"segmentation fault is a decoder's: `swinft check` decodes every image in turn."
        ) from error


class WaitTime:
    """Time that the main process waits for its loader in one pass.

    `seconds` excludes the first batch, which includes the start of the workers.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._first = self._last = math.nan

    def add(self, requested: float, received: float) -> None:
        """Counts a batch by the times at which it was requested and received."""
        if math.isnan(self._first):
            self._first = received
        else:
            self.seconds += received - requested
        self._last = received

    @property
    def share(self) -> float | None:
        """Fraction of the time from the first batch to the last; None if that is zero."""
        between = self._last - self._first
        return self.seconds / between if between > 0 else None


class TimedLoader(DataLoader[Any]):
    """A loader with its plan, and the time spent waiting for it in the latest pass."""

    plan: LoaderPlan | None = None
    waits: WaitTime | None = None
    rows_of: tuple[str, Any] | None = None  # the split and the `Splits` whose rows are evaluated

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # PyTorch's own iterator is what is timed
        self.waits = WaitTime()
        return _Timed(super().__iter__(), self.waits)


@contextmanager
def last_pass(loader: DataLoader[Any]) -> Iterator[None]:
    """Ends a loader's persistent workers after a pass.

    Without this they end when the loader is garbage. If that is found by the collector of cycles, their queues may be
    finalised first: then torch waits five seconds for each worker, wherever the program is at that moment.
    """
    try:
        yield
    finally:
        if isinstance(workers := loader._iterator, _MultiProcessingDataLoaderIter):
            workers._shutdown_workers()
            loader._iterator = None


class _Timed(Iterator[Any]):
    """Times each batch. Not a generator: PyTorch's iterator must start its workers at once, not at the first batch."""

    def __init__(self, batches: Iterator[Any], waits: WaitTime) -> None:
        self._batches, self._waits = batches, waits

    def __next__(self) -> Any:
        requested = time.monotonic()
        batch = next(self._batches)
        self._waits.add(requested, time.monotonic())
        return batch


def is_slow(share: float, device: torch.device) -> bool:
    """Whether a device waits for its loader so much of the time that settings should be changed."""
    return share > SLOW_SHARE.get(device.type, SLOW_SHARE_OF_GPU)


def advice(data: "CSVDataModule", num_workers: int) -> str:
    """What to change where a device waits for its training images.

    Args:
        data: After its images were scanned.
        num_workers: Current number of workers.
    """
    to, cores, loading = data.destination, available_cores(), data.settings.loading
    is_cached = data.training_cache() is not None
    ways = []
    if not is_cached:
        ways.append("data.loading.cache to true")
    elif to.device.type == "cuda" and loading.augment_on == "cpu" and data.settings.augment in get_args(DevicePreset):
        ways.append("data.loading.augment_on to device")
    if (num_workers + 1) * to.folds * to.devices < cores:
        ways.append(f"data.loading.num_workers to {cores // to.folds // to.devices - 1}")
    if ways:
        return f"set {' or '.join(ways)}"
    return f"its {number_of(cores, 'core')} are in use: take a machine with more, or a lower data.image_size"
