"""Finds the largest batch whose training step and evaluation fit into memory, with a margin."""

import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer

from swinft.errors import InputError
from swinft.run.compute.out_of_memory import is_out_of_memory
from swinft.run.find.brief import Brief, Measured, without_schedule
from swinft.system.limits import available_memory

MARGIN = 0.9  # of the memory that is free: a training fragments it, and a desktop may take more
MOST = 4096
STEPS = 2  # of a trial; the second one has the optimiser's state
VERIFIED_STEPS = 3
PARTS = 4  # finer steps between two powers of two
STATUS = Path("/proc/self/status")  # of Linux


def next_size(fits: Mapping[int, bool], start: int, most: int) -> int | None:
    """The next batch size to try: powers of two, then quarters between the last that fits and the first that does not.

    Args:
        fits: Whether the sizes that have been tried fit.
        start: The size to begin with.
        most: The largest size to try.

    Returns:
        The size; None if the largest one is known, or not even one image fits.
    """
    good = max((size for size, fit in fits.items() if fit), default=0)
    bad = min((size for size, fit in fits.items() if not fit), default=most + 1)
    if not fits:
        return min(most, 1 << (start.bit_length() - 1))
    if not good:
        return bad // 2 or None
    if bad > most:
        return min(2 * good, most) if good < most else None
    part = max(1, (1 << (good.bit_length() - 1)) // PARTS)
    middle = (good + bad) // 2 // part * part
    return middle if good < middle < bad else None


def batch_for(effective: int, largest: int) -> tuple[int, int]:
    """The largest batch that fits and how many of them are one step of `effective` rows."""
    size = next(size for size in range(min(effective, largest), 0, -1) if effective % size == 0)
    return size, effective // size


class EvaluatedToo(Measured):
    """Predicts a batch after the training, before its memory is freed; no step is skipped by loss scaling."""

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Scales losses by 1: from torch's default, all steps may be skipped, and optimiser state take no memory."""
        plugin: Any = trainer.precision_plugin
        if getattr(plugin, "scaler", None) is not None:
            plugin.scaler = torch.amp.GradScaler(pl_module.device.type, init_scale=1.0)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Predicts a batch of the held-out rows; nobody looks at the predictions."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]  # a run always trains from one
        batch = trainer.strategy.batch_to_device(next(iter(data.val_dataloader())))
        pl_module.eval()
        with torch.inference_mode(), trainer.precision_plugin.forward_context():
            pl_module.predict_step(batch, 0)


def fits(brief: Brief, size: int, accumulate: int, steps: int, epochs: int) -> bool:
    """Whether some optimiser steps and an evaluated batch fit into memory; call it inside `memory_limit`.

    Frozen layers and smaller images of the first epochs are left out: the last ones need more.

    Args:
        brief: Trains fold 0.
        size: Of a batch.
        accumulate: Batches of a step.
        steps: That are tried.
        epochs: That the run plans.
    """

    def change(config: Namespace) -> None:
        without_schedule(config, epochs, steps)
        config.data.batch_size, config.trainer.accumulate_grad_batches = size, accumulate

    measured = EvaluatedToo(f"batch of {size}", steps)
    try:
        brief.train(measured, steps, change)
    except (MemoryError, OSError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    finally:
        gc.collect()
        if brief.device.type != "cpu":
            torch.accelerator.empty_cache()
    return True


@contextmanager
def memory_limit(device: torch.device) -> Iterator[None]:
    """Limits the memory that this process may use of a device to `MARGIN` of what is free.

    Once for all trials: what an earlier one has freed may still be this process's, and would count twice.

    Raises:
        InputError: The system cannot limit it.
    """
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        own = torch.cuda.memory_reserved(device)
        torch.cuda.set_per_process_memory_fraction(MARGIN * (free + own) / total, device)
        yield
    elif device.type == "mps":
        torch.mps.set_per_process_memory_fraction(MARGIN)
        yield
    elif sys.platform == "linux":
        with _heap_limit(int(MARGIN * available_memory())):
            yield
    else:
        raise InputError("this system cannot limit the memory of a process on a CPU: leave batch_size out of --what.")


@contextmanager
def _heap_limit(more: int) -> Iterator[None]:
    """Allows this process so many bytes besides those that it has; an allocation beyond them fails."""
    import resource  # Unix only

    lines = STATUS.read_text().splitlines()
    used = next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmData:"))
    before = resource.getrlimit(resource.RLIMIT_DATA)
    limit = used + more if before[1] == resource.RLIM_INFINITY else min(used + more, before[1])
    resource.setrlimit(resource.RLIMIT_DATA, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def search(
    brief: Brief, known: dict[int, bool], most: int, epochs: int, tell: Callable[[int], None]
) -> dict[int, bool]:
    """Tries batch sizes until the largest is known.

    Args:
        brief: Trains fold 0.
        known: Sizes that have been tried, in an earlier process that the system has killed.
        most: The largest size to try.
        epochs: That the run plans.
        tell: Called before each trial with the size.
    """
    start = brief.config.data.batch_size
    with memory_limit(brief.device):
        while (size := next_size(known, start, most)) is not None:
            tell(size)
            known[size] = fits(brief, size, 1, STEPS, epochs)
            print(f"batch of {size}: {'fits' if known[size] else 'out of memory'}", flush=True)
    return known
