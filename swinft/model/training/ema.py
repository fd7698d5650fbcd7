"""Exponential moving average (EMA) of the weights, used for validation, checkpoints and prediction."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

Pairs = list[tuple[nn.Module, nn.Module]]  # modules of the average, and the corresponding modules of the network


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
        decay: Weight of the old average per optimiser step, after its warm-up: 0.999 averages about 1,000 steps.
    """

    updates: Tensor

    def __init__(self, net: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = copy.deepcopy(net).requires_grad_(False).eval()
        self.decay = decay
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))
        self._num_updates: int | None = None  # on the CPU: reading the buffer would synchronise the device
        self._pairs: Pairs = []  # of the last network: iterating over its modules takes milliseconds

    def update(self, net: nn.Module) -> None:
        """Updates the average after an optimiser step. The decay warms up, for the sake of short trainings."""
        if self._num_updates is None:
            self._num_updates = int(self.updates)
        if not self._pairs or self._pairs[0][1] is not net:
            self._pairs = _pairs(self.module, net)
        _follow(self._pairs, min(self.decay, (1 + self._num_updates) / (10 + self._num_updates)))
        self._num_updates += 1
        self.updates.fill_(self._num_updates)

    def refresh_modules(self) -> None:
        """Makes the next update collect the modules again, in case some were replaced."""
        self._pairs = []

    def __getstate__(self) -> dict[str, Any]:
        """Without the pairs of modules: a copy averages another network."""
        return {**self.__dict__, "_pairs": []}

    def train(self, mode: bool = True) -> "AveragedWeights":
        """Stays in evaluation mode: it is never trained."""
        return super().train(False)
