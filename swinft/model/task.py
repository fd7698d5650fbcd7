"""The network, and the LightningModule that trains it.

Shapes: B batch, F metadata features, D embedding, K outputs.
"""

import time
from collections.abc import Callable
from typing import Any, Literal

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from swinft.errors import InputError
from swinft.model.backbone import Backbone, create_backbone
from swinft.model.ema import AveragedWeights
from swinft.model.heads import Head
from swinft.model.metrics import check_metrics, score
from swinft.model.mix import MixConfig, mix
from swinft.model.optim import OptimConfig, adamw, param_groups, warmup_cosine
from swinft.model.window_attention import FastAttention, set_attention

Batch = dict[str, Tensor]
CompilePolicy = bool | Literal["auto"]  # the settings `model.compile` and `predict.compile`

# Compiling takes a minute or two, and a step of Swin is then about a third shorter.
COMPILED_STEPS = 2000


def compiles(
    policy: CompilePolicy,
    count: int,
    least: int,
    unit: str,
    device: torch.device,
    say: Callable[[str], None] = print,
) -> bool:
    """Whether a training or a prediction is compiled.

    Args:
        policy: `auto` says what it decides, and by what rule: on CUDA, where it is long enough.
        count: Length of the work.
        least: Length from which on compiling pays.
        unit: Of both, in the plural.
        device: Where the work is done.
        say: Prints.
    """
    if policy != "auto":
        return policy
    pays = device.type == "cuda" and count >= least
    rule = f"compiled on CUDA from {least} {unit} on"
    say(f"{'compiling' if pays else 'not compiled'}: {count} {unit} on {device.type}, {rule}")
    return pays


def filled_up(tensors: list[Tensor], size: int) -> list[Tensor]:
    """Tensors (B, …) of one batch as (size, …), in the same memory format: their first row again behind the others."""
    missing = size - len(tensors[0])
    return [torch.cat([each, *[each[:1]] * missing]) for each in tensors] if missing else tensors


class ImageModel(nn.Module):
    """Backbone and head, with a small network for metadata beside the image where there is any.

    Args:
        backbone: Images to embeddings.
        head: Built for the width of the embedding, and of the metadata network's output where there is one.
        num_metadata: F, 0 for none.
        metadata_hidden: Width of the metadata network.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: Callable[[int, int], Head],
        num_outputs: int,
        num_metadata: int,
        metadata_hidden: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.metadata: nn.Module | None = None
        if num_metadata:
            # BatchNorm standardises the columns: on training rows only, and its statistics travel with the weights.
            self.metadata = nn.Sequential(
                nn.BatchNorm1d(num_metadata), nn.Linear(num_metadata, metadata_hidden), nn.GELU()
            )
        self.head = head(backbone.num_features + (metadata_hidden if num_metadata else 0), num_outputs)

    def forward(self, image: Tensor, features: Tensor | None = None) -> Tensor:
        """Pixels (B, 3, H, W), uint8 or float in 0–255, and metadata (B, F) to logits."""
        embedding = self.backbone(image)
        if self.metadata is not None:
            embedding = torch.cat([embedding, self.metadata(features).to(embedding.dtype)], dim=1)
        logits: Tensor = self.head(embedding)
        return logits

    def predict(self, image: Tensor, features: Tensor | None = None) -> Tensor:
        """The same to predictions (B, K) in the competition's units."""
        return self.head.decode(self(image, features))


class FineTuneTask(pl.LightningModule):
    """Fine-tunes a backbone with a head.

    Args:
        head: Class of the head; in YAML a `class_path` with `init_args`.
        backbone: Any model of `timm.list_models()`.
        pretrained: true for the hub's weights, a .safetensors or .pth file, or false for none.
        backbone_args: More arguments of the timm model (`embed_dim`, `depths`, `window_size`).
        drop_path_rate: Probability of skipping a residual branch in the deepest block, in [0, 1); null for its own.
        fast_attention: Compute Swin's window attention faster, with the same result; it is compared with timm's on the
            device before it is used. Other backbones are left as they are. "triton" for a kernel of its own, on NVIDIA
            GPUs of generation Ampere (sm_80) or later and Swin only, without `attn_drop_rate`.
        compile: Compile the backbone with `torch.compile`: faster steps on GPUs, after a minute or more at the start of
            every fold. `auto` does so on CUDA for folds of 2,000 optimiser steps or more.
        grad_checkpointing: Recompute activations in the backward pass: less memory, about a third slower.
        metadata_hidden: Width of the network for metadata columns.
        metrics: Names of `swinft.model.metrics.METRICS`, the first decides which epoch is best; null for the head's.
        optim: Learning rates, decays and schedule.
        mix: Mixup and cutmix.
        ema_decay: Share of the averaged weights kept per optimiser step, in (0, 1); null for no averaging.
        num_outputs: K, the number of prediction columns.
        num_metadata: F, the number of metadata features.
        image_size: Side, or height and width, in pixels.
        seed: Seeds what the training step draws.
    """

    def __init__(
        self,
        head: Callable[[int, int], Head],
        backbone: str = "swin_tiny_patch4_window7_224",
        pretrained: bool | str = True,
        backbone_args: dict[str, Any] | None = None,
        drop_path_rate: float | None = None,
        fast_attention: FastAttention = True,
        compile: CompilePolicy = False,
        grad_checkpointing: bool = False,
        metadata_hidden: int = 32,
        metrics: list[str] | None = None,
        optim: OptimConfig = OptimConfig(),
        mix: MixConfig = MixConfig(),
        ema_decay: float | None = None,
        *,
        num_outputs: int,
        num_metadata: int = 0,
        image_size: int | tuple[int, int] = 224,
        seed: int = 42,
    ) -> None:
        super().__init__()
        if ema_decay is not None and not 0 < ema_decay < 1:
            raise InputError(f"model.ema_decay is {ema_decay}; it must be in (0, 1), or null for no averaging.")
        if fast_attention not in (True, False, "triton"):
            raise InputError(f"model.fast_attention is {fast_attention!r}; it must be true, false or 'triton'.")
        if compile not in (True, False, "auto"):
            raise InputError(f"model.compile is {compile!r}; it must be true, false or 'auto'.")
        images = create_backbone(backbone, image_size, pretrained, drop_path_rate, grad_checkpointing, backbone_args)
        self.net = ImageModel(images, head, num_outputs, num_metadata, metadata_hidden)
        self.metrics = metrics if metrics is not None else list(self.net.head.default_metrics)
        check_metrics(self.metrics, self.net.head.kind)
        self.averaged = AveragedWeights(self.net, ema_decay) if ema_decay is not None else None
        self.optim = optim
        self.mix = mix
        self.fast_attention, self.compile_policy, self.is_compiled = fast_attention, compile, False
        self._started, self._full_batch = 0.0, 0
        self.seed = seed
        self._validated: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
        self._steps_seen = 0
        self._bad: tuple[Tensor, Tensor] | None = None

    @property
    def predictor(self) -> ImageModel:
        """The network to predict with: the averaged weights where there are any."""
        if self.averaged is None:
            return self.net
        averaged = self.averaged.module
        assert isinstance(averaged, ImageModel)
        return averaged

    def initialize(self, targets: Tensor) -> None:
        """Shows the head the targets of the training rows, once, before training.

        Args:
            targets: int64 (N,) for classification, else float (N, K).

        Raises:
            InputError: The head refuses a target.
        """
        self.net.head.initialize(targets)
        if self.averaged is not None:
            self.averaged.module.load_state_dict(self.net.state_dict())

    def forward(self, image: Tensor, features: Tensor | None = None) -> Tensor:
        """Pixels and metadata to predictions (B, K) in the competition's units, with the weights to predict with."""
        return self.predictor.predict(image, features)

    def on_fit_start(self) -> None:
        """Changes how Swin computes its attention, once it is on its device."""
        set_attention(self, self.device, self.fast_attention)
        steps = int(self.trainer.estimated_stepping_batches)  # the same when the training is resumed
        self.is_compiled = compiles(self.compile_policy, steps, COMPILED_STEPS, "steps", self.device, self.print)
        if self.is_compiled:
            for net in {self.net, self.predictor}:
                net.backbone.compile()  # in place: the names of the weights stay

    def on_train_start(self) -> None:
        """Counts optimiser steps from where a resumed training stands: its first batch is not averaged in twice."""
        self._steps_seen = self.global_step
        self._started = time.perf_counter()

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seeds dropout and drop path from (seed, epoch, batch): they do not depend on what ran before."""
        torch.manual_seed(int(self._rng(batch_idx, self.global_rank).integers(2**63)))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of a batch, mixed as configured."""
        encoded = self.net.head.encode(batch["target"])
        image, encoded = mix(batch["image"], encoded, self.mix, self._rng(batch_idx, self.global_rank))
        loss = self.net.head.loss(self.net(image, batch.get("features")), encoded).mean()
        self._remember_bad(loss.detach(), batch["row"], batch_idx)
        self.log("train_loss", loss.detach(), on_step=False, on_epoch=True, batch_size=len(image), sync_dist=True)
        return loss

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Averages after every optimiser step, not after every accumulated batch."""
        if self.averaged is not None and self.global_step != self._steps_seen:
            self.averaged.update(self.net)
        self._steps_seen = self.global_step
        if self.is_compiled and self._started:
            self.print(f"compiled, and the first step done, in {time.perf_counter() - self._started:.0f} s")
            self._started = 0.0

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Keeps decoded predictions; the scores are computed once, on all rows."""
        logits = self._evaluate(batch)
        head = self.predictor.head
        losses = head.loss(logits, head.encode(batch["target"]))
        self._validated.append((batch["row"], head.decode(logits), batch["target"], losses))

    def _evaluate(self, batch: Batch) -> Tensor:
        """Logits (B, K). A compiled network is given full batches only: another size would be compiled anew."""
        tensors = [batch[name] for name in ("image", "features") if name in batch]
        size = len(tensors[0])
        self._full_batch = max(self._full_batch, size) if self.is_compiled else size
        logits: Tensor = self.predictor(*filled_up(tensors, self._full_batch))
        return logits[:size]

    def on_validation_epoch_end(self) -> None:
        """Pools the rows of all ranks and logs `val_loss` and every metric."""
        _, predictions, targets, losses = self._pooled()
        self._validated.clear()
        self.log("val_loss", losses.mean(), rank_zero_only=True)
        for name, value in score(self.metrics, self.net.head.kind, predictions, targets).items():
            self.log(f"val_{name}", value, rank_zero_only=True)

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

    def configure_optimizers(self) -> Any:
        """AdamW with a rate per layer, and a schedule per step."""
        others = [module for name, module in self.net.named_children() if name != "backbone"]
        scales_loss = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        optimizer = adamw(param_groups(self.net.backbone, others, self.optim), self.optim, self.device, scales_loss)
        total = int(self.trainer.estimated_stepping_batches)  # counts the loader's batches, which the next line needs
        warmup = self.optim.warmup_epochs * self.trainer.num_training_batches / self.trainer.accumulate_grad_batches
        schedule = LambdaLR(optimizer, lambda step: warmup_cosine(step, warmup, total, self.optim.min_lr_ratio))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def first_bad_batch(self) -> tuple[int, list[int]] | None:
        """Number and rows of the epoch's first batch with a NaN or infinite loss; None where all were finite."""
        bad, self._bad = self._bad, None
        if bad is None or int(bad[0]) < 0:
            return None
        return int(bad[0]), bad[1].tolist()

    def _remember_bad(self, loss: Tensor, rows: Tensor, batch_idx: int) -> None:
        """Keeps the first bad batch on the device: asking for it at every step would wait for the device every step."""
        if self._bad is None:
            self._bad = torch.full((), -1, device=loss.device), torch.full_like(rows, -1)
        number, kept = self._bad
        is_first = ~loss.isfinite() & (number < 0)
        if len(kept) == len(rows):  # a shorter last batch cannot be kept in place; its number is
            kept = torch.where(is_first, rows, kept)
        self._bad = torch.where(is_first, batch_idx, number), kept

    def _pooled(self) -> tuple[Tensor, ...]:
        """Rows, predictions, targets and losses of all ranks, each row once, in row order."""
        pooled = tuple(torch.cat(parts) for parts in zip(*self._validated, strict=True))
        if self.trainer.world_size > 1:
            gathered: list[Any] = [None] * self.trainer.world_size
            torch.distributed.all_gather_object(gathered, tuple(part.cpu() for part in pooled))
            pooled = tuple(torch.cat(parts) for parts in zip(*gathered, strict=True))
        rows = pooled[0].cpu()
        order = rows.argsort(stable=True)
        is_first = torch.ones_like(order, dtype=torch.bool)
        is_first[1:] = rows[order][1:] != rows[order][:-1]
        chosen = order[is_first & (rows[order] >= 0)]  # padding has row -1
        return tuple(part.cpu()[chosen] for part in pooled)

    def _rng(self, batch_idx: int, stream: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, self.current_epoch, batch_idx, stream])
