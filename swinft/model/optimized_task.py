"""A LightningModule with an optimiser: rates per layer, schedule, frozen parts, averaged weights."""

from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import asdict, replace
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import Tensor

from swinft.class_spec import errors_of
from swinft.errors import InputError
from swinft.model.base_task import BaseTask
from swinft.model.hyperparameters import plain
from swinft.model.network import ImageModel
from swinft.model.training import optim as rates
from swinft.model.training.callbacks import check_callbacks, check_launcher
from swinft.model.training.defaults import Training
from swinft.model.training.ema import AveragedWeights, EMAConfig
from swinft.model.training.freezing import Freezing
from swinft.model.training.optim import Groups, OptimConfig
from swinft.model.training.optimizers import check_schedule_free, make_optimizer
from swinft.model.training.sam import SAM
from swinft.model.training.schedules import advance, describe_schedule, make_schedule, try_schedule
from swinft.model.training.sizes import SizeSchedule
from swinft.model.training.steps import steps_of


class OptimizedTask(BaseTask):
    """Optimiser and schedule; a subclass makes the network."""

    optim: OptimConfig
    averaged: AveragedWeights | None
    ema_config: EMAConfig | None
    net: ImageModel
    _arguments: dict[str, Any]
    _build: Callable[..., None]
    _freezing: Freezing
    _sizes: SizeSchedule | None
    _optimizer: Any = None  # once it is configured
    _training: Training
    _is_auto: bool  # whether the learning rates are those of the rules

    @property
    def lr(self) -> float:
        """The learning rate, which `Tuner.lr_find` sets; a number once there is a network."""
        return self.optim.lr  # type: ignore[return-value]

    @lr.setter
    def lr(self, value: float) -> None:
        self.optim, self._is_auto = replace(self.optim, lr=value), False
        self._arguments["optim"] = asdict(self.optim)
        if "optim" in self.hparams:
            self.hparams["optim"] = plain(self._arguments["optim"])

    def configure_callbacks(self) -> Sequence[Callback] | Callback:
        """Adds none; Lightning calls it before the callbacks of the Trainer do anything.

        Raises:
            InputError: The Trainer has a callback or a strategy that would be silently wrong with this task.
        """
        found: Any = self.trainer.callbacks  # type: ignore[attr-defined]  # Lightning sets it elsewhere
        net = getattr(self, "net", None)
        check_callbacks(found, self.optim, net, self.ema_config is not None)
        check_launcher(self.trainer, net)
        return []

    def initialize(self, targets: Tensor, features: Tensor | None = None, *auxiliary: Tensor) -> None:
        """Computes the statistics of all training rows that head and metadata network need, before training.

        `Trainer.fit` calls it with the datamodule's rows, unless it was called before or weights were loaded.

        Args:
            targets: int64 (N,) for classification, else float (N, K).
            features: float (N, F) if there is metadata.
            auxiliary: The targets of each auxiliary target.

        Raises:
            InputError: A head rejects a target.
        """
        self.net.initialize(targets, features, *auxiliary)
        if self.averaged is not None:
            head = type(self.net.head).__name__
            with errors_of(f"{head}.initialize may only fill buffers that __init__, or `prepare` of a loss, registers"):
                self.averaged.module.load_state_dict(self.net.state_dict())

    def initialize_from(self, data: Any) -> None:
        """Calls `initialize` with a datamodule's `training_targets`, and `training_features` and others, if any.

        It sets the datamodule up, and builds the network, where this has not been done.
        """
        if not hasattr(self, "net"):
            data.setup("fit")
            self._build(len(data.schema.outputs), data.schema, data)
            self.check_schema(data.schema)
        features = getattr(data, "training_features", None)
        features = None if features is None else torch.as_tensor(features)
        auxiliary = [torch.as_tensor(each) for each in getattr(data, "training_auxiliary", ())]
        self.initialize(torch.as_tensor(data.training_targets), features, *auxiliary)

    def load_state_dict(self, state_dict: Mapping[str, Any], *given: Any, **options: Any) -> Any:
        """Lightning's and torch's method.

        Raises:
            InputError: There is no network yet; without `strict`, the weights would silently be left out.
        """
        if not hasattr(self, "net"):
            raise InputError(
                f"{type(self).__name__} has no network to load weights into: call task.initialize_from(datamodule), or "
                f"{type(self).__name__}.load_from_checkpoint(path)."
            )
        return super().load_state_dict(state_dict, *given, **options)

    def on_train_epoch_start(self) -> None:
        """Freezes what of the backbone is frozen in this epoch."""
        super().on_train_epoch_start()
        if self.averaged is not None:
            self.averaged.refresh_modules()
        self._freezing.apply(self.current_epoch)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Brings the network to the image size of the epoch."""
        super().on_train_batch_start(batch, batch_idx)
        if self._sizes is not None:
            self._sizes.set(self.current_epoch)

    def on_validation_start(self) -> None:
        """Brings the network to the last image size."""
        super().on_validation_start()
        self._to_last_size()

    def on_train_epoch_end(self) -> None:
        """The same where nothing was validated: what is saved is at the last size."""
        super().on_train_epoch_end()
        self._to_last_size()

    def _to_last_size(self) -> None:
        if self._sizes is not None and self._sizes.set(None) and self.averaged is not None:
            self.averaged.copy_buffers(self.net)  # those of windows; averages of steps took them from a smaller size

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Converts the optimiser state of older checkpoints, which had a parameter group per layer.

        Raises:
            InputError: It was saved with another network or other learning rates.
        """
        saved = checkpoint.get("optimizer_states")
        if saved and hasattr(self, "net") and all("layer" in group for group in saved[0]["param_groups"]):
            by_layer = rates.layer_groups(self.net.backbone, self._others, self.optim)
            rates.regroup(checkpoint, by_layer, self.parameter_groups())

    def parameter_groups(self) -> Groups:
        """Parameters of backbone, pooling, metadata network and head with their rates, by `param_groups`."""
        return rates.param_groups(self.net.backbone, self._others, self.optim)

    def _num_rows(self) -> int | None:
        """Number of rows to train on, if datamodule or loader tell."""
        targets = getattr(getattr(self.trainer, "datamodule", None), "training_targets", None)
        known = getattr(self.trainer.train_dataloader, "dataset", None) if targets is None else targets
        return len(known) if isinstance(known, Sized) else None

    @property
    def _epochs_done(self) -> int:
        """Whole epochs of earlier fits of the Trainer, which repeats an interrupted one."""
        progress: Any = self.trainer.fit_loop.epoch_progress.current
        return int(progress.processed)

    @property
    def _others(self) -> list[torch.nn.Module]:
        """Pooling, metadata network and head."""
        return [module for name, module in self.net.named_children() if name != "backbone"]

    @property
    def _is_second_pass(self) -> bool:
        """Whether the gradients of a batch are computed again, as SAM does."""
        return isinstance(self._optimizer, SAM) and self._optimizer.is_second

    def make_optimizer(self, device: torch.device, scales_loss: bool) -> torch.optim.Optimizer:
        """The optimiser of the parameters on a device, for a loss that fp16 scales or not."""
        optimizer = make_optimizer(self.parameter_groups(), self.optim, device, scales_loss)
        check_schedule_free(optimizer, self.optim, self.net, self.averaged is not None)
        return optimizer

    def configure_optimizers(self) -> Any:
        """The optimiser, with a learning rate per layer, and the schedule, stepped after every optimiser step."""
        line, steps = rates.describe_rates(self.parameter_groups()), steps_of(self.trainer)
        optimizer = self.make_optimizer(self.device, scales_loss=self._scaler is not None)
        try_schedule(optimizer, self.optim, steps)
        schedule = make_schedule(optimizer, self.optim, steps)
        if self.trainer.ckpt_path is None:  # a checkpoint has the schedule's own state
            advance(schedule, min(self.trainer.global_step, steps.total, self._epochs_done * steps.per_epoch))
        self._optimizer = optimizer
        if self._is_auto:
            self.print(f"lr {self.lr:g}: {self._training.describe(self._num_rows())} (model.optim.lr auto)")
        self.print(f"{line}, {describe_schedule(self.optim, steps)}")
        if frozen := self._freezing.describe():
            self.print(frozen)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
