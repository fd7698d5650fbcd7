"""The callback that saves a fold after every epoch: a checkpoint, a line of metrics, the best weights."""

import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, EarlyStopping, ModelPruning
from torch import Tensor

from swinft.errors import InputError, number_of
from swinft.model.metrics import Metric
from swinft.model.network import ImageModel
from swinft.model.task import FineTuneTask
from swinft.model.training.epoch_losses import BadBatch
from swinft.model.training.steps import steps_of
from swinft.run.experiment import save_net
from swinft.run.fold_files import Fold
from swinft.run.folds.hours import TimeLimit
from swinft.run.folds.kept import Kept, SoupConfig
from swinft.run.folds.progress import FoldProgress
from swinft.run.folds.recipe import STEP_WORDS, recipe_of, step_parts, weight_norms
from swinft.run.trackers.fold_records import FoldRecords
from swinft.run.trainer import StoreCheckpointIO, callbacks_of
from swinft.store import commit, discard, json_bytes
from swinft.system.memory import memory_use

KEPT_CHECKPOINTS = 2  # a crash may damage the newest
WHOLE = "as planned"
CHOSEN = "the folds predict with as many"


class FoldRecorder(Checkpoint):
    """Commits a fold's state at the end of every epoch, and only there: a mid-epoch resume would repeat or skip rows.

    The checkpoint contains the history, so that a resumed fold neither loses nor repeats an epoch, and whether training
    has ended. Lightning calls a `Checkpoint` after all other callbacks: so the checkpoint includes their state, such as
    that of early stopping, and their changes are detected.

    Args:
        fold: The fold's folder.
        metrics: The task's metrics; the first one decides the best epoch.
        checkpoint: Which epochs' weights to predict with: `last`, `best`, or an average.
        limit: The fold's time limit; None for none. At least one epoch is trained.
        progress: Measures and prints the epochs; by default without views and without the run's other folds.
        stop_after: Epochs after which a training on every row ends; None for as many as are planned.
    """

    def __init__(
        self,
        fold: Fold,
        metrics: list[Metric],
        checkpoint: str | SoupConfig,
        limit: TimeLimit | None = None,
        progress: FoldProgress | None = None,
        stop_after: int | None = None,
    ) -> None:
        self.fold = fold
        self.metrics = metrics
        self.kept = Kept(fold, metrics[0], checkpoint)
        self.limit = limit
        self.stop_after = stop_after
        self.progress = progress or FoldProgress(fold, [metric.name for metric in metrics], 1, limit, None)
        self.records = FoldRecords()  # at the trackers; set before training
        self.history: list[dict[str, float]] = []
        self.peak: dict[str, int] | None = None  # of the device's memory, in bytes; None before the first epoch ends
        self.precision: str | None = None  # of the training; None before the first epoch
        self.end: str | None = None  # why training has ended; None while it runs
        self._started = self._validation_started = self._validation_seconds = 0.0
        self._validated: Tensor | None = None
        self._has_printed_peak = False
        self._recipe: dict[str, Any] = {}
        self._step: dict[str, int] = {}

    @property
    def best(self) -> dict[str, float]:
        """The epoch with the best score; the first of equal ones."""
        return self.kept.best(self.history)

    @property
    def has_trained(self) -> bool:
        """Whether this process has trained, and not only loaded a checkpoint."""
        return self._started > 0

    def state_dict(self) -> dict[str, Any]:
        """The state of this callback in a checkpoint."""
        state = {"history": self.history, "end": self.end, "step": self._step}
        return state | {"peak": self.peak, "precision": self.precision}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores the state from a checkpoint."""
        self.history = state_dict["history"]
        self.end, self.peak = state_dict.get("end"), state_dict.get("peak")
        self.precision = state_dict.get("precision")

    def has_ended(self, checkpoint: Path, task: FineTuneTask) -> bool:
        """Whether training had ended when a checkpoint was saved; if so, loads its weights into the task.

        Args:
            checkpoint: The newest checkpoint of the fold.
            task: A new task.
        """
        saved = StoreCheckpointIO().load_checkpoint(checkpoint)
        state = saved["callbacks"].get(self.state_key, {})
        if state.get("end") is None:
            return False
        self.load_state_dict(state)
        task.load_state_dict(saved["state_dict"])
        return True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remembers the settings that no callback may change."""
        self._recipe, self._step = recipe_of(trainer), step_parts(trainer)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Compares the rows per optimiser step with those of the checkpoint.

        Raises:
            InputError: They differ: the schedule would not match the steps.
        """
        saved, here = checkpoint["callbacks"].get(self.state_key, {}).get("step"), step_parts(trainer)
        if saved is not None and saved != here:
            words = [", ".join(number_of(n, *STEP_WORDS[name]) for name, n in step.items()) for step in (saved, here)]
            raise InputError(
                f"fold {self.fold.index}: its checkpoint was saved with {words[0]}, and this process has {words[1]}: "
                f"steps and schedule would differ. Resume with the same, or give the new run another --name."
            )

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Starts the clock."""
        self._started = time.monotonic()
        self.precision = str(trainer.precision)
        self.progress.begin_epoch(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Updates the progress of the epoch."""
        loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
        self.progress.trained(trainer, batch, loss if isinstance(loss, Tensor) else None)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Starts the clock of the validation."""
        if batch_idx == 0:
            self._validation_started = time.monotonic()

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Remembers the validated weights, to compare them with those that are saved, and updates the progress."""
        if batch_idx == 0:  # behind its forward pass, in which other ranks get the running statistics of the first one
            assert isinstance(pl_module, FineTuneTask)
            self._validated = weight_norms(pl_module.predictor)
        self.progress.validated(trainer, batch, batch_idx)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Removes the live line, and leaves the trackers' records as incomplete."""
        self.progress.close()
        self.records.close()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stops the clock of the validation."""
        self._validation_seconds = time.monotonic() - self._validation_started

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Records the epoch, prints its line, saves.

        Raises:
            InputError: Weights are not finite, or a callback has changed what the config says.
        """
        assert isinstance(pl_module, FineTuneTask)
        self.progress.close()
        self._check_finite(trainer, pl_module)
        self._check_unchanged(trainer, pl_module)
        line = self._line(trainer)
        self.history.append(line)
        planned = steps_of(trainer).epochs
        self.end = self._why_ended(trainer)
        if trainer.is_global_zero:
            is_best = self.best is line and self.fold.held_out is not None
            for text in self.progress.lines(trainer, line, is_best):
                print(text, flush=True)
            if (skips := pl_module.skips) and (note := skips.describe()):
                print(f"fold {self.fold.index}  epoch {line['epoch']}: {note}", flush=True)
            self._measure(pl_module.device)
            if self.end not in (None, WHOLE):
                print(self._early_end(planned), flush=True)
            content = b"".join(json_bytes(row, indent=None) + b"\n" for row in self.history)
            commit(self.fold.metrics, content, "swinft fit")
            for path in self.kept.files(self.history):
                save_net(pl_module.predictor, path)
        # On all ranks: Lightning gathers sharded states.
        trainer.save_checkpoint(self.fold.checkpoint(len(self.history)))
        if trainer.is_global_zero:
            for old in self.fold.checkpoints[KEPT_CHECKPOINTS:]:
                discard(old)
            self.kept.tidy(self.history)
            self.records.send(self.history, steps_of(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Checks again that the weights, which are saved after this, are the validated ones.

        Raises:
            InputError: A callback has changed what the config says.
        """
        assert isinstance(pl_module, FineTuneTask)
        self._check_unchanged(trainer, pl_module)

    def _line(self, trainer: Trainer) -> dict[str, float]:
        """The values of one epoch."""
        # Values that callbacks log, such as LearningRateMonitor's, go to the logger only: the columns are the same for
        # every run, except those of fp16 and of auxiliary targets.
        net = trainer.lightning_module.net
        auxiliary = net.auxiliary.names if isinstance(net, ImageModel) and net.auxiliary else []
        own = [
            "train_loss",
            "val_loss",
            *(f"val_{metric.name}" for metric in self.metrics),
            *(f"val_{name}_loss" for name in auxiliary),
            "skipped_steps",
            "loss_scale",
        ]
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items() if name in own}
        rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
        seconds = time.monotonic() - self._started
        waited = _wait_share(trainer)
        metrics |= {} if waited is None else {"loader_wait": round(waited, 4)}
        times = {"seconds": round(seconds, 2), "images_per_second": round(self.progress.rate, 2)}
        if self.fold.held_out is not None:
            times["val_seconds"] = round(self._validation_seconds, 2)
        return {"epoch": len(self.history) + 1, **metrics, "lr": max(rates), **times}

    def _measure(self, device: torch.device) -> None:
        """Records the peak of the device's memory, and prints it after the first epoch of this process."""
        use = memory_use(device)
        if not self._has_printed_peak:
            print(f"fold {self.fold.index}: peak memory {use.describe()} on {device}", flush=True)
        self._has_printed_peak = True
        self.peak = {"bytes": max(use.peak, self.peak["bytes"] if self.peak else 0), "of": use.total}

    def _why_ended(self, trainer: Trainer) -> str | None:
        """Whether this epoch is the last, and why; the same on all ranks."""
        if trainer.global_step >= steps_of(trainer).total:
            return WHOLE
        if trainer.should_stop:
            reasons = [
                each.stopping_reason_message for each in callbacks_of(trainer) if isinstance(each, EarlyStopping)
            ]
            why = next((reason for reason in reasons if reason), "a callback stopped it")
            return why.removesuffix(" Signaling Trainer to stop.").rstrip(".")
        if self.stop_after is not None and len(self.history) >= self.stop_after:
            trainer.should_stop = True
            return CHOSEN
        if self.limit is None:
            return None
        # There must be time for another epoch and the predictions after it.
        needed = max(line["seconds"] for line in self.history) + self._validation_seconds * self.limit.num_views
        trainer.should_stop = bool(trainer.strategy.broadcast(needed > self.limit.left))
        return "max_hours" if trainer.should_stop else None

    def _early_end(self, planned: int) -> str:
        done, rate = len(self.history), self.history[-1]["lr"]
        return (
            f"fold {self.fold.index}: training ends after epoch {done} of {planned}: {self.end}. The learning rate, "
            f"planned over {number_of(planned, 'epoch')}, is {rate:.3g}."
        )

    def _check_unchanged(self, trainer: Trainer, task: FineTuneTask) -> None:
        """Compares settings and weights with those that were configured and validated.

        Raises:
            InputError: A callback has changed them: the score would be that of another network or config.
        """
        callbacks = callbacks_of(trainer)
        names = ", ".join(type(callback).__name__ for callback in callbacks) or "none"
        changed = [name for name, value in recipe_of(trainer).items() if value != self._recipe[name]]
        if changed:
            raise InputError(
                f"fold {self.fold.index}: {' and '.join(changed)} changed during training, so the run no longer "
                f"follows its config. Remove the callback that does this (callbacks: {names}) and set the key instead."
            )
        if self.fold.held_out is None:  # nothing is validated
            return
        if any(isinstance(callback, ModelPruning) for callback in callbacks):  # prunes after the validation
            return
        if self._validated is None or not torch.equal(self._validated, weight_norms(task.predictor)):
            raise InputError(
                f"fold {self.fold.index}: the weights after epoch {len(self.history)} are not those that were "
                f"validated. Remove the callback that replaces them (callbacks: {names}); model.ema_decay averages "
                f"weights."
            )

    def _check_finite(self, trainer: Trainer, task: FineTuneTask) -> None:
        """Stops before an epoch with NaN is saved; a few steps that fp16's loss scaling has skipped are allowed.

        Raises:
            InputError: A loss or a weight is NaN or infinite, or loss scaling has skipped so many steps that the
                training no longer follows the config.
        """
        epoch = len(self.history) + 1
        skips, skipped_bad = task.skips, task.first_skipped_bad_batch()
        if bad := task.first_bad_batch():
            problem = f"the loss became NaN or infinite in epoch {epoch}, {_batch(trainer, bad)}"
        elif skips and skips.is_too_many:
            problem = f"in epoch {epoch}, {skips.describe()}"
            problem += (
                f" (the loss itself was NaN or infinite in {_batch(trainer, skipped_bad)})" if skipped_bad else ""
            )
        elif broken := task.first_nonfinite_weight():
            problem = f"after epoch {epoch} {broken} is NaN or infinite"
        else:
            return
        rate = max(group["lr"] for group in trainer.optimizers[0].param_groups)
        raise InputError(
            f"fold {self.fold.index}: {problem}; highest learning rate now {rate:.3g}. Earlier epochs are saved. "
            f"Lower model.optim.lr or set trainer.precision to 32-true, under another --name."
        )


def _wait_share(trainer: Trainer) -> float | None:
    """The fraction of an epoch spent waiting for the loader, 0 to 1; None if it has a single batch."""
    waits = getattr(trainer.train_dataloader, "waits", None)
    return waits.share if waits else None


def _batch(trainer: Trainer, bad: BadBatch) -> str:
    """A batch as text: its number and its rows' ids."""
    table = trainer.datamodule.splits.train.table  # type: ignore[attr-defined]  # the run always trains from one
    return f"batch {bad.number} (ids {', '.join(table.ids[row] for row in bad.rows if row >= 0)})"
