"""How many loader processes feed what computes, how far they work ahead, and what waiting for them costs."""

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

from swinft.data.augment.geometry import DevicePreset
from swinft.errors import InputError, RunError, number_of
from swinft.system.limits import available_cores, available_memory, format_bytes

if TYPE_CHECKING:
    from swinft.data.datamodule import CSVDataModule

NumWorkers = int | Literal["auto"]
# What its processes do: make training images; only draw numbers, where the device samples and augments; make images to
# validate, while those that train rest and keep their memory; or make images to predict, with nobody beside them.
Work = Literal["train", "draw", "validate", "predict"]

MAX_WORKERS = 8  # by itself; more can be asked for
MAX_DRAW_WORKERS = 2
AHEAD = 4  # batches that each process works ahead, where they fit
SPARE = 2  # batches beside those that wait: one in use, one on its way to the device
MEMORY_SHARE = 0.1  # of the available memory, for batches that wait
SHARED_MEMORY = Path("/dev/shm")  # where Linux keeps what processes share; Docker gives it 64 MB
SHM_FIX = f"give the container more of {SHARED_MEMORY} (docker run --shm-size 8g, or --ipc host)"
SLOW_SHARE = {"cpu": 0.5}  # of the time spent waiting: from here on something should be changed
SLOW_SHARE_OF_GPU = 0.1


@dataclass(frozen=True)
class Destination:
    """What a loader's batches go to, and who shares this machine's cores with it.

    Args:
        device: What computes.
        folds: Folds that are fitted side by side here.
        devices: Devices of one fold, or of one prediction, with a process for each.
        is_command: A command of swinft's asks. A user's own script may not be prepared to be imported by loader
            processes, as those that are not forked do.
    """

    device: torch.device
    folds: int = 1
    devices: int = 1
    is_command: bool = False


@dataclass(frozen=True)
class LoaderPlan:
    """How a loader works.

    Args:
        num_workers: Loader processes; 0 to make batches in the process that asks for them.
        ahead: Batches that each of them works ahead.
        pins: Batches lie in page-locked memory, from which a CUDA device copies while it computes.
        reason: Why so many processes, in words.
        warning: What is wrong with their number, in a sentence; empty for nothing.
    """

    num_workers: int
    ahead: int
    pins: bool
    reason: str
    warning: str = ""

    def __str__(self) -> str:
        if not self.num_workers:
            return f"batches are made without loader processes ({self.reason})"
        return f"batches come from {number_of(self.num_workers, 'loader process', 'loader processes')} ({self.reason})"


def plan_loader(wanted: NumWorkers, to: Destination, batch_bytes: int, num_batches: int, work: Work) -> LoaderPlan:
    """Decides how a loader works.

    Args:
        wanted: `data.loading.num_workers`.
        to: What the batches go to.
        batch_bytes: Of one batch.
        num_batches: Of one pass.
        work: What the processes do.

    Raises:
        InputError: So many processes cannot hand over batches of this size in the memory that processes share.
    """
    cores, sharing = available_cores(), to.folds * to.devices
    memory = int(MEMORY_SHARE * available_memory()) // sharing
    shared = _free_shared_memory() // sharing
    waiting = max(0, min(memory, shared) // batch_bytes - SPARE)  # batches that may wait
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
    ahead = min(AHEAD, max(1, waiting // number)) if number else 0
    return LoaderPlan(number, ahead, to.device.type == "cuda", reason, warning)


def _choose(cores: int, to: Destination, num_batches: int, work: Work) -> tuple[int, str]:
    """The number of loader processes where nobody says it, and why."""
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
    """How this process starts others, asked without settling it."""
    return multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]


def _may_be_imported() -> bool:
    """Whether loader processes leave the main module alone: those that are forked do, and there is none in a notebook.

    Others import it, and a script without `if __name__ == "__main__"` would start itself again.
    """
    return start_method() == "fork" or not hasattr(sys.modules["__main__"], "__file__")


def _free_shared_memory() -> int:
    """Bytes that are free for what processes share; what no machine has where the system does not say."""
    try:
        return shutil.disk_usage(SHARED_MEMORY).free if sys.platform == "linux" else sys.maxsize
    except OSError:
        return sys.maxsize


@contextmanager
def explain_worker_crash(where: str, kept: str, fewer: str) -> Iterator[None]:
    """Says what the death of a loader process most often means.

    Args:
        where: Before the message.
        kept: What is not lost, as a sentence.
        fewer: The option that does without such processes.

    Raises:
        RunError: A loader process died.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        if "Bus error" in str(error):
            raise RunError(
                f"{where}a loader process found no room in the memory that processes share. {kept}Add {fewer}, or "
                f"{SHM_FIX}."
            ) from error
        raise RunError(
            f"{where}{str(error).splitlines()[0]} {kept}'Killed' is most often a lack of memory: add {fewer}. A "
            f"segmentation fault is a decoder's: `swinft check` decodes every image in turn."
        ) from error


class WaitTime:
    """What the process that computes waits for its loader in one pass: `seconds` without the first batch.

    The first one pays for the start of processes, and comes apart.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._first = self._last = math.nan

    def add(self, asked: float, came: float) -> None:
        """Counts a batch by the moments at which it was asked for and came."""
        if math.isnan(self._first):
            self._first = came
        else:
            self.seconds += came - asked
        self._last = came

    @property
    def share(self) -> float | None:
        """Of the time from the first batch to the last; None where there was none between them."""
        between = self._last - self._first
        return self.seconds / between if between > 0 else None


class TimedLoader(DataLoader[Any]):
    """A loader that knows how it works, and what was waited for it in the pass that was begun last."""

    plan: LoaderPlan | None = None
    waits: WaitTime | None = None

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # PyTorch's own iterator is what is timed
        self.waits = WaitTime()
        return _Timed(super().__iter__(), self.waits)


class _Timed(Iterator[Any]):
    """Batches as they come. No generator: PyTorch's iterator must start its processes at once, not when first asked."""

    def __init__(self, batches: Iterator[Any], waits: WaitTime) -> None:
        self._batches, self._waits = batches, waits

    def __next__(self) -> Any:
        asked = time.monotonic()
        batch = next(self._batches)
        self._waits.add(asked, time.monotonic())
        return batch


def is_slow(share: float, device: torch.device) -> bool:
    """Whether a device waits for its loader for so much of its time that something should be changed."""
    return share > SLOW_SHARE.get(device.type, SLOW_SHARE_OF_GPU)


def advice(data: "CSVDataModule", num_workers: int) -> str:
    """What to change where a device waits for its training images.

    Args:
        data: With its images looked at.
        num_workers: Processes that feed the device.
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
