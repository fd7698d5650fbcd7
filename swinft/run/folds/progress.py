"""What a fold says while it trains: a line per epoch, the time left for itself and for its run, and a live line."""

import heapq
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ProgressBar

from swinft.data.loading.workers import TimedLoader, advice, is_slow
from swinft.model.training.steps import steps_of
from swinft.run.compute.devices import FOLDS_AT_A_TIME, folds_at_a_time
from swinft.run.folds.epoch_table import EpochTable, format_left
from swinft.run.folds.hours import TimeLimit
from swinft.run.layout import Fold, Run
from swinft.system.orphans import STARTED
from swinft.system.progress import Progress

RECENT = 5  # epochs whose median is what the next ones are expected to take


@dataclass(frozen=True)
class RunFolds:
    """The folds of a run, of which several may be fitted at a time.

    Args:
        folds: All of them, those that are done included.
        at_a_time: Folds that are fitted side by side.
    """

    folds: Sequence[Fold]
    at_a_time: int

    @classmethod
    def of(cls, run: Run) -> "RunFolds | None":
        """The folds of a run that `swinft fit` fits; None in a process that fits a single fold on its own."""
        if FOLDS_AT_A_TIME not in os.environ:
            return None
        return cls([run.fold(index) for index in run.planned_folds()], folds_at_a_time())


class FoldProgress:
    """Measures a fold's epochs and prints them.

    The first epoch of a process pays for memory, kernels, compilation and a cache that is not warm yet: what is derived
    from it is printed as "about". From the second one on, the median of the last `RECENT` epochs without that first one
    counts. Epochs of an earlier process may have been trained on another machine and are left out.

    Args:
        fold: The fold.
        metrics: Names of what is scored.
        num_views: Views of the out-of-fold predictions that follow the training.
        limit: When the fold must be done; None for no limit.
        folds: The run's folds; None where this process fits a single fold on its own.
    """

    def __init__(
        self, fold: Fold, metrics: list[str], num_views: int, limit: TimeLimit | None, folds: RunFolds | None
    ) -> None:
        self._fold, self._metrics, self._num_views, self._limit, self._folds = fold, metrics, num_views, limit, folds
        self._seconds: list[float] = []  # of the epochs of this process
        self._started = self._trained_until = 0.0
        self._start_up = 0.0  # seconds from the start of the process to its first epoch
        self._images = 0
        self._has_noted = False  # that the device waits for its loader
        self._left: tuple[float, float | None] | None = None  # for the fold and the run when this epoch began
        self._batches: Progress | None = None  # where nobody else draws a progress bar
        self._table: EpochTable | None = None

    def begin_epoch(self, trainer: Trainer) -> None:
        """Starts the clock of an epoch."""
        self._started = time.monotonic()
        if self._table is None:
            self._start_up = self._started - STARTED
            planned = steps_of(trainer).epochs
            self._table = EpochTable(self._fold.index, planned, self._metrics, self._folds is not None)
        self._images = 0
        bars = [each for each in trainer.callbacks if isinstance(each, ProgressBar)]  # type: ignore[attr-defined]
        if trainer.is_global_zero and not bars:
            what = f"fold {self._fold.index}  epoch {trainer.current_epoch + 1}/{steps_of(trainer).epochs}"
            self._batches = Progress(what, int(trainer.num_training_batches))

    def trained(self, trainer: Trainer, batch: dict[str, Any]) -> None:
        """Counts a batch that was trained on."""
        images = len(batch["row"]) * trainer.world_size
        self._images += images
        self._trained_until = time.monotonic()
        if self._batches:
            self._batches.add(images, self._more())

    def validated(self, trainer: Trainer, batch: dict[str, Any], index: int) -> None:
        """Counts a batch that was validated."""
        if self._batches and index == 0:
            self._batches.begin(f"fold {self._fold.index}  validation", int(sum(trainer.num_val_batches)))
        if self._batches:
            self._batches.add(len(batch["row"]) * trainer.world_size, self._more())

    def close(self) -> None:
        """Removes the live line, before something is printed."""
        if self._batches:
            self._batches.close()

    def lines(self, trainer: Trainer, values: dict[str, float], validation: float, is_best: bool) -> list[str]:
        """The lines to print for an epoch that has ended.

        Args:
            trainer: The trainer.
            values: The epoch, as in `metrics.jsonl`.
            validation: Seconds of its validation.
            is_best: Whether it is the best one so far.
        """
        assert self._table
        self._seconds.append(values["seconds"])
        taken = self._trained_until - self._started
        fold_left, run_left = self._time_left(trainer, validation)
        is_rough = len(self._seconds) == 1
        self._left = fold_left, run_left
        rate = self._images / taken if taken > 0 else 0.0
        run = None if run_left is None else (run_left, is_rough)
        line = self._table.line(values, rate, (fold_left, is_rough), run, is_best)
        before = [] if len(self._seconds) > 1 else [*self._notes(trainer), self._table.header()]
        return [*before, line, *self._note_of_waiting(trainer, values)]

    def _notes(self, trainer: Trainer) -> list[str]:
        """What the table does not say by itself."""
        assert self._table
        notes = []
        hidden = [name for name in self._table.hidden if name != "lr"]
        if hidden:
            notes.append(f"fold {self._fold.index}: every epoch's {', '.join(hidden)}: {self._fold.metrics}")
        if any(isinstance(each, EarlyStopping) for each in trainer.callbacks):  # type: ignore[attr-defined]
            notes.append(f"fold {self._fold.index}: times left are upper limits, since EarlyStopping may end it sooner")
        return notes

    def _note_of_waiting(self, trainer: Trainer, values: dict[str, float]) -> list[str]:
        """What to change where the device waits for its loader; once."""
        device, share = trainer.strategy.root_device, values.get("loader_wait", 0.0)
        if self._has_noted or not is_slow(share, device):
            return []
        self._has_noted = True
        data, loader = trainer.datamodule, trainer.train_dataloader  # type: ignore[attr-defined]
        assert isinstance(loader, TimedLoader)  # it has measured the share
        waits = f"fold {self._fold.index}: {device} waits for its loader {share:.0%} of the time"
        return [f"{waits}; to train faster, {advice(data, loader.num_workers)}"]

    def _more(self) -> str:
        """The time left for fold and run, to be shown behind that of the batches; nothing in the first epoch."""
        if self._left is None:
            return ""
        is_rough, since = len(self._seconds) == 1, time.monotonic() - self._started
        named = {"fold": self._left[0], "run": self._left[1]}
        return "".join(
            f", {name} {format_left(max(0.0, left - since), is_rough)}"
            for name, left in named.items()
            if left is not None
        )

    def _time_left(self, trainer: Trainer, validation: float) -> tuple[float, float | None]:
        """Seconds until the fold, and where it is known the run, is done."""
        steps = steps_of(trainer)
        epoch = statistics.median(self._seconds[1:][-RECENT:] or self._seconds)
        after = validation * self._num_views  # the out-of-fold predictions
        own = after + (
            0.0 if trainer.should_stop else max(0, steps.total - trainer.global_step) / steps.per_epoch * epoch
        )
        if self._limit:
            own = min(own, self._limit.left)
        if self._folds is None:
            return own, None
        return own, self._run_left(own, steps.epochs, epoch, after)

    def _run_left(self, own: float, planned: int, epoch: float, after: float) -> float:
        """Seconds until all folds are done, those that are fitted now and those that wait; each as fast as this one.

        Args:
            own: Of this fold.
            planned: Epochs of a fold.
            epoch: Seconds of an epoch.
            after: Seconds of what follows the training.
        """
        assert self._folds
        unfinished = [fold for fold in self._folds.folds if not fold.result.is_file()]
        whole, least = [], []
        for position, fold in enumerate(unfinished):
            start = 0.0 if position < self._folds.at_a_time else self._start_up
            done = fold.recorded_epochs()
            rest = start + max(0, planned - done) * epoch + after
            whole.append(own if fold == self._fold else rest)
            least.append(own if fold == self._fold else min(rest, start + (0 if done else epoch) + after))
        left = makespan(whole, self._folds.at_a_time)
        if self._limit and self._limit.run_left is not None:  # every fold trains an epoch, whatever the limit says
            left = max(makespan(least, self._folds.at_a_time), min(left, self._limit.run_left))
        return left


def makespan(seconds: Sequence[float], at_a_time: int) -> float:
    """When jobs are done that are started in order, as many at once as there are slots.

    Args:
        seconds: Of each job.
        at_a_time: Slots.
    """
    ends = [0.0] * max(1, at_a_time)
    for job in seconds:
        heapq.heappush(ends, heapq.heappop(ends) + job)
    return max(ends)
