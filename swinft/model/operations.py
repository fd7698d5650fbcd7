"""Counts the operations of a network's forward pass, by torch's own counter."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


@contextmanager
def operations(network: nn.Module) -> Iterator[FlopCounterMode]:
    """Inside, the operations of matrix products and convolutions are counted; nothing is differentiated.

    A multiplication with its addition counts as two operations.

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
        yield stack.enter_context(FlopCounterMode(display=False))
