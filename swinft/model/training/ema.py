"""Averaged weights (exponential moving average): validated, saved and predicted from."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

Pairs = list[tuple[nn.Module, nn.Module]]  # modules of an average, and those that they follow


def ema_update(averaged: nn.Module, current: nn.Module, decay: float) -> None:
    """Moves the averaged parameters towards the current ones; copies everything that cannot be averaged.

    Only floating-point parameters are averaged. Buffers are copied: an average of Swin's integer
    `relative_position_index` is truncated on the way back and points to the wrong bias, and an average of BatchNorm's
    running statistics would be an average of averages.

    Args:
        averaged: Changed in place.
        current: A module of the same structure.
        decay: Share of the average that is kept, in 0–1.
    """
    _follow(_pairs(averaged, current), decay)


def _pairs(averaged: nn.Module, current: nn.Module) -> Pairs:
    return list(zip(averaged.modules(), current.modules(), strict=True))


@torch.no_grad()
def _follow(pairs: Pairs, decay: float) -> None:
    """Moves the weights of modules, and copies their buffers."""
    averages: dict[Tensor, Tensor] = {}  # by the weight that they follow, which several modules may share
    copies: dict[tuple[torch.dtype, torch.device], tuple[list[Tensor], list[Tensor]]] = {}
    for own, followed in pairs:
        for name, parameter in followed._parameters.items():
            if parameter is not None and parameter.is_floating_point():
                averages[parameter] = own._parameters[name]  # type: ignore[assignment]  # the same structure
        for name, buffer in followed._buffers.items():
            before = own._buffers.get(name)
            if buffer is None or before is None or _kind(before) != _kind(buffer):  # some are made in the first forward
                own._buffers[name] = None if buffer is None else buffer.clone()
            else:
                some = copies.setdefault((buffer.dtype, buffer.device), ([], []))
                some[0].append(before)
                some[1].append(buffer)
    # One kernel for all tensors instead of one each: hundreds of launches per step otherwise.
    if averages:
        torch._foreach_lerp_(list(averages.values()), list(averages), 1 - decay)
    # One kernel for each of these too. Those that never change are not left out: nothing says which they are, for
    # BatchNorm's kernels write its statistics without counting up their version.
    for befores, buffers in copies.values():
        torch._foreach_copy_(befores, buffers)


def _kind(tensor: Tensor) -> tuple[torch.Size, torch.dtype, torch.device]:
    return tensor.shape, tensor.dtype, tensor.device


class AveragedWeights(nn.Module):
    """A frozen copy of a network whose weights follow it.

    Being a submodule of the task, it moves, saves and resumes with it, and no weights are ever swapped.

    Args:
        net: The network to follow.
        decay: Share of the average that is kept per optimiser step, once warmed up: 0.999 averages about 1,000 steps.
    """

    updates: Tensor

    def __init__(self, net: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = copy.deepcopy(net).requires_grad_(False).eval()
        self.decay = decay
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self._num_updates: int | None = None  # on the CPU: reading the buffer every step would wait for the device
        self._pairs: Pairs = []  # of the network that was followed last: walking through it takes milliseconds

    def update(self, net: nn.Module) -> None:
        """Follows one optimiser step. The decay warms up, so that a short training is not held at its first weights."""
        if self._num_updates is None:
            self._num_updates = int(self.updates)
        if not self._pairs or self._pairs[0][1] is not net:
            self._pairs = _pairs(self.module, net)
        _follow(self._pairs, min(self.decay, (1 + self._num_updates) / (10 + self._num_updates)))
        self._num_updates += 1
        self.updates.fill_(self._num_updates)

    def refresh_modules(self) -> None:
        """Has the next update look for modules that were put in the place of others."""
        self._pairs = []

    def __getstate__(self) -> dict[str, Any]:
        """Without the network that is followed: a copy follows another one."""
        return {**self.__dict__, "_pairs": []}

    def train(self, mode: bool = True) -> "AveragedWeights":
        """Stays in evaluation mode: it is never trained."""
        return super().train(False)
