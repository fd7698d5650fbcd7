"""Builds the optimiser: AdamW, another of timm's, or a custom class."""

import importlib
import inspect
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import timm.optim
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from swinft.class_spec import init_args_of, load_class, spec_name
from swinft.errors import InputError, suggest
from swinft.model.training.optim import Groups, OptimConfig
from swinft.model.training.sam import SAM

KEY = "model.optim.name"
TIMM: Any = timm.optim  # its names are not in __all__
# Optimisers that average their weights in the place of a schedule, and their classes in the package schedulefree.
SCHEDULE_FREE = {
    "schedulefree_adamw": "AdamWScheduleFree",
    "schedulefree_radam": "RAdamScheduleFree",
    "schedulefree_sgd": "SGDScheduleFree",
}


def make_optimizer(groups: Groups, config: OptimConfig, device: torch.device, scales_loss: bool) -> Optimizer:
    """Builds the optimiser.

    Args:
        groups: Parameter groups by `param_groups`, each with its learning rate and weight decay.
        config: Name or class, with arguments.
        device: Where the parameters are.
        scales_loss: Whether fp16's loss scaling is on.

    Raises:
        InputError: The optimiser is unknown, does not accept its arguments, or a setting would have no effect.
    """
    rates = [group["lr"] for group in groups]
    arguments = init_args_of(config.name) if isinstance(config.name, dict) else dict(config.args or {})
    name = spec_name(config.name)
    _check_settings(config, name, arguments)
    try:
        optimizer = _made(groups, config, arguments, device, scales_loss)
    except InputError:
        raise
    except Exception as error:  # an optimiser may raise anything
        raise InputError(
            f"{KEY}: '{name}' cannot be built for {len(groups)} groups of parameters with {arguments or 'no arguments'}"
            f": {type(error).__name__}: {error}"
        ) from error
    _check_groups(optimizer, name, rates, config.weight_decay)
    set_weights([optimizer], trains=True)
    return optimizer


def _made(
    groups: Groups, config: OptimConfig, arguments: dict[str, Any], device: torch.device, scales_loss: bool
) -> Optimizer:
    if config.name == "sam":
        return _sam(groups, config, arguments, device, scales_loss)
    if config.name == "adamw":
        return _adamw(groups, config, device, scales_loss)
    if isinstance(config.name, dict):
        cls: Any = load_class(config.name["class_path"], Optimizer, KEY)
        made: Optimizer = cls(groups, lr=config.lr, **arguments)
        return made
    if config.name in SCHEDULE_FREE:
        free: Optimizer = _schedule_free_class(str(config.name))(
            groups, lr=config.lr, weight_decay=config.weight_decay, **arguments
        )
        return free
    if config.name not in TIMM.list_optimizers():
        hint = suggest(str(config.name), [*TIMM.list_optimizers(), *SCHEDULE_FREE, "sam"])
        raise InputError(
            f"{KEY} is '{config.name}'; it must be adamw, another name of timm.optim.list_optimizers(), one of "
            f"{', '.join(SCHEDULE_FREE)} and sam, or a class derived from torch.optim.Optimizer.{hint}"
        )
    if TIMM.get_optimizer_info(config.name).second_order:
        raise InputError(f"{KEY}: '{config.name}' needs second derivatives, which are not supported.")
    given: Any = {"lr": config.lr, "weight_decay": config.weight_decay, **arguments}
    named: Optimizer = TIMM.create_optimizer_v2(groups, config.name, **given)
    return named


def _sam(
    groups: Groups, config: OptimConfig, arguments: dict[str, Any], device: torch.device, scales_loss: bool
) -> Optimizer:
    own = {name: arguments.pop(name) for name in ("rho", "adaptive") if name in arguments}
    base = arguments.pop("base", "adamw")
    if scales_loss:
        raise InputError(
            f"{KEY} 'sam' computes gradients twice, which fp16 does not: set trainer.precision to another."
        )
    if base == "sam" or base in SCHEDULE_FREE or not isinstance(base, str):
        raise InputError(
            f"model.optim.args: base of 'sam' is {base!r}; it must be adamw or a name of timm's optimisers."
        )
    return SAM(_made(groups, replace(config, name=base, args=arguments), arguments, device, scales_loss), **own)


def _schedule_free_class(name: str) -> Any:
    try:
        return getattr(importlib.import_module("schedulefree"), SCHEDULE_FREE[name])
    except ImportError as error:
        raise InputError(f"{KEY}: '{name}' needs a package: pip install 'swinft[schedulefree]'.") from error


def is_schedule_free(optimizer: Any) -> bool:
    """Whether an optimiser has other weights to train with than to predict with, and is told which are wanted."""
    return callable(getattr(optimizer, "train", None)) and callable(getattr(optimizer, "eval", None))


def set_weights(optimizers: Iterable[Any], trains: bool) -> None:
    """Puts the weights to train with, or those to predict with, into the network, where they differ."""
    for optimizer in optimizers:
        if is_schedule_free(optimizer):
            optimizer.train() if trains else optimizer.eval()


def check_schedule_free(optimizer: Optimizer, config: OptimConfig, net: nn.Module, has_average: bool) -> None:
    """Refuses settings beside a schedule-free optimiser that would spoil what it averages.

    Raises:
        InputError: There is a schedule, an average of weights besides, or BatchNorm.
    """
    if not is_schedule_free(optimizer):
        return
    name = spec_name(config.name)
    if config.schedule != "constant":
        raise InputError(f"{KEY} '{name}' takes the place of a schedule: set model.optim.schedule to constant.")
    if has_average:
        raise InputError(f"{KEY} '{name}' averages weights by itself: set model.ema_decay to null.")
    if any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in net.modules()):
        raise InputError(
            f"{KEY} '{name}' predicts with other weights than it trains, and BatchNorm's statistics would be those of "
            "the latter: name a model.backbone without BatchNorm, or another optimiser."
        )


def _check_settings(config: OptimConfig, name: str, arguments: dict[str, Any]) -> None:
    """Rejects settings that would have no effect."""
    if isinstance(config.name, dict) and config.args:
        raise InputError(f"model.optim.args is for named optimisers: set those of {name} in its init_args.")
    if reserved := sorted({"params", "lr", "weight_decay"} & arguments.keys()):
        raise InputError(
            f"{KEY}: the argument{'s' * (len(reserved) > 1)} {', '.join(reserved)} of '{name}' would have no effect: "
            f"every parameter group has its own. Set model.optim.lr and weight_decay instead."
        )
    if name != "adamw" and tuple(config.betas) != OptimConfig.betas:
        where = "its init_args" if isinstance(config.name, dict) else "model.optim.args"
        raise InputError(f"model.optim.betas is for adamw: set those of '{name}' in {where}.")


def _check_groups(optimizer: Optimizer, name: str, rates: list[float], weight_decay: float) -> None:
    """Rejects optimisers without learning rate or weight decay per group, or whose step needs a closure."""
    if "lr" not in optimizer.defaults or [group.get("lr") for group in optimizer.param_groups] != rates:
        raise InputError(
            f"{KEY}: '{name}' does not keep a learning rate per parameter group, which layer_decay, head_lr and the "
            f"schedule need."
        )
    if weight_decay and "weight_decay" not in optimizer.defaults:
        raise InputError(f"{KEY}: '{name}' has no weight decay: set model.optim.weight_decay to 0.")
    closure = inspect.signature(type(optimizer).step).parameters.get("closure")
    if closure is not None and closure.default is closure.empty:
        raise InputError(f"{KEY}: '{name}' needs a closure that computes the loss again, which is not supported.")


def _adamw(groups: Groups, config: OptimConfig, device: torch.device, scales_loss: bool) -> AdamW:
    """AdamW, fused if the device supports it."""
    is_fused = device.type in ("cuda", "cpu")
    optimizer = AdamW(groups, **{"betas": config.betas, "fused": is_fused, **(config.args or {})})
    optimizer.register_load_state_dict_post_hook(_lay_out_state)
    # The fused kernel can unscale fp16 gradients itself, but only after they were clipped at their scaled norm. With
    # this flag the scaler unscales them before.
    if scales_loss:
        optimizer._step_supports_amp_scaling = False  # read by torch's GradScaler and by Lightning
    return optimizer


def _lay_out_state(optimizer: Optimizer) -> None:
    """Converts loaded state to the memory format of its parameter, which the fused kernels assume."""
    for parameter, state in optimizer.state.items():
        for name, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape and value.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def clip_gradients(optimizer: Optimizer, limit: float | None, algorithm: str | None) -> None:
    """Clips gradients by value, or by their total norm."""
    if not limit:
        return
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if algorithm == "value":
        torch.nn.utils.clip_grad_value_(parameters, limit)
    else:
        torch.nn.utils.clip_grad_norm_(parameters, limit)
