"""Parameter groups: layer-wise learning-rate decay, and no weight decay for biases and norms."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from types import SimpleNamespace
from typing import Any, Literal

from timm.models import group_parameters
from timm.optim import auto_group_layers  # type: ignore[attr-defined]
from torch import nn

from swinft.class_spec import Named, plain_spec
from swinft.errors import InputError
from swinft.model.backbones.timm_backbone import Backbone
from swinft.model.training.defaults import Training, rates_of
from swinft.model.training.freezing import FreezeConfig
from swinft.model.training.sizes import SizeStage
from swinft.ranges import BELOW_ONE, NOT_NEGATIVE, POSITIVE, UNIT, Range, check_ranges

Groups = list[dict[str, Any]]
Auto = Literal["auto"]


@dataclass(frozen=True)
class OptimConfig:
    """Optimiser, rates, layer-wise decay and schedule.

    Args:
        lr: Learning rate of the head; `layer_decay` starts from it. `auto` depends on the backbone's family and on
            whether it is pretrained, and is printed.
        head_lr: A different learning rate for the head and the metadata network. None for `lr`, or the matching one if
            `lr` is `auto`.
        weight_decay: Weight decay of matrices; norms, biases and relative-position tables have none.
        layer_decay: Factor on the learning rate per layer towards the input, in (0, 1]; 1 for the same everywhere. The
            head is the last layer, as in timm, BEiT and MAE: the backbone's last block has the rate `lr · layer_decay`.
        layer_decay_min_scale: Lower limit of the factor that `layer_decay` puts on `lr`, in 0–1, for deep backbones.
        warmup_epochs: Epochs of linear warm-up, counted in virtual epochs if `data.loading.virtual_epochs` is set;
            fractions are allowed. `auto` is a tenth of the training.
        min_lr_ratio: Fraction of the learning rate that remains at the end of the cosine, in 0–1.
        betas: AdamW's coefficients of the running averages; those of another optimiser go in `args`.
        name: `adamw`, or another optimiser that `timm.optim.list_optimizers()` names (`sgd`, `lion`, `muon`);
            `schedulefree_adamw`, `schedulefree_radam` or `schedulefree_sgd` with the schedule `constant`; `sam`, which
            computes gradients twice (sharpness-aware minimisation); or a class derived from torch.optim.Optimizer, as
            `class_path` and `init_args`.
        args: More arguments of a named optimiser, such as `momentum`; of `sam` `rho`, `adaptive`, `base`, the name of
            the optimiser that takes the steps, and what that takes.
        schedule: `warmup_cosine`; `constant` or `linear` after the warm-up; `onecycle`; timm's `cosine`, `tanh`,
            `poly`, `step` or `multistep` after the warm-up; or a class derived from
            torch.optim.lr_scheduler.LRScheduler, as `class_path` and `init_args`, which is stepped after every
            optimiser step.
        schedule_args: Arguments of timm's schedules; lengths (`decay_t`, `t_initial`) in epochs.
        freeze: Which part of the backbone is frozen, and until when.
        sizes: Smaller image sizes of the first epochs, each with `size` and `epochs`; the others, validation and
            prediction have `data.image_size`. The backbone's weights must not depend on the size.
    """

    lr: float | Auto = "auto"
    head_lr: float | None = None
    weight_decay: float = 0.05
    layer_decay: float = 1.0
    layer_decay_min_scale: float = 0.0
    warmup_epochs: float | Auto = "auto"
    min_lr_ratio: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    name: Named = "adamw"
    args: dict[str, Any] | None = None
    schedule: Named = "warmup_cosine"
    schedule_args: dict[str, Any] | None = None
    freeze: FreezeConfig = field(default_factory=FreezeConfig)
    sizes: list[SizeStage] | None = None

    def __post_init__(self) -> None:
        """Checks the ranges; a class becomes its path and arguments."""
        object.__setattr__(self, "name", plain_spec(self.name, "model.optim.name"))
        object.__setattr__(self, "schedule", plain_spec(self.schedule, "model.optim.schedule"))
        object.__setattr__(self, "betas", tuple(self.betas))  # a list in YAML and in checkpoints
        if isinstance(self.freeze, Mapping):  # in checkpoints
            object.__setattr__(self, "freeze", FreezeConfig(**self.freeze))
        stages = [SizeStage(**each) if isinstance(each, Mapping) else each for each in self.sizes or []]
        object.__setattr__(self, "sizes", stages or None)
        ranges = {
            "lr": POSITIVE,
            "head_lr": POSITIVE,
            "weight_decay": NOT_NEGATIVE,
            "layer_decay": Range(0, 1, above=True),
            "layer_decay_min_scale": UNIT,
            "warmup_epochs": NOT_NEGATIVE,
            "min_lr_ratio": UNIT,
            "betas": BELOW_ONE,
        }
        numbers = {name: None if value == "auto" else value for name, value in vars(self).items()}
        check_ranges("model.optim", {name: numbers[name] for name in ranges}, ranges)
        if self.layer_decay == 1 and self.layer_decay_min_scale:
            raise InputError(
                "model.optim.layer_decay_min_scale does nothing without model.optim.layer_decay: set that below 1, or "
                "this to 0."
            )


def resolve_rates(config: OptimConfig, training: Training) -> OptimConfig:
    """Sets the learning rates that are `auto` by the rules of docs/defaults.md.

    Args:
        config: The settings.
        training: The backbone to train, and whether it is pretrained.

    Returns:
        The settings with numbers (except the warm-up, which needs the number of steps).
    """
    if config.lr != "auto":
        return config
    found = rates_of(training)
    head_lr = found["model.optim.head_lr"] if config.head_lr is None else config.head_lr
    return replace(config, lr=found["model.optim.lr"], head_lr=head_lr)


def param_groups(backbone: Backbone, others: Iterable[nn.Module], config: OptimConfig) -> Groups:
    """Parameter groups, one for each pair of learning rate and decay: the optimiser has one kernel per group.

    Args:
        backbone: Its layers are found by timm's own group matcher.
        others: Head and metadata network: the last layer.
        config: Learning rates and decays.

    Returns:
        Groups with `lr`, `weight_decay` and `layers`, counted from 0. Every trainable parameter is in one group.

    Raises:
        ValueError: The rate is still `auto`; call `resolve_rates` first.
    """
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for each in layer_groups(backbone, others, config):
        rates = {name: each[name] for name in ("lr", "weight_decay")}
        group = groups.setdefault(tuple(rates.values()), {"params": [], **rates, "layers": []})
        group["params"] += each["params"]
        group["layers"] = sorted({*group["layers"], each["layer"]})
    return list(groups.values())


def layer_groups(backbone: Backbone, others: Iterable[nn.Module], config: OptimConfig) -> Groups:
    """Like `param_groups`, but separate groups for every layer, with `layer`.

    Raises:
        ValueError: The learning rate is still `auto`.
    """
    if config.lr == "auto":
        raise ValueError("the learning rate is auto; call resolve_rates first")
    rate = config.lr
    model: Any = backbone.model
    layer_of, head = layers_of(model)
    no_decay = list(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else []
    groups: dict[tuple[int, float, bool], dict[str, Any]] = {}

    def add(parameter: nn.Parameter, layer: int, lr: float, decays: bool) -> None:
        if parameter.requires_grad:
            group = {"params": [], "lr": lr, "weight_decay": config.weight_decay if decays else 0.0, "layer": layer}
            groups.setdefault((layer, lr, decays), group)["params"].append(parameter)

    for name, parameter in model.named_parameters():
        layer = layer_of[name]  # timm counts some modules to the head, such as a norm right before the classifier
        scale = max(config.layer_decay_min_scale, config.layer_decay ** (head - layer))
        # Matrices are decayed; biases, scales of norms and the backbone's own exceptions are not.
        decays = parameter.ndim > 1 and not any(fnmatch(name, pattern) for pattern in no_decay)
        add(parameter, layer, rate * scale, decays)
    for parameter in (each for module in others for each in module.parameters()):
        add(parameter, head, rate if config.head_lr is None else config.head_lr, parameter.ndim > 1)
    return list(groups.values())


def layers_of(model: Any) -> tuple[dict[str, int], int]:
    """Layer of every parameter of a model, and of the head, which replaces its classifier.

    Without timm's `group_matcher`, a layer is twelve consecutive parameters, in the order of registration.
    """
    # A custom module has no classifier: any name works that none of its parameters has.
    config = getattr(model, "pretrained_cfg", None) or {"classifier": "(none)"}
    classifier = config.get("classifier") or "head"
    placeholder = f"{classifier if isinstance(classifier, str) else classifier[0]}.weight"
    names = [*((name, None) for name, _ in model.named_parameters()), (placeholder, None)]
    whole: Any = SimpleNamespace(named_parameters=lambda: names, pretrained_cfg=config)
    if hasattr(model, "group_matcher"):
        layers: dict[str, int] = group_parameters(whole, model.group_matcher(coarse=False), reverse=True)
    else:
        layers = auto_group_layers(whole)  # type: ignore[no-untyped-call]
    return layers, layers[placeholder]


def regroup(checkpoint: dict[str, Any], by_layer: Groups, groups: Groups) -> None:
    """Converts the optimiser state of an older checkpoint, with a group per layer, to the current groups.

    Args:
        checkpoint: Lightning's checkpoint, changed in place.
        by_layer: The network's groups by `layer_groups`.
        groups: The network's groups by `param_groups`.

    Raises:
        InputError: It was saved with other rates or another network.
    """
    saved = checkpoint["optimizer_states"][0]
    numbers = [[*group["params"]] for group in saved["param_groups"]]
    if [len(each) for each in numbers] != [len(group["params"]) for group in by_layer]:
        raise InputError(
            f"the checkpoint's optimiser has {len(numbers)} parameter groups, and the network has {len(by_layer)}, or "
            f"with other sizes: it was saved with another model.backbone or model.optim. Resume with the same."
        )
    parameters = [parameter for group in by_layer for parameter in group["params"]]
    number_of = dict(zip(map(id, parameters), itertools.chain(*numbers), strict=True))
    group_of = {number: index for index, some in enumerate(numbers) for number in some}
    order = [[number_of[id(parameter)] for parameter in group["params"]] for group in groups]
    states = [saved["state"].get(number) for some in order for number in some]
    firsts = [group_of[some[0]] for some in order]
    starts = itertools.accumulate([0, *map(len, order)])
    checkpoint["optimizer_states"][0] = {
        "state": {number: state for number, state in enumerate(states) if state is not None},
        "param_groups": [
            {
                **{name: value for name, value in saved["param_groups"][first].items() if name != "layer"},
                "params": list(range(start, start + len(some))),
                "layers": group["layers"],
            }
            for first, start, some, group in zip(firsts, starts, order, groups, strict=False)
        ],
    }
    for schedule in checkpoint["lr_schedulers"]:
        for name in ("base_lrs", "_last_lr", "lr_lambdas"):
            if len(schedule.get(name, ())) == len(numbers):
                schedule[name] = [schedule[name][first] for first in firsts]


def describe_rates(groups: Groups) -> str:
    """One line about the learning rates of parameter groups, without the factor of the schedule."""
    first = min(groups, key=lambda group: (group["layers"][0], group["lr"]))["lr"]
    last = max(groups, key=lambda group: (group["layers"][-1], group["lr"]))["lr"]
    if all(group["lr"] == last for group in groups):
        return f"learning rate {last:.3g} in all layers"
    layers = len({layer for group in groups for layer in group["layers"]})
    return f"learning rates from {first:.3g} (stem) to {last:.3g} (head) in {layers} layers"
