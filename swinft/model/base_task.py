"""Base of the task: counts steps, logs losses and scores, and gathers evaluated rows from all ranks.

It does not depend on the network or the kind of target.

Shapes: B batch, K outputs.
"""

import math
from typing import Any, TypeVar

import lightning.pytorch as pl
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swinft.errors import InputError
from swinft.model.auxiliary import mean_of_known
from swinft.model.evaluation import Evaluated, check_batch, pooled_rows
from swinft.model.metrics import Metric
from swinft.model.scoring import reads_table, score
from swinft.model.training.epoch_losses import BadBatch, EpochLosses
from swinft.model.training.loss_scaling import Skips, StepTracker, first_not_finite
from swinft.model.training.optimizers import clip_gradients, set_weights
from swinft.system.other_lightning import warn_of_other_lightning

T = TypeVar("T")


class BaseTask(pl.LightningModule):
    """Hooks that count and log; a subclass computes, and appends its results to `_losses` and `_evaluated`."""

    net: Any
    scored_by: list[Metric]

    def __init__(self) -> None:
        super().__init__()
        warn_of_other_lightning()
        self._evaluated: list[Evaluated] = []
        self._steps, self._losses = StepTracker(), EpochLosses()
        self._has_stopped = False  # at the last step
        self._prior_shift: Tensor | None = None  # of the sampler; added to the logits in the loss
        self._schema: Any = None  # of the table, if there is one

    def on_train_start(self) -> None:
        """Hooks into the optimiser, to know after each batch whether a step was taken."""
        self._steps.track(self.trainer.optimizers)

    def on_train_epoch_start(self) -> None:
        """Resets the counters."""
        self._steps.start_epoch(self._scaler)
        self._losses.start_epoch()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Trains with the weights that are for it."""
        check_batch(batch, "target")
        self._set_weights(trains=True)

    def on_validation_start(self) -> None:
        """Predicts with the weights that are for it; what is saved after an epoch is what was validated."""
        self._set_weights(trains=False)
        self._evaluated.clear()  # rows of a pass that was interrupted

    def on_test_start(self) -> None:
        """Starts without rows of a pass that was interrupted."""
        self._evaluated.clear()

    def _set_weights(self, trains: bool) -> None:
        if self._trainer is not None:  # a plain loop may call the hooks, too
            set_weights(self.trainer.optimizers, trains=trains)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Counts the batch, and stops the training after its last step."""
        if 0 < self.trainer.max_steps <= self.global_step and not self.trainer.should_stop:
            self.trainer.should_stop = self._has_stopped = True  # Lightning then validates, also within an epoch
        if self._steps.is_due or self._steps.is_taken:
            self._losses.end_step(self._steps.is_taken)
        self._steps.end_batch()
        if self.trainer.is_last_batch:
            self._log_loss()

    def on_train_end(self) -> None:
        """Lets a search train again: Lightning's finders run several short trainings within one fit."""
        if self._has_stopped:
            self.trainer.should_stop = self._has_stopped = False

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Records that a step is due; loss scaling may skip it."""
        self._steps.is_due = True

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Steps the schedule only after an optimiser step: one that loss scaling skips must not count as warm-up."""
        per_step = [each.scheduler for each in self.trainer.lr_scheduler_configs if each.interval == "step"]
        if not self._steps.is_skipped or scheduler not in per_step:
            super().lr_scheduler_step(scheduler, metric)

    def on_train_epoch_end(self) -> None:
        """Logs the state of loss scaling, and the loss of an epoch that ended before its last batch."""
        self._set_weights(trains=False)
        if not self.trainer.is_last_batch:
            self._log_loss()
        if (skips := self.skips) is not None:
            if skips.steps == skips.skipped > 0:
                self.log("train_loss", math.nan, rank_zero_only=True)  # no batch contributed
            self.log("skipped_steps", float(skips.skipped), rank_zero_only=True)
            self.log("loss_scale", skips.scale, rank_zero_only=True)

    @property
    def skips(self) -> Skips | None:
        """The steps of the epoch that loss scaling skipped, equal on all ranks; None without loss scaling."""
        return self._steps.skips(self._scaler)

    @property
    def _scaler(self) -> Any:
        """The GradScaler of fp16; None in other precisions."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Stores decoded predictions; the scores are computed once, on all rows.

        Raises:
            InputError: The Trainer has several loaders to evaluate.
        """
        self._evaluate_checked(batch, dataloader_idx)

    def on_validation_epoch_end(self) -> None:
        """Logs `val_loss` and every metric, over the rows of all ranks."""
        self._log_scores("val")

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """The same for rows of a labelled test table.

        Raises:
            InputError: The Trainer has several loaders to evaluate.
        """
        self._evaluate_checked(batch, dataloader_idx)

    def on_predict_batch_start(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Checks what a loader gives."""
        check_batch(batch)

    def on_test_epoch_end(self) -> None:
        """Logs `test_loss` and every metric, over the rows of all ranks."""
        self._log_scores("test")

    def _evaluate_checked(self, batch: Any, loader: int) -> None:
        """Evaluates a batch.

        Raises:
            InputError: It is of a second loader, or is no batch of this task.
        """
        if loader:
            raise InputError(
                "the Trainer has several loaders to evaluate, whose rows would be scored as one table. Give it one; "
                "evaluate each other one by Trainer.validate."
            )
        check_batch(batch, "target")
        self._evaluate(batch)

    def _evaluate(self, batch: Any) -> None:
        """Appends a batch to the evaluated rows."""
        raise NotImplementedError

    @property
    def metrics(self) -> list[str]:
        """Names of the logged metrics, without the prefix `val_` or `test_`."""
        return [metric.name for metric in self.scored_by]

    def _log_scores(self, stage: str) -> None:
        """Pools the rows of all ranks and logs their mean loss and every metric."""
        rows, predictions, targets, losses, auxiliary = self._pooled()
        self.log(f"{stage}_loss", losses.mean(), rank_zero_only=True)
        context = self._context_of(stage, rows.numpy())
        scores = score(self.scored_by, self.net.head.kind, predictions, targets, **context)
        # A custom metric may be random: all ranks must use one score for early stopping and checkpoints.
        for name, value in self._of_all_ranks(scores)[0].items():
            self.log(f"{stage}_{name}", value, rank_zero_only=True)
        if auxiliary is not None:
            for name, value in zip(self.net.auxiliary.names, mean_of_known(auxiliary), strict=True):
                if not math.isnan(value):  # NaN: none of the rows has it
                    self.log(f"{stage}_{name}_loss", value, rank_zero_only=True)

    def _context_of(self, stage: str, rows: NDArray[np.int64]) -> dict[str, Any]:
        """What metrics may use besides predictions and targets of rows: columns of their table, weights, grades."""
        split, splits = self._evaluated_splits(stage)
        if splits is None:
            return self.table_context()
        if splits.schema is not self._schema:
            self.check_schema(splits.schema)
        context = self.table_context()
        if reads_table(self.scored_by):
            context["rows"] = (splits.main_table if split == "val" else splits.test.table).frame(rows.tolist())
        of_training = {"weights": splits.score_weights, "unseen": splits.unseen} if split == "val" else {}
        return context | {name: values[rows] for name, values in of_training.items() if values is not None}

    def check_schema(self, schema: Any) -> None:
        """Keeps the table's schema; a subclass checks that the network fits it."""
        self._schema = schema

    def table_context(self) -> dict[str, Any]:
        """Arguments of `score` that come from the table's schema: names of the outputs, and grades."""
        return {"grades": self._schema.grades, "outputs": self._schema.outputs} if self._schema else {}

    def _evaluated_splits(self, stage: str) -> tuple[str, Any]:
        """The split and the datamodule's `Splits` that evaluated batches come from; None for those of other loaders."""
        loop = self.trainer._evaluation_loop
        loaders = loop._combined_loader.flattened if loop._combined_loader else []
        known: tuple[str, Any] | None = getattr(loaders[0], "rows_of", None) if len(loaders) == 1 else None
        if known is not None:
            return known
        data: Any = getattr(self.trainer, "datamodule", None)
        # A datamodule of an earlier fit stays with the Trainer when other loaders are evaluated.
        return stage, getattr(data, "splits", None) if loop._data_source.instance is data else None

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clips gradients. Lightning refuses this for a fused optimiser in bf16, although no loss is scaled there."""
        clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def first_bad_batch(self) -> BadBatch | None:
        """The epoch's first batch with a NaN or infinite loss whose optimiser step was taken; None if there is none.

        A collective call: every rank must make it, and gets the same result, so that all stop together.
        """
        return self._first_of_ranks(self._losses.first_bad())

    def first_skipped_bad_batch(self) -> BadBatch | None:
        """The same for the steps that loss scaling skipped."""
        return self._first_of_ranks(self._losses.first_skipped)

    def first_nonfinite_weight(self) -> str | None:
        """Name of a weight that is not finite on any rank; a collective call."""
        return next(filter(None, self._of_all_ranks(first_not_finite(self.net))), None)

    def _first_of_ranks(self, bad: BadBatch | None) -> BadBatch | None:
        found = filter(None, self._of_all_ranks(bad))
        return min(found, key=lambda each: (each.number, each.rows), default=None)

    def _log_loss(self) -> None:
        """Logs the mean loss over the rows of all steps taken; once per epoch, since logging is slow."""
        if found := self._losses.mean():
            mean, rows = found
            self.log("train_loss", mean, on_step=False, on_epoch=True, batch_size=rows, sync_dist=True)

    def _pooled(self) -> Evaluated:
        """Rows, predictions, targets and losses of all ranks, each row once, in row order."""
        own = Evaluated.joined(self._evaluated)
        self._evaluated.clear()
        return pooled_rows(self._of_all_ranks(own))

    def _of_all_ranks(self, value: T) -> list[T]:
        """The values of all ranks, in rank order."""
        if self.trainer.world_size == 1:
            return [value]
        gathered: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(gathered, value)
        return gathered

    def _autocast_dtype(self) -> torch.dtype:
        """The dtype of autocast under the Trainer's precision; float32 without autocast."""
        with self.trainer.precision_plugin.forward_context():
            kind = self.device.type
            return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float
