"""A network as it is explained: in evaluation mode, with gradients, and computed step by step."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def prepared(net: nn.Module) -> Iterator[None]:
    """Inside, a network is in evaluation mode, keeps its activations and is not compiled; it is restored afterwards.

    Hooks do not see into compiled code, and a checkpointed layer has no activations that a gradient could reach.
    """
    modules: list[Any] = list(net.modules())
    is_training = [module.training for module in modules]
    compiled = [(module, module._compiled_call_impl) for module in modules if module._compiled_call_impl is not None]
    recomputing = [module for module in modules if getattr(module, "grad_checkpointing", False) is True]
    try:
        net.eval()
        for module, _ in compiled:
            module._compiled_call_impl = None
        for module in recomputing:
            module.grad_checkpointing = False
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        for module in recomputing:
            module.grad_checkpointing = True
        for module, call in compiled:
            module._compiled_call_impl = call
        for module, was_training in zip(modules, is_training, strict=True):
            module.training = was_training
