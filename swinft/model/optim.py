"""Which parameter learns how fast: layer-wise decay, no decay where it hurts, warm-up and cosine per step."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from timm.optim._param_groups import param_groups_layer_decay
from torch import nn
from torch.optim import AdamW

from swinft.errors import InputError
from swinft.model.backbone import Backbone

Groups = list[dict[str, Any]]


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with layer-wise decay, warm-up and cosine.

    Args:
        lr: Learning rate of the backbone's last layer.
        head_lr: Learning rate of the head and of the metadata network; None for `lr`.
        weight_decay: Decay of weight matrices; norms, biases and relative-position tables have none.
        layer_decay: Factor on the learning rate per layer towards the input, in (0, 1]; 1 for the same everywhere.
        warmup_epochs: Epochs of linear warm-up; fractions are allowed.
        min_lr_ratio: Share of the learning rate that is left at the end of the cosine, in 0–1.
        betas: AdamW's running averages.
    """

    lr: float = 1e-4
    head_lr: float | None = None
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    warmup_epochs: float = 1.0
    min_lr_ratio: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)

    def __post_init__(self) -> None:
        """Checks the ranges."""
        wrong = [
            name
            for name, right in {
                "lr": self.lr > 0,
                "head_lr": self.head_lr is None or self.head_lr > 0,
                "weight_decay": self.weight_decay >= 0,
                "layer_decay": 0 < self.layer_decay <= 1,
                "warmup_epochs": self.warmup_epochs >= 0,
                "min_lr_ratio": 0 <= self.min_lr_ratio <= 1,
                "betas": all(0 <= beta < 1 for beta in self.betas),
            }.items()
            if not right
        ]
        if wrong:
            raise InputError(
                f"model.optim: {', '.join(f'{name}={getattr(self, name)}' for name in wrong)} out of range."
            )


def param_groups(backbone: Backbone, others: Iterable[nn.Module], config: OptimConfig) -> Groups:
    """Parameter groups with their own learning rates and decays.

    timm only writes `lr_scale`, which torch's optimisers and schedulers ignore; here it is multiplied into each `lr`.

    Args:
        backbone: Its layers are found by timm's own group matcher.
        others: Head and metadata network, at the head's rate.
        config: Rates and decays.
    """
    model: Any = backbone.model
    skip = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    groups: Groups = param_groups_layer_decay(model, config.weight_decay, skip, layer_decay=config.layer_decay)
    for group in groups:
        group["lr"] = config.lr * group["lr_scale"]
    parameters = [p for module in others for p in module.parameters() if p.requires_grad]
    # A matrix is decayed, a bias or a norm's scale is not.
    for decay, chosen in (
        (config.weight_decay, [p for p in parameters if p.ndim > 1]),
        (0.0, [p for p in parameters if p.ndim < 2]),
    ):
        groups.append({"params": chosen, "lr": config.head_lr or config.lr, "weight_decay": decay})
    return [group for group in groups if group["params"]]


def adamw(groups: Groups, config: OptimConfig, device: torch.device, scales_loss: bool) -> AdamW:
    """AdamW, in one kernel per group where the device has it.

    Args:
        groups: Parameter groups.
        config: Rates and running averages.
        device: Where the parameters are.
        scales_loss: Whether fp16's loss scaling is on. The fused kernel would undo the scaling by itself, after the
            gradients were clipped at the scaled norm.
    """
    return AdamW(groups, lr=config.lr, betas=config.betas, fused=device.type in ("cuda", "cpu") and not scales_loss)


def warmup_cosine(step: int, warmup_steps: float, total_steps: int, min_ratio: float) -> float:
    """Factor on the learning rates at an optimiser step: linear up, then half a cosine down.

    Args:
        step: Optimiser steps done, from 0.
        warmup_steps: Steps until the full rate.
        total_steps: Steps of the whole training.
        min_ratio: What is left at the end.

    Returns:
        A factor in (0, 1].
    """
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)  # not 0 at the first step, which would waste it
    progress = min(1.0, (step - warmup_steps) / max(1.0, total_steps - warmup_steps))
    return min_ratio + (1 - min_ratio) * 0.5 * (1 + math.cos(math.pi * progress))
