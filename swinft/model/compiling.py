"""When a network is compiled with `torch.compile`, and what it is given then.

Shapes: B batch.
"""

import time
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor

CompilePolicy = bool | Literal["auto"]  # the settings `model.compute.compile` and `predict.compile`

# Compiling takes a minute or two, and a step of Swin is then about a third shorter.
COMPILED_STEPS = 2000


def should_compile(
    policy: CompilePolicy,
    count: int,
    least: int,
    unit: str,
    device: torch.device,
    say: Callable[[str], None] = print,
) -> bool:
    """Whether a training or a prediction is compiled.

    Args:
        policy: `auto` says what it decides, and by what rule: on CUDA, where it is long enough.
        count: Length of the work.
        least: Length from which on compiling pays.
        unit: Of both, in the plural.
        device: Where the work is done.
        say: Prints.
    """
    if policy != "auto":
        return policy
    pays = device.type == "cuda" and count >= least
    rule = f"compiled on CUDA from {least} {unit} on"
    say(f"{'compiling' if pays else 'not compiled'}: {count} {unit} on {device.type}, {rule}")
    return pays


def graphs_compiled() -> int:
    """How many graphs `torch.compile` has compiled in this process."""
    from torch._dynamo.utils import counters  # takes seconds to import

    return int(counters["stats"]["unique_graphs"])


def pad_batch(tensors: list[Tensor], size: int) -> list[Tensor]:
    """Tensors (B, …) of one batch as (size, …), in the same memory format: their first row again behind the others."""
    missing = size - len(tensors[0])
    return [torch.cat([each, *[each[:1]] * missing]) for each in tensors] if missing else tensors


class CompileState:
    """Whether a task's networks are compiled, and what was said of it."""

    def __init__(self) -> None:
        self.is_on = False
        self._graphs = self._size = 0

    def start(self, nets: Iterable[Any]) -> None:
        """Has the backbones of networks compiled when they are called first, in place: their weights keep names."""
        self.is_on, self._graphs = True, graphs_compiled()
        for net in nets:
            net.backbone.compile()

    def padded(self, tensors: list[Tensor]) -> list[Tensor]:
        """Tensors (B, …) as full batches where they are compiled: another size would be compiled again."""
        self._size = max(self._size, len(tensors[0])) if self.is_on else len(tensors[0])
        return pad_batch(tensors, self._size)

    def say(self, what: str, started: float, say: Callable[[str], None]) -> None:
        """Says what took so long, each time that something was compiled: training and evaluation are two graphs."""
        if self.is_on and graphs_compiled() > self._graphs:
            self._graphs = graphs_compiled()
            say(f"compiled, and the first {what} done, in {time.perf_counter() - started:.0f} s")
