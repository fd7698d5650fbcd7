"""Which weights of the backbone stay as they are, and until which epoch."""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

from torch import nn

from swinft.errors import InputError, number_of, suggest
from swinft.model.backbones.timm_backbone import Backbone
from swinft.model.training.lora import LoRAConfig, add_adapters
from swinft.ranges import COUNT, UNIT, check_ranges

KEY = "model.optim.freeze"


@dataclass(frozen=True)
class FreezeConfig:
    """Which part of the backbone stays as it is, statistics of BatchNorm included, and for how long.

    Args:
        share: Share of the backbone's layers that are frozen, counted from the input, in 0–1; 1 for all of it. Layers
            are counted as `layer_decay` counts them: the stem, then a block each.
        names: Modules and parameters of the backbone that are frozen besides, under timm's names (`patch_embed`,
            `layers.0.blocks.1`); `*` stands for any characters.
        epochs: Epochs at the start for which they are frozen; null for the whole training.
        lora: Adapters on the linear layers that are frozen, which are trained in their place.
        gradual: Unfreeze layer by layer during these epochs, the layers next to the head first, instead of all of them
            at their end; `names` stay frozen until then.
    """

    share: float = 0.0
    names: list[str] | None = None
    epochs: int | None = None
    gradual: bool = False
    lora: LoRAConfig = field(default_factory=LoRAConfig)

    def __post_init__(self) -> None:
        """Checks ranges, and that every setting acts."""
        if isinstance(self.lora, Mapping):  # in checkpoints
            object.__setattr__(self, "lora", LoRAConfig(**self.lora))
        if self.lora.rank and (self.epochs is not None or not (self.share or self.names)):
            raise InputError(
                f"{KEY}.lora adapts weights that are frozen for the whole training: set {KEY}.share to 1, or less, and "
                f"{KEY}.epochs to null."
            )
        check_ranges(KEY, vars(self), {"share": UNIT, "epochs": COUNT})
        if self.epochs is not None and not (self.share or self.names):
            raise InputError(f"{KEY}.epochs does nothing without {KEY}.share or names: set one of them.")
        if self.gradual and (not self.share or self.epochs is None or self.epochs < 2):
            raise InputError(f"{KEY}.gradual needs {KEY}.share and at least 2 {KEY}.epochs, during which it unfreezes.")


class Freezing:
    """The frozen weights of a backbone. Those that are never trained lose `requires_grad` at once.

    Args:
        backbone: Its layers are those of the rates.
        layers_of: Gives the layer of every parameter of a model, from 0, by name, and that of the head, which is their
            number.
        config: What is frozen.
        freeze_epochs: Epochs at the start in which all of the backbone is frozen.

    Raises:
        InputError: A name is none of the backbone's, or the share is less than one layer.
    """

    def __init__(
        self,
        backbone: Backbone,
        layers_of: Callable[[Any], tuple[dict[str, int], int]],
        config: FreezeConfig,
        freeze_epochs: int,
    ) -> None:
        self._backbone, self._said = backbone, ""
        self._until: dict[int, tuple[nn.Parameter, float]] = {}  # by id: the first epoch in which each is trained
        if not (freeze_epochs or config.share or config.names):
            return
        layers, depth = layers_of(backbone.model)
        named = {name: parameter for name, parameter in backbone.model.named_parameters() if parameter.requires_grad}
        until = dict.fromkeys(named, float(freeze_epochs))
        end = math.inf if config.epochs is None else float(config.epochs)
        by_name = _matching(config.names or (), [name for name, _ in backbone.model.named_parameters()])
        if config.share and not math.floor(_count(config.share, depth)):
            raise InputError(
                f"{KEY}.share is {config.share:g}, which is none of the {depth} layers of the backbone: set it to "
                f"{1 / depth:.2g} or more."
            )
        for name in named:
            first = _first_epoch(layers[name], depth, config, end)
            until[name] = max(until[name], end if name in by_name else 0.0, first)
        frozen = [name for name in named if until[name] > freeze_epochs]
        self._until = {id(named[name]): (named[name], until[name]) for name in named if until[name]}
        for parameter, epoch in self._until.values():
            if math.isinf(epoch):
                parameter.requires_grad_(False)
        add_adapters(backbone.model, config.lora)
        if frozen:
            self._said = _described([named[name] for name in frozen], named.values(), config, end)

    def describe(self) -> str:
        """What `FreezeConfig` freezes, in a line; empty where that is nothing."""
        return self._said

    def apply(self, epoch: int) -> None:
        """Freezes what is frozen in an epoch, counted from 0, and brings the rest of the backbone into training mode.

        A module whose weights are all frozen computes as in evaluation: BatchNorm keeps its statistics, and nothing is
        dropped.
        """
        if not self._until:
            return
        self._backbone.train()
        for parameter, first in self._until.values():
            parameter.requires_grad_(
                epoch >= first
            )  # without a gradient an optimiser leaves it, and has no state of it
        for module in self._backbone.modules():
            weights = list(module.parameters())
            if any(id(each) in self._until for each in weights) and not any(each.requires_grad for each in weights):
                module.eval()


def _first_epoch(layer: int, depth: int, config: FreezeConfig, end: float) -> float:
    """The first epoch in which a layer's weights are trained; those behind the last layer go with a share of 1."""
    layer = min(layer, depth - 1) if config.share == 1 else layer
    if layer >= math.floor(_count(config.share, depth)):
        return 0.0
    if not config.gradual:
        return end
    epochs = range(1, int(end))
    shares = {epoch: config.share * (1 - epoch / end) for epoch in epochs}
    return next((float(epoch) for epoch in epochs if layer >= math.floor(_count(shares[epoch], depth))), end)


def _count(share: float, depth: int) -> float:
    return share * depth + 1e-9  # 0.7 of 10 layers are 7, whatever floating point makes of it


def _matching(patterns: Iterable[str], names: list[str]) -> set[str]:
    """The parameters that patterns name, or that lie inside modules that they name."""
    found: set[str] = set()
    for pattern in patterns:
        some = {name for name in names if fnmatch(name, pattern) or fnmatch(name, f"{pattern}.*")}
        if not some:
            modules = {name.rsplit(".", depth)[0] for name in names for depth in range(1, name.count(".") + 1)}
            known = sorted({name.partition(".")[0] for name in names})
            raise InputError(
                f"{KEY}.names: the backbone has no '{pattern}'.{suggest(pattern, sorted(modules))} Its modules are "
                f"{', '.join(known)}."
            )
        found |= some
    return found


def _described(frozen: list[nn.Parameter], everything: Iterable[nn.Parameter], config: FreezeConfig, end: float) -> str:
    share = sum(each.numel() for each in frozen) / max(1, sum(each.numel() for each in everything))
    how = "less and less of them, until epoch" if config.gradual else "until epoch"
    until = "for the whole training" if math.isinf(end) else f"{how} {end:.0f}"
    return f"{number_of(len(frozen), 'tensor')} of the backbone, {share:.0%} of its weights, frozen {until}"
