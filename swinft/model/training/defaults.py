"""Default settings of a training as one table: values by the backbone and its weights, each with the reason for it.

docs/defaults.md shows the table, and a test compares page, table and settings.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn

from swinft.errors import number_of
from swinft.model.backbones.timm_backbone import Backbone

COMPARED = "benchmarks/defaults.py"  # each rule against a grid of rates
PEERS = "benchmarks/peers_scores.py"  # all defaults against those of other libraries, and against other settings


@dataclass(frozen=True)
class Training:
    """What the rules depend on.

    Args:
        has_batch_norm: Whether the backbone has batch normalisation, as most convolutional networks do; transformers
            and ConvNeXt do not.
        is_pretrained: Whether the training starts from pretrained weights.
    """

    has_batch_norm: bool
    is_pretrained: bool

    @classmethod
    def of(cls, backbone: Backbone, is_pretrained: bool) -> "Training":
        """The training of a backbone."""
        has_batch_norm = any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in backbone.modules())
        return cls(has_batch_norm, is_pretrained)

    def describe(self, rows: int | None = None) -> str:
        """What the rules depend on, in words, with the number of training rows if it is known."""
        family = "with batch normalisation" if self.has_batch_norm else "without batch normalisation"
        weights = "pretrained" if self.is_pretrained else "random weights"
        return ", ".join([family, weights, *([] if rows is None else [number_of(rows, "row")])])


@dataclass(frozen=True)
class Rule:
    """A value of some keys, and for which trainings it is the default.

    Args:
        values: Values by key.
        why: What was measured, and where; or which recipe it is from, where nothing was measured.
        has_batch_norm: For backbones with or without batch normalisation alone; None for both.
        is_pretrained: For pretrained or random weights alone; None for both.
    """

    values: dict[str, Any]
    why: str
    has_batch_norm: bool | None = None
    is_pretrained: bool | None = None

    def applies(self, training: Training) -> bool:
        """Whether the rule is for this training."""
        return self.has_batch_norm in (None, training.has_batch_norm) and self.is_pretrained in (
            None,
            training.is_pretrained,
        )


# The values of keys that are `auto`: the first rule that applies.
RATES = (
    Rule(
        {"model.optim.lr": 1e-3, "model.optim.head_lr": 1e-3},
        f"{COMPARED}: the best of five rates for a small Swin on Blue Marble, in 2 and in 10 epochs",
        is_pretrained=False,
    ),
    Rule(
        {"model.optim.lr": 2e-3, "model.optim.head_lr": 2e-3},
        f"{COMPARED}: at most 0.012 below the best of five rates on solar cells and digits, in 2 and in 10 epochs. "
        f"{PEERS}: in 50 steps 0.001 is worse on four of five tasks, and 0.004 better on all five. Batch normalisation "
        "allows ten times or more the rate of pretrained transformers",
        has_batch_norm=True,
        is_pretrained=True,
    ),
    Rule(
        {"model.optim.lr": 1e-4, "model.optim.head_lr": 1e-3},
        "not measured: of the fine-tuning recipes of Swin and ConvNeXt, and ten times as much for the new head",
        has_batch_norm=False,
        is_pretrained=True,
    ),
)

# The values of all other keys of a recipe: the same for every training.
FIXED = (
    Rule({"trainer.max_epochs": 10}, "not measured"),
    Rule({"model.optim.name": "adamw", "model.optim.weight_decay": 0.05}, "not measured: of Swin's recipe"),
    Rule({"model.optim.layer_decay": 1.0}, f"{PEERS}: 0.8 is worse with batch normalisation on three of five tasks"),
    Rule({"model.optim.schedule": "warmup_cosine", "model.optim.min_lr_ratio": 0.01}, "not measured"),
    Rule({"model.optim.warmup_epochs": "auto"}, "not measured: a tenth of the steps, three tenths with `onecycle`"),
    Rule({"trainer.gradient_clip_val": 1.0}, "not measured: of Swin's recipe; prevents divergence in fp16"),
    Rule({"model.ema_decay": None}, f"{PEERS}: in 50 steps and one seed, 0.999 changes at most 0.025"),
    Rule(
        {"data.augment": "light"},
        f"{PEERS}: in 50 steps `none` is better on all five tasks, `medium` (one seed) worse on three; longer "
        "trainings, in which augmentation is meant to help, were not measured",
    ),
    Rule({"model.mix.mixup_alpha": 0.0, "model.mix.cutmix_alpha": 0.0}, "not measured"),
    Rule({"model.pooling": "avg", "model.drop_path_rate": None, "model.freeze_epochs": 0}, "not measured"),
    Rule({"trainer.precision": "auto"}, "timed before a long training: the fastest of the device's number formats"),
)


def rates_of(training: Training) -> dict[str, Any]:
    """The values of keys that are `auto`."""
    return next(rule for rule in RATES if rule.applies(training)).values
