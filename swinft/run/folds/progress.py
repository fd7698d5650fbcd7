"""What a fold prints while it trains: a line per epoch with the time left for fold and run, and a live line."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, ProgressBar
from torch import Tensor

from swinft.data.loading.workers import TimedLoader, advice, is_slow
from swinft.model.training.steps import steps_of
from swinft.run.compute.devices import FOLDS_AT_A_TIME, folds_at_a_time
from swinft.run.fold_files import Fold
from swinft.run.folds.epoch_table import EpochTable
from swinft.run.folds.forecast import Forecast
from swinft.run.folds.hours import TimeLimit
from swinft.run.layout import Run
from swinft.run.trainer import callbacks_of
from swinft.system.memory import memory_use
from swinft.system.orphans import STARTED
from swinft.system.overview import makespan
from swinft.system.progress import Progress
from swinft.system.status import Status


@dataclass(frozen=True)
class RunFolds:
    """The folds of a run, several of which may be fitted in parallel.

    Args:
        folds: All folds, with the finished ones.
        at_a_time: Folds that are fitted in parallel.
    """

    folds: Sequence[Fold]
    at_a_time: int

    @classmethod
    def of(cls, run: Run) -> "RunFolds | None":
        """The folds of a run; None in a process that fits a single fold with `--fold`."""
        if FOLDS_AT_A_TIME not in os.environ:
            return None
        return cls([run.fold(index) for index in run.trainings()], folds_at_a_time())


class FoldProgress:
    """Measures a fold's epochs and prints them.

    Estimates from the first epoch of a process are printed as "about".

    Args:
        fold: The fold.
        metrics: Names of the metrics.
        num_views: Views of the out-of-fold predictions that follow the training.
        limit: The fold's time limit; None for none.
        folds: The run's folds; None if this process fits a single fold with `--fold`.
    """

    def __init__(
        self, fold: Fold, metrics: list[str], num_views: int, limit: TimeLimit | None, folds: RunFolds | None
    ) -> None:
        self._fold, self._metrics, self._num_views, self._limit, self._folds = fold, metrics, num_views, limit, folds
        self._forecast: Forecast | None = None  # None before the first epoch
        self._started = self._trained_until = 0.0
        self._images = 0
        self._has_noted = False  # whether the note on waiting for the loader was printed
        self._batches: Progress | None = None  # None if the config has a progress bar
        self._losses: list[Tensor] = []  # the sum of the epoch's losses so far; read only where it is shown
        self._num_losses = 0
        self._known = Status("")  # what is known since the last epoch
        self._is_resumed = False  # whether this process has not trained the first epoch
        self._may_end_sooner = False  # whether a callback may end the training before its last epoch
        self._table: EpochTable | None = None

    def begin_epoch(self, trainer: Trainer) -> None:
        """Starts the clock of an epoch."""
        self._started = time.monotonic()
        if self._forecast is None:
            steps, self._is_resumed = steps_of(trainer), trainer.current_epoch > 0
            self._table = EpochTable(self._fold.index, steps.epochs, self._metrics, self._folds is not None)
            self._may_end_sooner = any(isinstance(each, EarlyStopping) for each in callbacks_of(trainer))
            whole = steps.total / steps.per_epoch
            self._forecast = Forecast(whole, self._num_views, self._started - STARTED)
        self._forecast.begin(self._started)
        self._images, self._losses, self._num_losses = 0, [], 0
        bars = [each for each in trainer.callbacks if isinstance(each, ProgressBar)]  # type: ignore[attr-defined]
        if trainer.is_global_zero and not bars:
            what = f"fold {self._fold.index}  epoch {trainer.current_epoch + 1}/{steps_of(trainer).epochs}"
            self._batches = Progress(what, int(trainer.num_training_batches))

    def trained(self, trainer: Trainer, batch: dict[str, Any], loss: Tensor | None = None) -> None:
        """Counts a training batch.

        Args:
            trainer: The trainer.
            batch: The batch.
            loss: Its loss, as Lightning divides it by the accumulated batches.
        """
        images = len(batch["row"]) * trainer.world_size
        self._images += images
        self._trained_until = time.monotonic()
        assert self._forecast
        self._forecast.batches = int(trainer.num_training_batches)
        self._forecast.held_out = int(sum(trainer.num_val_batches))
        self._forecast.trained(self._trained_until)
        if self._batches and self._batches.live.is_shown and loss is not None:
            self._losses = [sum(self._losses, loss.detach())]
            self._num_losses += 1
        if self._batches:
            self._batches.add(images, lambda status: self._completed(trainer, status, is_training=True))

    def validated(self, trainer: Trainer, batch: dict[str, Any], index: int) -> None:
        """Counts a validation batch."""
        assert self._forecast
        self._forecast.validated(time.monotonic())
        if self._batches and index == 0:
            self._batches.begin(f"fold {self._fold.index}  validation", int(sum(trainer.num_val_batches)))
        if self._batches:
            images = len(batch["row"]) * trainer.world_size
            self._batches.add(images, lambda status: self._completed(trainer, status, is_training=False))

    def close(self) -> None:
        """Removes the live line; call it before printing."""
        if self._batches:
            self._batches.close()

    @property
    def rate(self) -> float:
        """Training images per second in this epoch, without its validation."""
        taken = self._trained_until - self._started
        return self._images / taken if taken > 0 else 0.0

    def lines(self, trainer: Trainer, values: dict[str, float], is_best: bool) -> list[str]:
        """The lines to print for an epoch that has ended.

        Args:
            trainer: The trainer.
            values: The epoch, as in `metrics.jsonl`.
            is_best: Whether it is the best epoch so far.
        """
        assert self._table
        assert self._forecast
        self._forecast.end(time.monotonic())
        fold_left, is_rough = self._left(trainer) or 0.0, self._forecast.is_rough
        run_left = self._run_left(fold_left, steps_of(trainer).epochs)
        run = None if run_left is None else (run_left, is_rough)
        self._remember(values, is_best)
        line = self._table.line(values, self.rate, (fold_left, is_rough), run, is_best)
        before = [] if self._forecast.epochs > 1 else [*self._notes(), self._table.header()]
        return [*before, line, *self._note_of_waiting(trainer, values)]

    def _notes(self) -> list[str]:
        """Notes on the table."""
        assert self._table
        notes = []
        hidden = [name for name in self._table.hidden if name != "lr"]
        if hidden:
            notes.append(f"fold {self._fold.index}: {', '.join(hidden)} of every epoch: {self._fold.metrics}")
        if self._may_end_sooner:
            notes.append(f"fold {self._fold.index}: times left are upper limits, since EarlyStopping may end it sooner")
        return notes

    def _note_of_waiting(self, trainer: Trainer, values: dict[str, float]) -> list[str]:
        """Advice, printed once, if the device waits for its loader."""
        device, share = trainer.strategy.root_device, values.get("loader_wait", 0.0)
        if self._has_noted or not is_slow(share, device):
            return []
        self._has_noted = True
        data, loader = trainer.datamodule, trainer.train_dataloader  # type: ignore[attr-defined]
        assert isinstance(loader, TimedLoader)  # it has measured the share
        waits = f"fold {self._fold.index}: {device} waits for its loader {share:.0%} of the time"
        return [f"{waits}; to train faster, {advice(data, loader.num_workers)}"]

    def _remember(self, values: dict[str, float], is_best: bool) -> None:
        """Keeps the scores of an epoch that has ended for the live view."""
        score = values.get(f"val_{self._metrics[0]}")
        best = score if is_best or self._known.best is None else self._known.best
        self._known = Status(f"fold {self._fold.index}", metric=self._metrics[0], score=score, best=best)

    def _completed(self, trainer: Trainer, status: Status, is_training: bool) -> Status:
        """A status with loss, scores, memory, and the time left for the fold."""
        loss = None
        if is_training and self._losses:
            mean = self._losses[0].float().item() / self._num_losses
            loss = mean * trainer.accumulate_grad_batches
        assert self._forecast
        use, limit, now = memory_use(trainer.strategy.root_device), self._limit, time.monotonic()
        left, whole = self._left(trainer), self._forecast.whole(now, _epochs_left(trainer), self._is_resumed)
        if limit and whole is not None:  # a fold that waits gets as much of the time
            whole = min(whole, now - STARTED + limit.left)
        return replace(
            status.after(self._known),
            loss=loss,
            memory=f"{use.peak / 1e9:.1f}/{use.total / 1e9:.0f} GB",
            left=left,
            whole=whole,
            is_rough=self._forecast.is_rough,
            is_most=self._may_end_sooner,
        )

    def _left(self, trainer: Trainer) -> float | None:
        """Seconds until the fold is done; None if unknown."""
        assert self._forecast
        left = self._forecast.left(time.monotonic(), _epochs_left(trainer))
        return min(left, self._limit.left) if self._limit and left is not None else left

    def _run_left(self, own: float, planned: int) -> float | None:
        """Seconds until all folds are done, if each is as fast as this one; None in a process that fits one fold.

        Args:
            own: Seconds left for this fold.
            planned: Epochs of a fold.
        """
        assert self._forecast
        if self._folds is None:
            return None
        epoch, after = self._forecast.epoch(time.monotonic()) or 0.0, self._forecast.predictions
        unfinished = [fold for fold in self._folds.folds if not fold.result.is_file()]
        whole, least = [], []
        for position, fold in enumerate(unfinished):
            start = 0.0 if position < self._folds.at_a_time else self._forecast.warm_up
            done = fold.recorded_epochs()
            rest = start + max(0, planned - done) * epoch + after
            whole.append(own if fold == self._fold else rest)
            least.append(own if fold == self._fold else min(rest, start + (0 if done else epoch) + after))
        left = makespan(whole, self._folds.at_a_time)
        if self._limit and self._limit.run_left is not None:  # every fold trains at least one epoch, whatever the limit
            left = max(makespan(least, self._folds.at_a_time), min(left, self._limit.run_left))
        return left


def _epochs_left(trainer: Trainer) -> float:
    """Epochs that are still to be trained, with what is left of this one."""
    steps = steps_of(trainer)
    return 0.0 if trainer.should_stop else max(0.0, (steps.total - trainer.global_step) / steps.per_epoch)
