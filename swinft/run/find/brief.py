"""A short training of fold 0 in this process, which leaves no files: its losses are measured, or whether it fits."""

import io
import math
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import lightning.pytorch as pl
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from swinft.data.loading.workers import Destination, explain_worker_crash
from swinft.model.training.freezing import FreezeConfig
from swinft.printing import format_brief
from swinft.run.compute.devices import one_device
from swinft.run.experiment import Experiment
from swinft.run.folds.fold import fold_data, fold_task
from swinft.run.layout import Run
from swinft.run.trainer import silence_lightning
from swinft.system.allocator import keep_freed_memory
from swinft.system.precision import training_precision

LINE_SECONDS = 30.0  # between lines of progress
# A finder trains on one device, validates nothing, and runs no callback of the user's.
ALONE: dict[str, Any] = {
    "num_nodes": 1,
    "strategy": "auto",
    "sync_batchnorm": False,
    "logger": False,
    "callbacks": None,
    "profiler": None,
    "enable_progress_bar": False,
    "limit_train_batches": None,  # the order of rows is another one in each epoch
    "limit_val_batches": 0,
    "max_epochs": -1,
}


def without_schedule(config: Namespace, epochs: int, steps: int) -> None:
    """Removes what a config schedules over epochs, of which a short training sees the beginning alone.

    What is frozen for the whole training stays frozen.

    Args:
        config: Changed in place.
        epochs: That the run plans.
        steps: That are trained.
    """
    model, optim = config.model, config.model.optim
    is_constant = optim.schedule == "constant"  # schedule-free optimisers ask for it
    optim.schedule, optim.schedule_args = "constant" if is_constant else "warmup_cosine", None
    optim.warmup_epochs, optim.sizes = "auto", None
    model.freeze_epochs = 0 if model.freeze_epochs < epochs else steps  # an epoch has at least one step
    if optim.freeze.epochs is not None:
        if optim.freeze.epochs < epochs:
            optim.freeze.share, optim.freeze.names = FreezeConfig.share, None
        optim.freeze.epochs, optim.freeze.gradual = None, False


class Measured(Checkpoint):
    """Records the loss of every optimiser step, and ends the training at one that is not finite.

    As a `Checkpoint` it takes the place of Lightning's own, which would save files.

    Args:
        what: Printed before the progress.
        steps: Steps of the training.
    """

    def __init__(self, what: str, steps: int) -> None:
        self.losses: list[float] = []  # of the steps
        self.rows: list[int] = []  # of the last step
        self._parts: list[float] = []  # of the batches since the last step
        self._what, self._steps, self._screen = what, steps, sys.stdout
        self._started = self._said = time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the batch; Lightning has divided its loss by the batches of a step."""
        self.rows = [*(self.rows if self._parts else []), *batch["row"].tolist()]
        self._parts.append(float(outputs["loss"]) * trainer.accumulate_grad_batches)
        if trainer.global_step > len(self.losses):
            self.losses.append(sum(self._parts) / len(self._parts))
            self._parts = []
            self._say()
            if self.is_over():
                trainer.should_stop = True

    def is_over(self) -> bool:
        """Whether more steps would tell nothing."""
        return not math.isfinite(self.losses[-1])

    def _say(self) -> None:
        now, taken = time.monotonic(), len(self.losses)
        if now - self._said > LINE_SECONDS:
            left = (now - self._started) / taken * (self._steps - taken)
            more = f"loss {self.losses[-1]:.4g}, {format_brief(left, is_rough=True)} left"
            print(f"{self._what}: step {taken} of {self._steps}, {more}", file=self._screen, flush=True)
            self._said = now


class Brief:
    """Trains fold 0 of a throw-away run again and again, each time from the same start.

    Args:
        run: The throw-away run, with the frozen state of the config.
        experiment: With the fold, its seed, the precision and the attention.
    """

    def __init__(self, run: Run, experiment: Experiment) -> None:
        silence_lightning()
        self._run, self._experiment, self.config = run, experiment, experiment.config
        trainer = self.config.trainer
        self.device, self.precision, _ = training_precision(trainer)
        self._devices = one_device(self.config)

    def train(self, measured: Measured, steps: int, change: Callable[[Namespace], None]) -> None:
        """Trains on all rows but those of fold 0.

        Args:
            measured: Records it.
            steps: Optimiser steps.
            change: Changes a copy of the config first.
        """
        config = self.config.clone()
        change(config)
        experiment = self._experiment.with_config(config)
        with redirect_stdout(io.StringIO()):  # rates and loaders of each training
            pl.seed_everything(config.seed, verbose=False)  # as for fold 0
            data = fold_data(self._run, experiment, None)
            task = fold_task(self._run, experiment, data, None, self.device)
            keep_freed_memory(self.device)
            root = self._run.fold(config.fold).root
            trainer = experiment.trainer(
                root, self.precision, measured, max_steps=steps, devices=self._devices, **ALONE
            )
            data.destination = Destination(self.device, is_command=True)
            with explain_worker_crash("", "", "--data.loading.num_workers 0"):
                trainer.fit(task, datamodule=data)
