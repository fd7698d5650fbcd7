"""The LightningModule that trains a network: all four of the Trainer's verbs, with the datamodule or with loaders.

Shapes: B batch, N training rows, F metadata features, K outputs.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR

from swinft.errors import InputError, listed, number_of
from swinft.model.attention.swin import FAST_ATTENTION, FastAttention, set_attention
from swinft.model.backbones.memory_format import plain_where_needed, set_layout, uses_channels_last
from swinft.model.backbones.timm_backbone import create_backbone
from swinft.model.compiling import COMPILED_STEPS, CompilePolicy, compiles, filled_up, graphs_compiled
from swinft.model.described import describe, rebuilt
from swinft.model.heads import Head
from swinft.model.heads.contract import check_logits, decoded, encoded_targets, head_from, row_losses
from swinft.model.metrics import Metric
from swinft.model.network import ImageModel
from swinft.model.scoring import chosen_metrics, is_own, score
from swinft.model.training.ema import AveragedWeights
from swinft.model.training.epoch_losses import BadBatch, EpochLosses
from swinft.model.training.loss_scaling import Skips, StepWatch, first_not_finite
from swinft.model.training.mixup import MixConfig, mix
from swinft.model.training.optim import (
    Groups,
    OptimConfig,
    adamw,
    describe_rates,
    layer_groups,
    param_groups,
    regroup,
    settled,
    warmup_cosine,
    warmup_steps,
)
from swinft.model.training.steps import steps_of
from swinft.ranges import BELOW_ONE, COUNT, INSIDE_UNIT, NOT_NEGATIVE, check_ranges
from swinft.seeding import Use, seed_for, seed_generators

Batch = dict[str, Tensor]
T = TypeVar("T")

NUMBERS = {
    "drop_path_rate": BELOW_ONE,
    "ema_decay": INSIDE_UNIT,
    "metadata_hidden": COUNT,
    "freeze_epochs": NOT_NEGATIVE,
}


class FineTuneTask(pl.LightningModule):
    """Fine-tunes a backbone with a head.

    Args:
        head: Class of the head; in YAML a `class_path` with `init_args`.
        backbone: Any model of `timm.list_models()`.
        pretrained: true for the hub's weights, a .safetensors, .pth or .ckpt file, or false for none. A file may hold a
            larger network, such as anybody's Lightning checkpoint: its backbone is taken. In a run also the folder of
            another run, whose fold of the same number each fold starts from, or of one fold; its head is then taken
            where outputs agree by name. `{fold}` stands for the fold's number.
        backbone_args: More arguments of the timm model (`embed_dim`, `depths`, `window_size`).
        drop_path_rate: Probability of skipping a residual branch in the deepest block, in [0, 1); null for its own.
        fast_attention: Compute Swin's window attention faster, with the same result; it is compared with timm's on the
            device before it is used. Other backbones are left as they are. `auto` for what is fastest: a run whose
            training is long takes it by a timed trial, once for training and once for prediction; else as true. False
            for timm's computation, "fused" for timm's by torch's fused function, on Swin V1 only.
        compile: Compile the backbone with `torch.compile`: faster steps on GPUs, after a minute or more at the start of
            every fold. `auto` does so on CUDA for folds of 2,000 optimiser steps or more.
        grad_checkpointing: Recompute activations in the backward pass: less memory, about a third slower.
        metadata_hidden: Width of the network for metadata columns.
        metrics: Names that `swinft metrics` lists, or a `class_path` of your own `swinft.Metric`; the first decides
            which epoch is best. Null for the head's own.
        optim: Learning rates, decays and schedule.
        mix: Mixup and cutmix.
        ema_decay: Share of the averaged weights kept per optimiser step, in (0, 1); null for no averaging.
        freeze_epochs: Epochs at the start in which the backbone stays as it is, statistics of BatchNorm included, and
            only head and metadata network learn; the schedule runs on. 0 for none, all of them for a linear probe.
        num_outputs: K, the number of prediction columns; None to take it, and what follows, from the Trainer's
            datamodule when it starts. There is no network before that.
        num_metadata: F, the number of metadata features; None for the datamodule's, or for none.
        category_sizes: How many of the last of them are the one-hot columns of each category column.
        image_size: Side, or height and width, in pixels; None for the datamodule's, or for 224.
        seed: Seeds what the training step draws.
        loads_weights: False where a checkpoint's weights will replace the `pretrained` ones, which are not looked for.

    `task(image, features)` gives predictions in the competition's units: in training mode of the weights that are
    trained, with gradients, in evaluation mode of the averaged ones where there are any. For a loss of your own,
    `task.net(image, features)` gives logits, and `task.net.head` has `encode`, `loss` and `decode`.

    Batches are dictionaries: `image` (B, 3, H, W) in 0–255, `target`, `row` int64 (B,), negative for padding, and where
    there are any `features` (B, F), and `weight` (B,), a factor on the training loss of each row.
    """

    def __init__(
        self,
        head: Callable[[int, int], Head],
        backbone: str = "swin_tiny_patch4_window7_224",
        pretrained: bool | str = True,
        backbone_args: dict[str, Any] | None = None,
        drop_path_rate: float | None = None,
        fast_attention: FastAttention = "auto",
        compile: CompilePolicy = False,
        grad_checkpointing: bool = False,
        metadata_hidden: int = 32,
        metrics: list[Metric | str] | None = None,
        optim: OptimConfig = OptimConfig(),
        mix: MixConfig = MixConfig(),
        ema_decay: float | None = None,
        freeze_epochs: int = 0,
        *,
        num_outputs: int | None = None,
        num_metadata: int | None = None,
        category_sizes: Sequence[int] = (),
        image_size: int | tuple[int, int] | None = None,
        seed: int = 42,
        loads_weights: bool = True,
    ) -> None:
        super().__init__()
        numbers = {"drop_path_rate": drop_path_rate, "ema_decay": ema_decay, "metadata_hidden": metadata_hidden}
        check_ranges("model", {**numbers, "freeze_epochs": freeze_epochs}, NUMBERS)
        if fast_attention not in FAST_ATTENTION:
            raise InputError(f"model.fast_attention is {fast_attention!r}; it must be auto, true, false or 'fused'.")
        if compile not in (True, False, "auto"):
            raise InputError(f"model.compile is {compile!r}; it must be true, false or 'auto'.")
        # A checkpoint's hyper-parameters are plain values.
        self.optim = OptimConfig(**optim) if isinstance(optim, dict) else optim
        self.mix = MixConfig(**mix) if isinstance(mix, dict) else mix
        self.ema_decay, self.freeze_epochs, self.seed = ema_decay, freeze_epochs, seed
        self._unfrozen: list[torch.nn.Parameter] = []
        self.fast_attention, self.compile_policy, self.is_compiled = fast_attention, compile, False
        self._started, self._full_batch, self._graphs = 0.0, 0, 0
        self._evaluated: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self._steps = StepWatch()
        self._losses = EpochLosses()
        self._schema: Any = None  # of the table, where there is one
        self._head = head_from(head)
        # A checkpoint's hyper-parameters describe a user's own.
        self._asked = None if metrics is None else [rebuilt(each, Metric, "a metric") for each in metrics]
        self._arguments: dict[str, Any] = {  # all but the head, as plain values
            "backbone": backbone,
            "pretrained": pretrained,
            "backbone_args": backbone_args,
            "drop_path_rate": drop_path_rate,
            "fast_attention": fast_attention,
            "compile": compile,
            "grad_checkpointing": grad_checkpointing,
            "metadata_hidden": metadata_hidden,
            "metrics": None if self._asked is None else [describe(metric) for metric in self._asked],
            "optim": asdict(self.optim),
            "mix": asdict(self.mix),
            "ema_decay": ema_decay,
            "freeze_epochs": freeze_epochs,
            "num_metadata": num_metadata,
            "category_sizes": list(category_sizes),
            "image_size": image_size,
            "seed": seed,
            "loads_weights": loads_weights,
        }
        if num_outputs is not None:
            self._build(num_outputs)

    def _build(self, num_outputs: int, schema: Any = None, image_size: tuple[int, int] | None = None) -> None:
        """Makes the network, for a datamodule's schema and image size where nothing else was asked for."""
        given = self._arguments
        if given["num_metadata"] is None:
            given["num_metadata"] = schema.num_features if schema else sum(given["category_sizes"])
            given["category_sizes"] = list(schema.category_sizes) if schema else given["category_sizes"]
        given["image_size"] = given["image_size"] or image_size or 224
        images = create_backbone(
            given["backbone"],
            given["image_size"],
            given["pretrained"] if given["loads_weights"] else False,
            *(given[name] for name in ("drop_path_rate", "grad_checkpointing", "backbone_args")),
        )
        self.optim, self._rates_reason = settled(self.optim, images, given["pretrained"] is not False)
        metadata = given["num_metadata"], given["metadata_hidden"], given["category_sizes"]
        self.net = ImageModel(images, self._head, num_outputs, *metadata)
        if uses_channels_last(self.net):
            set_layout(self.net, "channels_last")
        asked = self.net.head.default_metrics if self._asked is None else self._asked
        self.scored_by = chosen_metrics(asked, self.net.head.kind)
        self.averaged = AveragedWeights(self.net, self.ema_decay) if self.ema_decay is not None else None
        self._ddp_params_and_buffers_to_ignore = _constants(self)  # DDP's name for what it need not send
        self.save_hyperparameters(_plain({"head": describe(self.net.head), **given, "num_outputs": num_outputs}))

    @property
    def predictor(self) -> ImageModel:
        """The network to predict with: the averaged weights where there are any."""
        if self.averaged is None:
            return self.net
        averaged = self.averaged.module
        assert isinstance(averaged, ImageModel)
        return averaged

    @property
    def metrics(self) -> list[str]:
        """Names of the metrics that are logged, after `val_` or `test_`."""
        return [metric.name for metric in self.scored_by]

    @property
    def lr(self) -> float:
        """The learning rate, which `Tuner.lr_find` changes; it is a number once there is a network."""
        return self.optim.lr  # type: ignore[return-value]

    @lr.setter
    def lr(self, value: float) -> None:
        self.optim = replace(self.optim, lr=value)

    def initialize(self, targets: Tensor, features: Tensor | None = None) -> None:
        """Sets what is learnt from the training rows at once, before training.

        `Trainer.fit` does so with the datamodule's rows, unless it was done before or weights were loaded.

        Args:
            targets: int64 (N,) for classification, else float (N, K).
            features: float (N, F) where there is metadata.

        Raises:
            InputError: The head refuses a target.
        """
        self.net.initialize(targets, features)
        if self.averaged is not None:
            self.averaged.module.load_state_dict(self.net.state_dict())

    def initialize_from(self, data: Any) -> None:
        """The same from a datamodule's `training_targets` and, where it has them, `training_features`."""
        features = getattr(data, "training_features", None)
        features = None if features is None else torch.as_tensor(features)
        self.initialize(torch.as_tensor(data.training_targets), features)

    def check_schema(self, schema: Any) -> None:
        """Compares the network with the table that it is for.

        Args:
            schema: A `swinft.Schema`.

        Raises:
            InputError: The head is for another kind of target, or outputs or metadata are of other numbers.
        """
        head = self.net.head
        if head.kind != schema.kind:
            name = f"{type(head).__module__}.{type(head).__qualname__}"
            raise InputError(
                f"model.head {name} is for {head.kind}, but data.target_kind is '{schema.kind}'. Change one of the two."
            )
        made_for = {"outputs": head.num_outputs, "metadata features": self._arguments["num_metadata"]}
        has = {"outputs": len(schema.outputs), "metadata features": schema.num_features}
        for what, number in made_for.items():
            if number != has[what]:
                raise InputError(f"the network is made for {number} {what}, and the table has {has[what]}.")
        unordered = [metric.name for metric in self.scored_by if metric.scores_grades and schema.grades is None]
        if unordered and schema.kind == "classification":
            raise InputError(
                f"{unordered[0]} (model.metrics) counts how far grades are apart, and the classes "
                f"{listed(schema.outputs)} are no numbers. Set data.columns.class_order to all of them, from the "
                f"lowest to the highest; or choose another metric."
            )
        self._schema = schema

    def forward(self, image: Tensor, features: Tensor | None = None) -> Tensor:
        """Pixels and metadata to predictions (B, K) in the competition's units; the class says of which weights."""
        return (self.net if self.training else self.predictor).predict(image, features)

    def setup(self, stage: str) -> None:
        """Makes the network for the datamodule's table, and shows it the training rows.

        Raises:
            InputError: There is no datamodule to ask, or its table does not fit.
        """
        data: Any = getattr(self.trainer, "datamodule", None)
        schema = getattr(data, "schema", None)
        if not hasattr(self, "net"):
            if schema is None:
                raise InputError("num_outputs is not set: give it to FineTuneTask, or the Trainer a CSVDataModule.")
            self._build(len(schema.outputs), schema, data.image_size)
        plain_where_needed(self, self.trainer.strategy.root_device)  # before DDP lays out its buckets alike
        if schema is not None:
            self.check_schema(schema)
        if stage == "fit" and not self.net.is_initialized and hasattr(data, "training_targets"):
            self.initialize_from(data)

    def on_fit_start(self) -> None:
        """Changes how Swin computes its attention, once it is on its device.

        Raises:
            InputError: Something is learnt from the training rows, and nobody has shown them.
        """
        if self.net.learns_from_rows and not self.net.is_initialized:
            raise InputError(
                f"{type(self.net.head).__name__} or metadata must see the training rows before training, and there is "
                f"no datamodule with `training_targets`. Call task.initialize(targets, features) first, with the "
                f"targets and, where there is any, the metadata of all training rows."
            )
        set_attention(self, self.device, self.fast_attention, self.print, self._computes_in())
        steps = steps_of(self.trainer)  # the same when the training is resumed
        self.is_compiled = compiles(self.compile_policy, steps.total, COMPILED_STEPS, "steps", self.device, self.print)
        if self.is_compiled:
            self._graphs = graphs_compiled()
            for net in {self.net, self.predictor}:
                net.backbone.compile()  # in place: the names of the weights stay

    def on_train_start(self) -> None:
        """Watches the optimiser: what follows a step must know whether it was taken."""
        self._steps.watch(self.trainer.optimizers)

    def on_train_epoch_start(self) -> None:
        """Freezes the backbone in the first epochs, and unfreezes what of it is to be trained after them."""
        self._steps.start_epoch(self._scaler)
        self._losses.start_epoch()
        if self.averaged is not None:
            self.averaged.look_again()
        if self.freeze_epochs:
            is_frozen = self.current_epoch < self.freeze_epochs
            self.net.backbone.train(not is_frozen)
            for parameter in self._unfrozen:
                parameter.requires_grad_(not is_frozen)  # without a gradient AdamW leaves it, and has no state of it

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seeds dropout and drop path from (seed, epoch, batch): they do not depend on what ran before."""
        seed_generators(self.device, int(self._rng("dropout", batch_idx).integers(2**63)))
        self._started = time.perf_counter()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch, mixed as configured."""
        net, head = self.net, self.net.head
        # Mixup gives fractions in some batches: images of another type would be compiled anew.
        image = batch["image"].float() if self.is_compiled else batch["image"]
        encoded = encoded_targets(head, batch["target"], len(image))
        found = {"metadata": net.encode_metadata(batch.get("features")), "weight": batch.get("weight")}
        more = {name: tensor for name, tensor in found.items() if tensor is not None}
        image, encoded, *mixed = mix(image, encoded, self.mix, self._rng("mixing", batch_idx), *more.values())
        more = dict(zip(more, mixed, strict=True))
        losses = row_losses(head, net.logits(image, more.get("metadata")), encoded)
        loss = (losses * more["weight"] if "weight" in more else losses).mean()
        self._losses.add(batch_idx, loss.detach(), batch["row"])
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Averages after every optimiser step that was taken, not after every accumulated batch."""
        if 0 < self.trainer.max_steps <= self.global_step:
            self.trainer.should_stop = True  # Lightning then validates the end, also where it is no end of an epoch
        if self.averaged is not None and self._steps.is_taken:
            self.averaged.update(self.net)
        if self._steps.is_due or self._steps.is_taken:
            self._losses.end_step(self._steps.is_taken)
        self._steps.end_batch()
        if self.trainer.is_last_batch:
            self._log_loss()
        self._say_compiled("step", self._started)

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        """Notes that a step is due; loss scaling may skip it."""
        self._steps.is_due = True

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """Goes on with the schedule where the optimiser did: a step that loss scaling skips is none of warm-up."""
        per_step = [each.scheduler for each in self.trainer.lr_scheduler_configs if each.interval == "step"]
        if not self._steps.is_skipped or scheduler not in per_step:
            super().lr_scheduler_step(scheduler, metric)

    def on_train_epoch_end(self) -> None:
        """Logs what loss scaling did, and the loss of an epoch that ended before its last batch."""
        if not self.trainer.is_last_batch:
            self._log_loss()
        if (skips := self.skips) is not None:
            if skips.steps == skips.skipped > 0:
                self.log("train_loss", math.nan, rank_zero_only=True)  # of no batch
            self.log("skipped_steps", float(skips.skipped), rank_zero_only=True)
            self.log("loss_scale", skips.scale, rank_zero_only=True)

    @property
    def skips(self) -> Skips | None:
        """Which steps of the epoch loss scaling has skipped, the same on all ranks; None without loss scaling."""
        return self._steps.skips(self._scaler)

    @property
    def _scaler(self) -> Any:
        """What scales the loss in fp16; None in other precisions."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keeps decoded predictions; the scores are computed once, on all rows."""
        self._evaluate(batch)

    def on_validation_epoch_end(self) -> None:
        """Logs `val_loss` and every metric of the rows of all ranks."""
        self._log_scores("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """The same for rows of a labelled test table."""
        self._evaluate(batch)

    def on_test_epoch_end(self) -> None:
        """Logs `test_loss` and every metric of the rows of all ranks."""
        self._log_scores("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Batch:
        """Predictions of a batch.

        Returns:
            `row` int64 (B,), positions in the datamodule's table, and `prediction` (B, K) in the competition's units;
            without padding.
        """
        predictions = decoded(self.predictor.head, self._logits(batch))
        is_real = batch["row"] >= 0
        return {"row": batch["row"][is_real], "prediction": predictions[is_real]}

    def _logits(self, batch: Batch) -> Tensor:
        """Logits (B, …). A compiled network is given full batches only: another size would be compiled again."""
        tensors = [batch[name] for name in ("image", "features") if name in batch]
        size = len(tensors[0])
        self._full_batch = max(self._full_batch, size) if self.is_compiled else size
        started = time.perf_counter()
        logits: Tensor = self.predictor(*filled_up(tensors, self._full_batch))
        self._say_compiled("batch that is evaluated", started)
        check_logits(self.predictor.head, logits, self._full_batch)
        return logits[:size]

    def _say_compiled(self, what: str, started: float) -> None:
        """Says what took so long, each time that something was compiled: training and evaluation are two graphs."""
        if self.is_compiled and graphs_compiled() > self._graphs:
            self._graphs = graphs_compiled()
            self.print(f"compiled, and the first {what} done, in {time.perf_counter() - started:.0f} s")

    def _evaluate(self, batch: Batch) -> None:
        """Keeps rows, predictions, targets and losses of a batch."""
        head, logits = self.predictor.head, self._logits(batch)
        losses = row_losses(head, logits, encoded_targets(head, batch["target"], len(logits)))
        self._evaluated.append((batch["row"], decoded(head, logits), batch["target"], losses))

    def _log_scores(self, stage: str) -> None:
        """Pools the rows of all ranks and logs their mean loss and every metric."""
        rows, predictions, targets, losses = self._pooled()
        self._evaluated.clear()
        self.log(f"{stage}_loss", losses.mean(), rank_zero_only=True)
        table = self._columns_of(stage, rows) if any(map(is_own, self.scored_by)) else None
        kind = self.net.head.kind
        scores = score(self.scored_by, kind, predictions, targets, **self.known_of_table(), rows=table)
        # A user's own may draw numbers: all ranks must stop, or keep an epoch, for the same score.
        for name, value in self._of_all_ranks(scores)[0].items():
            self.log(f"{stage}_{name}", value, rank_zero_only=True)

    def known_of_table(self) -> dict[str, Any]:
        """What metrics are told of the table: names of the outputs, and grades; nothing where none was compared."""
        return {"grades": self._schema.grades, "outputs": self._schema.outputs} if self._schema else {}

    def _columns_of(self, stage: str, rows: Tensor) -> Any:
        """The table's columns of evaluated rows, by their numbers; None where the batches are not the datamodule's."""
        data: Any = getattr(self.trainer, "datamodule", None)
        # A datamodule of an earlier fit stays with the Trainer when other loaders are evaluated.
        if data is None or self.trainer._evaluation_loop._data_source.instance is not data:
            return None
        table = getattr(data, "train_table" if stage == "val" else "test_table", None)
        return None if table is None else table.frame(rows.tolist())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps `load_from_checkpoint` from loading pretrained weights, which the checkpoint's replace."""
        checkpoint.setdefault(self.CHECKPOINT_HYPER_PARAMS_KEY, {})["loads_weights"] = False

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes the optimiser's state of a checkpoint from before groups of equal rates were merged.

        Raises:
            InputError: It was saved with another network or other rates.
        """
        saved = checkpoint.get("optimizer_states")
        if saved and hasattr(self, "net") and all("layer" in group for group in saved[0]["param_groups"]):
            regroup(checkpoint, layer_groups(self.net.backbone, self._others, self.optim), self.parameter_groups())

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clips; Lightning refuses to, with a fused optimiser in bf16, although nothing is scaled there."""
        if gradient_clip_val is None or not gradient_clip_val:
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if gradient_clip_algorithm == "value":
            torch.nn.utils.clip_grad_value_(parameters, gradient_clip_val)
        else:
            torch.nn.utils.clip_grad_norm_(parameters, gradient_clip_val)

    def parameter_groups(self) -> Groups:
        """Parameters of backbone, metadata network and head with their rates, as `param_groups` gives them."""
        return param_groups(self.net.backbone, self._others, self.optim)

    @property
    def _others(self) -> list[torch.nn.Module]:
        """Metadata network and head."""
        return [module for name, module in self.net.named_children() if name != "backbone"]

    def configure_optimizers(self) -> Any:
        """AdamW with a rate per layer, and a schedule per step."""
        groups = self.parameter_groups()
        self._unfrozen = [parameter for parameter in self.net.backbone.parameters() if parameter.requires_grad]
        optimizer = adamw(groups, self.optim, self.device, scales_loss=self._scaler is not None)
        steps = steps_of(self.trainer)
        warmup = warmup_steps(self.optim, steps)
        self.print(
            f"{describe_rates(groups)}, {warmup:.0f} of {number_of(steps.total, 'step')} of warm-up "
            f"({self._rates_reason})"
        )
        schedule = LambdaLR(optimizer, lambda step: warmup_cosine(step, warmup, steps.total, self.optim.min_lr_ratio))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def first_bad_batch(self) -> BadBatch | None:
        """The epoch's first batch with a NaN or infinite loss that a step was taken with.

        None where all were finite, or loss scaling skipped the steps. Of all ranks, and the same on all of them: they
        stop together, or none does. All of them must ask.
        """
        return self._first_of_ranks(self._losses.first_bad())

    def first_skipped_bad_batch(self) -> BadBatch | None:
        """The same of the steps that loss scaling skipped."""
        return self._first_of_ranks(self._losses.first_skipped)

    def first_lost_weight(self) -> str | None:
        """Name of a weight that is not finite, on any rank; the same on all of them, which must all ask."""
        return next(filter(None, self._of_all_ranks(first_not_finite(self.net))), None)

    def _first_of_ranks(self, bad: BadBatch | None) -> BadBatch | None:
        found = filter(None, self._of_all_ranks(bad))
        return min(found, key=lambda each: (each.number, each.rows), default=None)

    def _log_loss(self) -> None:
        """Logs the mean loss of the rows that steps were taken with so far, once an epoch: logging takes its time."""
        if found := self._losses.mean():
            mean, rows = found
            self.log("train_loss", mean, on_step=False, on_epoch=True, batch_size=rows, sync_dist=True)

    def _pooled(self) -> tuple[Tensor, ...]:
        """Rows, predictions, targets and losses of all ranks, each row once, in row order."""
        pooled = tuple(torch.cat(parts) for parts in zip(*self._evaluated, strict=True))
        if self.trainer.world_size > 1:
            gathered = self._of_all_ranks(tuple(part.cpu() for part in pooled))
            pooled = tuple(torch.cat(parts) for parts in zip(*gathered, strict=True))
        rows = pooled[0].cpu()
        order = rows.argsort(stable=True)
        is_first = torch.ones_like(order, dtype=torch.bool)
        is_first[1:] = rows[order][1:] != rows[order][:-1]
        chosen = order[is_first & (rows[order] >= 0)]  # padding has row -1
        return tuple(part.cpu()[chosen] for part in pooled)

    def _of_all_ranks(self, value: T) -> list[T]:
        """What every rank calls this with, in their order."""
        if self.trainer.world_size == 1:
            return [value]
        gathered: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(gathered, value)
        return gathered

    def _computes_in(self) -> torch.dtype:
        """What the Trainer's precision lets autocast compute in; float32 without autocast."""
        with self.trainer.precision_plugin.forward_context():
            kind = self.device.type
            return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else torch.float

    def _rng(self, use: Use, batch_idx: int) -> np.random.Generator:
        return np.random.default_rng([seed_for(use, self.seed), self.current_epoch, batch_idx, self.global_rank])


def _constants(task: FineTuneTask) -> list[str]:
    """Names of buffers that are the same on all ranks whatever they train on.

    DDP sends every other one before every forward pass: of a Swin and its average that would be some MB of positions
    inside windows. Running statistics of BatchNorm differ by rank, and the first one's are to count.
    """
    names = [name for name, _ in task.named_buffers()]
    own = [name for name in names if ".backbone." in name and not name.rpartition(".")[2].startswith("running_")]
    return [*own, *(name for name in names if name == "averaged.updates")]


def _plain(value: Any) -> Any:
    """The same without tuples, which YAML and JSON do not have."""
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, tuple | list) else value
