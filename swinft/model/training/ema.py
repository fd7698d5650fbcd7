"""Exponential moving average (EMA) of the weights, used for validation, checkpoints and prediction."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from swinft.class_spec import errors_of
from swinft.errors import InputError
from swinft.ranges import INSIDE_UNIT, NOT_NEGATIVE, POSITIVE, check_ranges

Pairs = list[tuple[nn.Module, nn.Module]]  # modules of the average, and the corresponding modules of the network

WARMUPS = ("ratio", "power", "none")


@dataclass(frozen=True)
class EMAConfig:
    """How weights are averaged over the optimiser steps, and how the decay warms up.

    Args:
        decay: Share of the average that is kept per step, in (0, 1), once warmed up.
        warmup: What the decay is until it reaches `decay`, by the steps n that were averaged: `ratio` for (1 + n) /
            (10 + n), `power` for timm's 1 − (1 + n / `gamma`)^−`power`, `none` for `decay` from the first step on.
        gamma: Steps, above 0, by which `power` is stretched.
        power: Exponent of `power`, above 0: 2/3 reaches 0.999 after 31,600 steps, 3/4 after 10,000.
        start_steps: Steps at the start in which the average is a copy of the weights.
    """

    decay: float = 0.999
    warmup: Literal["ratio", "power", "none"] = "ratio"
    gamma: float = 1.0
    power: float = 2 / 3
    start_steps: int = 0

    def __post_init__(self) -> None:
        """Checks ranges, and that every setting acts."""
        ranges = {"decay": INSIDE_UNIT, "gamma": POSITIVE, "power": POSITIVE, "start_steps": NOT_NEGATIVE}
        check_ranges("model.ema_decay", vars(self), ranges)
        if self.warmup not in WARMUPS:
            raise InputError(f"model.ema_decay.warmup is {self.warmup!r}; it must be one of {', '.join(WARMUPS)}.")
        if self.warmup != "power" and (self.gamma, self.power) != (EMAConfig.gamma, EMAConfig.power):
            raise InputError(
                f"model.ema_decay.gamma and power do nothing with warmup {self.warmup}: remove them, or set warmup to "
                f"power."
            )

    @classmethod
    def of(cls, given: Any) -> "EMAConfig | None":
        """The settings of a decay alone, of a checkpoint's plain values, or as they are; None for no averaging.

        Raises:
            InputError: The decay is out of its range.
        """
        if given is None or isinstance(given, EMAConfig):
            return given
        if isinstance(given, Mapping):
            return cls(**given)
        check_ranges("model", {"ema_decay": given}, {"ema_decay": INSIDE_UNIT})
        return cls(given)

    def decay_at(self, updates: int) -> float:
        """Share of the average that is kept at a step, after so many others."""
        steps = updates - self.start_steps
        if steps < 0:
            return 0.0
        if self.warmup == "none":
            return self.decay
        ratio = (1 + steps) / (10 + steps)
        return min(self.decay, ratio if self.warmup == "ratio" else 1 - (1 + steps / self.gamma) ** -self.power)


def ema_update(averaged: nn.Module, current: nn.Module, decay: float) -> None:
    """Updates the averaged parameters from the current ones, and copies the buffers.

    Only floating-point parameters are averaged. An average of Swin's integer buffer `relative_position_index` would be
    truncated and select the wrong bias, and BatchNorm's running statistics are already averages.

    Args:
        averaged: Changed in place.
        current: A module of the same structure.
        decay: Weight of the old average, in 0–1.
    """
    _follow(_pairs(averaged, current), decay)


def _pairs(averaged: nn.Module, current: nn.Module) -> Pairs:
    return list(zip(averaged.modules(), current.modules(), strict=True))


@torch.no_grad()
def _follow(pairs: Pairs, decay: float) -> None:
    """Updates the averaged weights of modules, and copies their buffers."""
    averages: dict[Tensor, Tensor] = {}  # by the current weight, which several modules may share
    copies: dict[tuple[torch.dtype, torch.device], tuple[list[Tensor], list[Tensor]]] = {}
    for own, followed in pairs:
        for name, parameter in followed._parameters.items():
            if parameter is not None and parameter.is_floating_point():
                averages[parameter] = own._parameters[name]  # type: ignore[assignment]  # the same structure
        for name, buffer in followed._buffers.items():
            before = own._buffers.get(name)
            if buffer is None or before is None or _kind(before) != _kind(buffer):  # some are created in forward
                own._buffers[name] = None if buffer is None else buffer.clone()
            else:
                some = copies.setdefault((buffer.dtype, buffer.device), ([], []))
                some[0].append(before)
                some[1].append(buffer)
    # One kernel for all tensors: one for each would be hundreds of launches per step.
    if averages:
        torch._foreach_lerp_(list(averages.values()), list(averages), 1 - decay)
    # Also one kernel. Constant buffers cannot be skipped: nothing tells which they are, since BatchNorm's kernels write
    # its statistics without increasing their version.
    for befores, buffers in copies.values():
        torch._foreach_copy_(befores, buffers)


def _kind(tensor: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return tensor.shape, tensor.dtype, tensor.device


class AveragedWeights(nn.Module):
    """A frozen copy of a network with averaged weights.

    It is a submodule of the task, so it is moved, saved and resumed with it, and weights are never swapped.

    Args:
        net: The network to average.
        config: Decay and warm-up; a number is the decay after the default warm-up: 0.999 averages about 1,000 steps.
    """

    updates: Tensor

    def __init__(self, net: nn.Module, config: EMAConfig | float) -> None:
        super().__init__()
        with errors_of("the network cannot be copied, for averaged weights (model.ema_decay)"):
            self.module = copy.deepcopy(net).requires_grad_(False).eval()
        self.config = config if isinstance(config, EMAConfig) else EMAConfig(config)
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self._num_updates: int | None = None  # on the CPU: reading the buffer would synchronise the device
        self._pairs: Pairs = []  # of the last network: iterating over its modules takes milliseconds

    def update(self, net: nn.Module) -> None:
        """Updates the average after an optimiser step. The decay warms up, for the sake of short trainings."""
        if self._num_updates is None:
            self._num_updates = int(self.updates)
        if not self._pairs or self._pairs[0][1] is not net:
            self._pairs = _pairs(self.module, net)
        _follow(self._pairs, self.config.decay_at(self._num_updates))
        self._num_updates += 1
        self.updates.fill_(self._num_updates)

    def copy_buffers(self, net: nn.Module) -> None:
        """Copies the buffers of the network alone, as after its image size was changed."""
        _follow(_pairs(self.module, net), 1.0)

    def refresh_modules(self) -> None:
        """Makes the next update collect the modules again, in case some were replaced."""
        self._pairs = []

    def _load_from_state_dict(self, *given: Any) -> None:
        """Counts on from the steps of what is loaded, also where this average has counted others."""
        super()._load_from_state_dict(*given)
        self._num_updates = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the pairs of modules: a copy averages another network."""
        return {**self.__dict__, "_pairs": []}

    def train(self, mode: bool = True) -> "AveragedWeights":
        """Stays in evaluation mode: it is never trained."""
        return super().train(False)
