"""When to compile a network with `torch.compile`, and how to keep its input shapes constant.

Shapes: B batch.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor

CompilePolicy = bool | Literal["auto"]  # the settings `model.compute.compile` and `predict.compile`

# Compilation takes a minute or two, and shortens a training step of Swin by about a third.
COMPILED_STEPS = 2000


def should_compile(
    policy: CompilePolicy,
    count: int,
    least: int,
    unit: str,
    device: torch.device,
    say: Callable[[str], None] = print,
) -> bool:
    """Whether to compile for a training or a prediction.

    Args:
        policy: The setting; `auto` compiles long jobs on CUDA, and prints its decision and the rule.
        count: Number of steps or forward passes.
        least: The smallest number for which `auto` compiles.
        unit: The unit of both, in the plural.
        device: Where the network runs.
        say: Prints a line.
    """
    if policy != "auto":
        return policy
    pays = device.type == "cuda" and count >= least
    rule = f"compiled on CUDA from {least} {unit} on"
    say(f"{'compiling' if pays else 'not compiled'}: {count} {unit} on {device.type}, {rule}")
    return pays


def graphs_compiled() -> int:
    """Number of graphs that `torch.compile` has compiled in this process."""
    from torch._dynamo.utils import counters  # takes seconds to import

    return int(counters["stats"]["unique_graphs"])


def pad_batch(tensors: list[Tensor], size: int) -> list[Tensor]:
    """Pads the tensors (B, …) of a batch to (size, …) by repeating their first row; the memory format is preserved."""
    missing = size - len(tensors[0])
    return [torch.cat([each, *[each[:1]] * missing]) for each in tensors] if missing else tensors


class CompileState:
    """Whether a task's networks are compiled, and how many graphs have been reported."""

    def __init__(self) -> None:
        self.is_on = False
        self._graphs = self._size = 0

    def start(self, nets: Iterable[Any]) -> None:
        """Compiles the backbones in place, at their first call; the names of their weights do not change."""
        self.is_on, self._graphs = True, graphs_compiled()
        for net in nets:
            net.backbone.compile()

    def padded(self, tensors: list[Tensor]) -> list[Tensor]:
        """Pads tensors (B, …) to full batches if the network is compiled: another size would be compiled again."""
        self._size = max(self._size, len(tensors[0])) if self.is_on else len(tensors[0])
        return pad_batch(tensors, self._size)

    def say(self, what: str, started: float, say: Callable[[str], None]) -> None:
        """Prints the time after each compilation; training and evaluation compile separate graphs."""
        if self.is_on and graphs_compiled() > self._graphs:
            self._graphs = graphs_compiled()
            say(f"compiled, and the first {what} done, in {time.perf_counter() - started:.0f} s")
