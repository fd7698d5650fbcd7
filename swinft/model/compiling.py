"""When a network is compiled with `torch.compile`, and what it is given then.

Shapes: B batch.
"""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

CompilePolicy = bool | Literal["auto"]  # the settings `model.compile` and `predict.compile`

# Compiling takes a minute or two, and a step of Swin is then about a third shorter.
COMPILED_STEPS = 2000


def compiles(
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


def filled_up(tensors: list[Tensor], size: int) -> list[Tensor]:
    """Tensors (B, …) of one batch as (size, …), in the same memory format: their first row again behind the others."""
    missing = size - len(tensors[0])
    return [torch.cat([each, *[each[:1]] * missing]) for each in tensors] if missing else tensors
