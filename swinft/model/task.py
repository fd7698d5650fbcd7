"""The LightningModule: fit, validate, test and predict, with the datamodule or with plain loaders.

Shapes: B batch, N training rows, F metadata features, K outputs.
"""

import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from typing import Any, Self

import numpy as np
from torch import Tensor

from swinft.class_spec import Named, plain_spec, to_spec
from swinft.errors import InputError
from swinft.model.attention.swin import set_attention
from swinft.model.auxiliary import check_context
from swinft.model.backbones.memory_format import plain_where_needed, set_layout, uses_channels_last
from swinft.model.backbones.timm_backbone import create_backbone
from swinft.model.compiling import COMPILED_STEPS, CompileState, should_compile
from swinft.model.evaluation import evaluated_batch, predicted_batch
from swinft.model.fusion import PoolingConfig
from swinft.model.heads import Head
from swinft.model.heads.contract import (
    check_fits,
    check_logits,
    encoded_targets,
    head_from,
    row_losses,
)
from swinft.model.hyperparameters import of_plain, plain, upgraded_arguments
from swinft.model.metrics import Metric, MetricWithArguments
from swinft.model.network import ImageModel, constant_buffers
from swinft.model.optimized_task import OptimizedTask
from swinft.model.pooling import Pooling, PoolingName
from swinft.model.scoring import chosen_metrics, metric_from_spec
from swinft.model.settings import ComputeConfig, TaskContext
from swinft.model.training import optim as rates
from swinft.model.training.defaults import Training
from swinft.model.training.distillation import Teacher
from swinft.model.training.ema import AveragedWeights, EMAConfig
from swinft.model.training.freezing import Freezing
from swinft.model.training.mixup import TAUGHT, MixConfig, check_maps, draw, mixed_logits, mixing_places
from swinft.model.training.optim import OptimConfig
from swinft.model.training.prior import shift_of, shifted
from swinft.model.training.sam import kept_statistics
from swinft.model.training.sizes import SizeSchedule
from swinft.model.training.steps import steps_of
from swinft.ranges import BELOW_ONE, COUNT, NOT_NEGATIVE, check_ranges
from swinft.seeding import Use, seed_for, seed_generators

Batch = dict[str, Tensor]

METADATA_HIDDEN = 32  # the default
NUMBERS = {"drop_path_rate": BELOW_ONE, "metadata_hidden": COUNT, "freeze_epochs": NOT_NEGATIVE}


class FineTuneTask(OptimizedTask):
    """Fine-tunes a backbone with a head.

    Args:
        head: Class of the head; in YAML a `class_path` with `init_args`.
        backbone: Any model of `timm.list_models()`; or a custom class, as `class_path` and `init_args`: a module that
            takes normalised images (B, 3, H, W) and returns (B, `num_features`).
        pretrained: true for the hub's weights, a .safetensors, .pth or .ckpt file, or false for random weights. If a
            file contains a larger network, such as any Lightning checkpoint, its backbone is loaded. In a run also the
            folder of another run (each fold starts from the fold of the same number) or of one fold; then the weights
            of the head are also loaded for outputs of the same name. `{fold}` is replaced by the fold's number.
        backbone_args: More arguments of the timm model (`embed_dim`, `depths`, `window_size`).
        drop_path_rate: Probability of skipping a residual branch in the deepest block, in [0, 1); null for the model's
            default.
        pooling: Pooling of an image's positions: `avg` for the backbone's own, `max`, `gem`, `avg+max`, `avgmax`,
            `attention`, `gated_attention`, `cls`, `stages`, or a class derived from swinft.Pooling. For several
            images per row a mapping: `positions` for this, and `images` for their fusion.
        metadata_hidden: Width of the network for metadata columns.
        metrics: Names that `swinft metrics` lists, with arguments as `{partial_auc: {min_tpr: 0.9}}`, or the
            `class_path` of a custom `swinft.Metric`; the first selects the best epoch. Null for the head's defaults.
        optim: Optimiser, learning rates, decays and schedule.
        mix: Mixup and cutmix, and their variants.
        ema_decay: Decay of the averaged weights (EMA) per optimiser step, in (0, 1); null for no averaging; or a
            mapping with `decay` and its warm-up.
        freeze_epochs: Epochs at the start in which the backbone is frozen, including BatchNorm statistics, and only
            pooling, metadata network and head are trained; the schedule continues. 0 for none, all epochs for a linear
            probe.
        compute: How the network is computed, with the same result: attention, compilation, activations.
        num_outputs: K, the number of prediction columns. None: taken, like the context, from the Trainer's datamodule
            when the Trainer starts, or from that of `initialize_from`; there is no network before.
        context: Image size, metadata features and seed, from data and run.

    `task(image, features)` returns predictions in the competition's units. In training mode they are of the trained
    weights, with gradients; in evaluation mode of the averaged weights, if there are any. For a custom training loop,
    `task.net(image, features)` returns logits, and `task.net.head` has `encode`, `loss` and `decode`.

    `task.teacher = swinft.Teacher([net])` adds a loss towards the predictions of other networks (distillation).

    Batches are dictionaries: `image` (B, 3, H, W) in 0–255, or (B, V, 3, H, W) with `image_mask` bool (B, V); `target`;
    `row` int64 (B,), negative for padding; optionally `features` (B, F) and `weight` (B,), a factor on the loss.
    """

    net: ImageModel

    def __init__(
        self,
        head: Callable[[int, int], Head],
        backbone: Named = "swin_tiny_patch4_window7_224",
        pretrained: bool | str = True,
        backbone_args: dict[str, Any] | None = None,
        drop_path_rate: float | None = None,
        pooling: PoolingName | PoolingConfig | Callable[[int], Pooling] = "avg",
        metadata_hidden: int = METADATA_HIDDEN,
        metrics: list[Metric | MetricWithArguments | str] | None = None,
        optim: OptimConfig = OptimConfig(),
        mix: MixConfig = MixConfig(),
        ema_decay: float | EMAConfig | None = None,
        freeze_epochs: int = 0,
        compute: ComputeConfig = ComputeConfig(),
        *,
        num_outputs: int | None = None,
        context: TaskContext = TaskContext(),
    ) -> None:
        super().__init__()
        numbers = {"drop_path_rate": drop_path_rate, "metadata_hidden": metadata_hidden, "freeze_epochs": freeze_epochs}
        check_ranges("model", numbers, NUMBERS)
        # A checkpoint's hyper-parameters are plain values.
        self.optim, self.mix = of_plain(OptimConfig, optim), of_plain(MixConfig, mix)
        self.compute, self.context = of_plain(ComputeConfig, compute), of_plain(TaskContext, context)
        self.ema_config, self.freeze_epochs = EMAConfig.of(ema_decay), freeze_epochs
        self._asked = None if metrics is None else [metric_from_spec(each) for each in metrics]
        self._arguments: dict[str, Any] = {  # as plain values; head and pooling are added with the network
            "backbone": plain_spec(backbone, "model.backbone"),
            "pretrained": pretrained,
            "backbone_args": backbone_args,
            **numbers,
            "ema_decay": asdict(ema_decay) if isinstance(ema_decay, EMAConfig) else ema_decay,
            "metrics": None if self._asked is None else [to_spec(metric) for metric in self._asked],
            "optim": asdict(self.optim),
            "mix": asdict(self.mix),
            "compute": asdict(self.compute),
        }
        self._head, self._pooling = head_from(head), pooling
        self._compiled, self._started = CompileState(), 0.0
        self.teacher: Teacher | None = None
        if num_outputs is not None:
            self._build(num_outputs)

    def _build(self, num_outputs: int, schema: Any = None, data: Any = None) -> None:
        """Builds the network; unset values come from a datamodule's schema and images."""
        given, self.context = self._arguments, self.context.completed(schema, data)
        context, weights = self.context, given["pretrained"] if self.context.loads_weights else False
        more = given["drop_path_rate"], self.compute.grad_checkpointing, given["backbone_args"], context.channels
        images = create_backbone(given["backbone"], context.padded_sides, weights, *more)
        self._training, self._is_auto = Training.of(images, given["pretrained"] is not False), self.optim.lr == "auto"
        self.optim = rates.resolve_rates(self.optim, self._training)
        widths = num_outputs, context.num_metadata or 0, given["metadata_hidden"], context.category_sizes
        more_heads = *context.shown, context.auxiliary
        self.net = ImageModel(images, self._head, *widths, self._pooling, *more_heads)
        self.net.head.has_gaps = context.has_gaps
        if uses_channels_last(self.net):
            set_layout(self.net, "channels_last")
        asked = self.net.head.default_metrics if self._asked is None else self._asked
        self.scored_by = chosen_metrics(asked, self.net.head.kind)
        recomputes, is_compiled = self.compute.grad_checkpointing, self.compute.compile is not False
        self._places = mixing_places(self.mix, self.net, recomputes, is_compiled)
        check_maps(self.net, self.mix, self.optim)
        sizes, is_free = self.optim.sizes, not (is_compiled or self.compute.fast_attention)
        self._sizes = SizeSchedule(images.model, sizes, context.sides, is_free) if sizes else None
        self._freezing = Freezing(images, rates.layers_of, self.optim.freeze, self.freeze_epochs)
        self.averaged = AveragedWeights(self.net, self.ema_config) if self.ema_config else None
        self._ddp_params_and_buffers_to_ignore = constant_buffers(self)  # read by DDP
        found = {"head": to_spec(self.net.head), "pooling": self.net.pooling_spec, "num_outputs": num_outputs}
        self.save_hyperparameters(plain({**given, **found, "context": asdict(self.context)}))

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *args: Any, **kwargs: Any) -> Self:
        """Lightning's method, also for checkpoints of earlier versions; `kwargs` replace arguments of the class.

        Raises:
            InputError: The class has no such argument.
        """
        kept = upgraded_arguments(cls, checkpoint_path, kwargs)
        return super().load_from_checkpoint(checkpoint_path, *args, **kept)

    @property
    def predictor(self) -> ImageModel:
        """The network to predict with: the averaged weights, if there are any."""
        if self.averaged is None:
            return self.net
        averaged = self.averaged.module
        assert isinstance(averaged, ImageModel)
        return averaged

    def check_schema(self, schema: Any) -> None:
        """Checks that the network fits a table's `swinft.Schema`.

        Raises:
            InputError: The kind of target or the number of outputs or metadata features differs.
        """
        check_context(self.context, schema)
        if self.net.auxiliary is not None:
            self.net.auxiliary.check_orders(schema.unordered_auxiliary)
        check_fits(self.net.head, self.context.num_metadata or 0, self.scored_by, schema)
        super().check_schema(schema)

    def forward(self, image: Tensor, features: Tensor | None = None, image_mask: Tensor | None = None) -> Tensor:
        """Pixels and metadata to predictions (B, K) in the competition's units; see the class for which weights."""
        return (self.net if self.training else self.predictor).predict(image, features, image_mask)

    def setup(self, stage: str) -> None:
        """Builds the network if necessary, checks the datamodule's table, and calls `initialize`.

        Raises:
            InputError: There is neither `num_outputs` nor a datamodule, or its table does not fit.
        """
        data: Any = getattr(self.trainer, "datamodule", None)
        schema = getattr(data, "schema", None)
        if not hasattr(self, "net"):
            if schema is None:
                raise InputError("num_outputs is not set: pass it to FineTuneTask, or a CSVDataModule to the Trainer.")
            self._build(len(schema.outputs), schema, data)
        plain_where_needed(self, self.trainer.strategy.root_device)  # before DDP creates its buckets
        if schema is not None:
            self.check_schema(schema)
        if stage == "fit" and not self.net.is_initialized and hasattr(data, "training_targets"):
            self.initialize_from(data)

    def on_fit_start(self) -> None:
        """Sets attention and compilation, once the network is on its device.

        Raises:
            InputError: `initialize` is needed and was not called.
        """
        self.net.check_initialized()
        if self.teacher is not None:
            is_fast = self.compute.fast_attention is not False
            self.teacher.to(self.device, self._autocast_dtype(), is_fast, self.print)
        set_attention(self, self.device, self.compute.fast_attention, self.print, self._autocast_dtype())
        self._prior_shift = shift_of(self.trainer, self.device)
        steps = steps_of(self.trainer)  # the same after a resume
        asked = self.compute.compile
        if should_compile(asked, steps.total, COMPILED_STEPS, "steps", self.device, self.print):
            self._compiled.start({self.net, self.predictor})

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Starts the clock of the step."""
        super().on_train_batch_start(batch, batch_idx)
        self._started = time.perf_counter()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The loss of a batch, after mixup and cutmix."""
        self.net.check_initialized()
        # Dropout and drop path depend on (seed, epoch, batch), not on earlier steps; a second pass draws the same.
        seed_generators(self.device, int(self._rng("dropout", batch_idx).integers(2**63)))
        net, head = self.net, self.net.head
        # Mixup makes some batches float: another dtype would be compiled again.
        image = batch["image"].float() if self._compiled.is_on else batch["image"]
        encoded = encoded_targets(head, batch["target"], len(image))
        found: dict[str, Any] = {**batch, "metadata": net.encode_metadata(batch.get("features"))}
        more = {name: found[name] for name in ("metadata", "weight", "image_mask") if found.get(name) is not None}
        more |= {} if net.auxiliary is None else net.auxiliary.encode(batch, len(image))
        teacher = self.teacher
        more |= {} if teacher is None else teacher.encode(batch.get("features"))
        taught = None if teacher is None else teacher.predict
        image = self._sizes.shrink(image) if self._sizes else image
        mixing = draw(self.mix, image, self._rng("mixing", batch_idx), self._places)
        with kept_statistics(net) if self._is_second_pass else nullcontext():
            logits, encoded, more = mixed_logits(net, image, encoded, more, mixing, taught)
        losses = row_losses(head, shifted(logits, self._prior_shift), encoded)
        losses = losses if teacher is None else teacher.blended(head, logits, losses, more[TAUGHT])
        if net.auxiliary is not None:
            losses = losses + net.auxiliary.weighted(net.auxiliary.losses(more))
        loss = (losses * more["weight"] if "weight" in more else losses).mean()
        if not self._is_second_pass:
            self._losses.add(batch_idx, loss.detach(), batch["row"])
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Updates the averaged weights after every optimiser step, not after every accumulated batch."""
        if self.averaged is not None and self._steps.is_taken:
            self.averaged.update(self.net)
        super().on_train_batch_end(outputs, batch, batch_idx)
        self._compiled.say("step", self._started, self.print)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> Batch:
        """Predictions of a batch.

        Returns:
            `row` int64 (B,), row indices of the datamodule's table, and `prediction` (B, K) in the competition's units,
            without padding.
        """
        predictions = predicted_batch(self.predictor, self._logits, batch)
        is_real = batch["row"] >= 0
        return {"row": batch["row"][is_real], "prediction": predictions[is_real]}

    def _logits(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits (B, …) of the head and of the auxiliary targets.

        Batches of a compiled network are padded: another size would be compiled again.
        """
        given = {name: batch[name] for name in ("image", "features", "image_mask") if name in batch}
        filled, started = self._compiled.padded([*given.values()]), time.perf_counter()
        padded, net = dict(zip(given, filled, strict=True)), self.predictor
        more = {"metadata": net.encode_metadata(padded.get("features")), "image_mask": padded.get("image_mask")}
        logits, others = net.all_logits(padded["image"], more)
        self._compiled.say("evaluation batch", started, self.print)
        check_logits(self.predictor.head, logits, len(filled[0]))
        size = len(given["image"])
        return logits[:size], {name: each[:size] for name, each in others.items()}

    def _evaluate(self, batch: Batch) -> None:
        """Stores rows, predictions, targets and losses of a batch."""
        self._evaluated.append(evaluated_batch(self.predictor, self._logits, batch).kept())

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Prevents `load_from_checkpoint` from loading pretrained weights, which the checkpoint's replace."""
        arguments = checkpoint.setdefault(self.CHECKPOINT_HYPER_PARAMS_KEY, {})
        arguments["context"] = {**arguments.get("context", {}), "loads_weights": False}

    def _rng(self, use: Use, batch_idx: int) -> np.random.Generator:
        return np.random.default_rng(
            [seed_for(use, self.context.seed), self.current_epoch, batch_idx, self.global_rank]
        )
