"""Counts the operations of a network, by torch's own counter."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop, sdpa_flop

aten: Any = torch.ops.aten
# Of the CPU, which torch's counter leaves out.
ON_CPU = {
    aten._scaled_dot_product_flash_attention_for_cpu: sdpa_flop,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: sdpa_backward_flop,
}


def counter() -> FlopCounterMode:
    """Inside, the operations of matrix products, convolutions and attention are counted.

    A multiplication with its addition counts as two operations.
    """
    return FlopCounterMode(display=False, custom_mapping=ON_CPU)


@contextmanager
def operations(network: nn.Module) -> Iterator[FlopCounterMode]:
    """Inside, the operations of forward passes are counted, and nothing is differentiated.

    Args:
        network: What runs inside. Its parameters need no gradient there: torch's counter fails on modules that are
            given one as an input, as class tokens and learnt queries are.
    """
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    with ExitStack() as stack:
        stack.callback(lambda: [parameter.requires_grad_(True) for parameter in trained])
        for parameter in trained:
            parameter.requires_grad_(False)
        if any(isinstance(module, nn.RNNBase) for module in network.modules()):
            # oneDNN's recurrent layers are one operation, which torch does not count.
            stack.enter_context(torch.backends.mkldnn.flags(enabled=False))
        stack.enter_context(torch.no_grad())
        yield stack.enter_context(counter())
