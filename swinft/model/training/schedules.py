"""Learning-rate schedules: a factor per step on the learning rate of every parameter group.

A common factor keeps the ratios between the rates of layers.
"""

import inspect
import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from timm.scheduler.cosine_lr import CosineLRScheduler
from timm.scheduler.multistep_lr import MultiStepLRScheduler
from timm.scheduler.poly_lr import PolyLRScheduler
from timm.scheduler.step_lr import StepLRScheduler
from timm.scheduler.tanh_lr import TanhLRScheduler
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, LRScheduler

from swinft.class_spec import check_initialized, init_args_of, load_class, spec_name
from swinft.errors import InputError, number_of, suggest
from swinft.model.training.optim import OptimConfig
from swinft.model.training.steps import Steps

Factor = Callable[[float], float]  # on the learning rates, by steps since the warm-up

KEY = "model.optim.schedule"
MAX_TRIED = 10_000  # steps of a custom schedule that are walked before the training: less than a second
# Fraction of the optimiser steps: enough for AdamW's averages to stabilise, short enough for two epochs.
WARMUP_SHARE = 0.1
# Leslie Smith's one-cycle policy as in torch: up from a 25th in the first three tenths, then down.
ONECYCLE_WARMUP, ONECYCLE_START = 0.3, 1 / 25
TIMM_SCHEDULES: dict[str, Any] = {
    "cosine": CosineLRScheduler,
    "multistep": MultiStepLRScheduler,
    "poly": PolyLRScheduler,
    "step": StepLRScheduler,
    "tanh": TanhLRScheduler,
}
NAMES = ["warmup_cosine", "constant", "linear", "onecycle", *TIMM_SCHEDULES]
IN_EPOCHS = ("t_initial", "decay_t")
# Arguments of timm's schedules that swinft sets, or that other settings set.
RESERVED = {"optimizer", "initialize", "lr_min", "t_in_epochs", "warmup_lr_init", "warmup_prefix", "warmup_t"}
# Names in torch and transformers for the argument that is the length of the training in steps.
TOTALS = ("total_steps", "T_max", "total_iters", "num_training_steps")


def make_schedule(optimizer: Optimizer, config: OptimConfig, steps: Steps) -> LRScheduler:
    """Builds the schedule, which is stepped after every optimiser step.

    Args:
        optimizer: With the full learning rate of every group.
        config: Name or class, with arguments.
        steps: The steps of the training.

    Raises:
        InputError: The schedule is unknown, does not accept its arguments, would change the ratios of rates, or a
            setting would have no effect.
    """
    _check_settings(config)
    if isinstance(config.schedule, dict):
        return _of_class(optimizer, config.schedule, steps)
    warmup = warmup_steps(config, steps)
    if config.schedule == "warmup_cosine":
        return LambdaLR(optimizer, lambda step: warmup_cosine(step, warmup, steps.total, config.min_lr_ratio))
    start = ONECYCLE_START if config.schedule == "onecycle" else None
    after = _after_warmup(config, steps, max(1.0, steps.total - warmup))
    return LambdaLR(optimizer, lambda step: _warmed_up(step, warmup, after, start))


def try_schedule(optimizer: Optimizer, config: OptimConfig, steps: Steps) -> None:
    """Walks a schedule of a class to the end of a training, and leaves the optimiser as it was.

    Args:
        optimizer: As for `make_schedule`.
        config: Likewise.
        steps: Likewise; at most `MAX_TRIED` are walked.

    Raises:
        InputError: It fails on the way, or a learning rate is negative or not finite.
    """
    if not isinstance(config.schedule, dict):
        return
    before = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    schedule, done = make_schedule(optimizer, config, steps), 0
    try:
        for done in range(1, min(steps.total, MAX_TRIED) + 1):
            _check_rates(schedule, done - 1)
            advance(schedule, 1)
    except InputError:
        raise
    except Exception as error:  # a custom class may raise anything
        where = f"{KEY}: {type(schedule).__name__} fails after step {done} of {steps.total}"
        raise InputError(f"{where}: {type(error).__name__}: {error}") from error
    for group, values in zip(optimizer.param_groups, before, strict=True):
        for name in group.keys() - values.keys() - {"params"}:
            del group[name]
        group.update(values)


def _check_rates(schedule: LRScheduler, step: int) -> None:
    """Raises as `try_schedule`."""
    rates = [float(group["lr"]) for group in schedule.optimizer.param_groups]
    if wrong := [rate for rate in rates if not math.isfinite(rate) or rate < 0]:
        raise InputError(
            f"{KEY}: {type(schedule).__name__} sets a learning rate of {wrong[0]:g} at step {step + 1}. Allowed: "
            f"finite numbers from 0."
        )


def advance(schedule: LRScheduler, steps: int) -> None:
    """Brings a new schedule to its place after some steps: a second fit of a Trainer goes on from those of the first.

    Args:
        schedule: The schedule.
        steps: Optimiser steps taken.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*before.*optimizer.step")
        for _ in range(steps):
            schedule.step()


def describe_schedule(config: OptimConfig, steps: Steps) -> str:
    """Optimiser and schedule in words, for the line about learning rates; AdamW and cosine are not named."""
    optimizer = "" if config.name == "adamw" else f"{spec_name(config.name)}, "
    total = number_of(steps.total, "step")
    if isinstance(config.schedule, dict):
        return f"{optimizer}{spec_name(config.schedule)} over {total}"
    then = "" if config.schedule == "warmup_cosine" else f", then {config.schedule}"
    return f"{optimizer}{warmup_steps(config, steps):.0f} of {total} of warm-up{then}"


def _warmed_up(step: int, warmup: float, after: Factor, start: float | None) -> float:
    """The factor: a warm-up to 1, linear or (from `start`) half a cosine; then `after`."""
    if step >= warmup:
        return after(step - warmup)
    # Not 0 at the first step, which would have no effect.
    return (step + 1) / (warmup + 1) if start is None else _half_cosine(step / warmup, start, 1.0)


def _half_cosine(progress: float, first: float, last: float) -> float:
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))


def _after_warmup(config: OptimConfig, steps: Steps, length: float) -> Factor:
    """The factor of a named schedule, by steps since the warm-up, over `length` steps."""
    name, least = str(config.schedule), config.min_lr_ratio
    if name == "constant":
        return lambda step: 1.0
    if name == "linear":
        return lambda step: 1.0 - (1.0 - least) * min(1.0, step / length)
    if name == "onecycle":
        return lambda step: _half_cosine(step / length, 1.0, least)
    given = {key: _in_steps(value, steps) if key in IN_EPOCHS else value for key, value in _arguments(config).items()}
    parameters = inspect.signature(TIMM_SCHEDULES[name]).parameters
    if "t_initial" in parameters:
        given.setdefault("t_initial", length)
    if "lr_min" in parameters:
        given["lr_min"] = least
    one = torch.optim.SGD([nn.Parameter(torch.zeros(()))], lr=1.0)  # with rate 1, the learning rate is the factor
    try:
        schedule = TIMM_SCHEDULES[name](one, t_in_epochs=False, warmup_prefix=False, **given)
        schedule.step_update(0)
    except (TypeError, ValueError, AssertionError, ZeroDivisionError) as error:
        raise InputError(f"{KEY} is '{name}' with {config.schedule_args or 'no schedule_args'}: {error}") from error

    def factor(step: float) -> float:
        schedule.step_update(step)
        return float(one.param_groups[0]["lr"])

    return factor


def _in_steps(epochs: Any, steps: Steps) -> Any:
    """Converts epochs, one or several, to steps; anything else is returned unchanged, and timm rejects it."""
    if isinstance(epochs, list | tuple):
        return [_in_steps(each, steps) for each in epochs]
    return epochs * steps.per_epoch if isinstance(epochs, int | float) else epochs


def _of_class(optimizer: Optimizer, spec: dict[str, Any], steps: Steps) -> LRScheduler:
    """Builds a schedule of a class; passes the training's length and the rates if its signature has them."""
    cls: Any = load_class(spec["class_path"], LRScheduler, KEY)
    if "metrics" in inspect.signature(cls.step).parameters:
        raise InputError(f"{KEY}: {cls.__name__} follows a metric, and schedules are stepped after every step.")
    rates = [group["lr"] for group in optimizer.param_groups]
    parameters, arguments = inspect.signature(cls).parameters, init_args_of(spec)
    supplied = dict.fromkeys(TOTALS, steps.total) | {"max_lr": rates}
    given = {name: value for name, value in supplied.items() if name in parameters} | arguments
    try:
        schedule: LRScheduler = cls(optimizer, **given)
    except Exception as error:  # a custom class may raise anything
        raise InputError(
            f"{KEY}: {cls.__name__} cannot be built with {arguments or 'no arguments'}: {type(error).__name__}: {error}"
        ) from error
    check_initialized(schedule, KEY, "optimizer")
    _check_rates(schedule, 0)
    now = [group["lr"] for group in optimizer.param_groups]
    if any(not math.isclose(a * rates[0], now[0] * b, rel_tol=1e-6) for a, b in zip(now, rates, strict=True)):
        raise InputError(
            f"{KEY}: {cls.__name__} changes the ratios of the learning rates: layer_decay and head_lr would have no "
            f"effect. Remove its arguments with rates, or set layer_decay to 1 and head_lr to lr."
        )
    return schedule


def _arguments(config: OptimConfig) -> dict[str, Any]:
    return dict(config.schedule_args or {})


def _check_settings(config: OptimConfig) -> None:
    """Rejects an unknown name, and settings that would have no effect."""
    name, given = config.schedule, _arguments(config)
    is_class = isinstance(name, dict)
    if not is_class and name not in NAMES:
        raise InputError(
            f"{KEY} is '{name}'; it must be one of {', '.join(NAMES)}, or a class derived from "
            f"torch.optim.lr_scheduler.LRScheduler.{suggest(str(name), NAMES)}"
        )
    if given and (is_class or name not in TIMM_SCHEDULES):
        what = "a class takes its arguments from init_args" if is_class else f"'{name}' has none"
        raise InputError(f"model.optim.schedule_args is {given}, and {what}. Remove it.")
    scheduler = None if is_class else TIMM_SCHEDULES.get(str(name))
    known = set(inspect.signature(scheduler).parameters) - RESERVED if scheduler else set()
    if unknown := sorted(set(given) - known):
        raise InputError(
            f"model.optim.schedule_args: '{name}' has no argument '{unknown[0]}'.{suggest(unknown[0], sorted(known))}"
        )
    has_end = not is_class and name not in ("constant", "step", "multistep")
    if config.min_lr_ratio != OptimConfig.min_lr_ratio and not has_end:
        raise InputError(f"model.optim.min_lr_ratio has no effect with {KEY} {spec_name(name)}: remove it.")
    if is_class and config.warmup_epochs not in ("auto", 0):
        raise InputError(f"model.optim.warmup_epochs has no effect with {KEY} {spec_name(name)}: set it to auto or 0.")


def warmup_steps(config: OptimConfig, steps: Steps) -> float:
    """Optimiser steps of the warm-up.

    Raises:
        InputError: It is longer than the training: the configured rate would never be reached.
    """
    if config.warmup_epochs == "auto":
        return (ONECYCLE_WARMUP if config.schedule == "onecycle" else WARMUP_SHARE) * steps.total
    warmup = config.warmup_epochs * steps.per_epoch
    if warmup > steps.total:
        epochs = steps.total / steps.per_epoch
        raise InputError(
            f"model.optim.warmup_epochs is {config.warmup_epochs:g}, and training has {epochs:g} epochs: the "
            f"learning rate would never be reached. Reduce it."
        )
    return warmup


def warmup_cosine(step: int, warmup_steps: float, total_steps: int, min_ratio: float) -> float:
    """Factor on the learning rates: linear warm-up, then half a cosine down.

    Args:
        step: Optimiser steps done, from 0.
        warmup_steps: Steps until the full rate.
        total_steps: Steps of the whole training.
        min_ratio: The factor at the end.

    Returns:
        A factor in (0, 1].
    """
    length = max(1.0, total_steps - warmup_steps)
    return _warmed_up(step, warmup_steps, lambda since: _half_cosine(since / length, 1.0, min_ratio), None)
