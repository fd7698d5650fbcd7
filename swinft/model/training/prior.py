"""Corrects the loss for the class frequencies of a sampler (logit adjustment, arXiv 2007.07314).

The change of the log odds is added to the logits in the loss only. The network itself then predicts for the frequencies
of the table, and prediction needs no correction.

Shapes: B batch, K outputs.
"""

from typing import Any

import torch
from torch import Tensor

from swinft.errors import InputError


def shift_of(trainer: Any, device: torch.device) -> Tensor | None:
    """Change of the log odds of each output by the datamodule's sampler, (K,); None for no correction."""
    shift = getattr(getattr(trainer, "datamodule", None), "prior_shift", None)
    return None if shift is None else torch.as_tensor(shift, device=device)


def shifted(logits: Tensor, shift: Tensor | None) -> Tensor:
    """The logits for the loss.

    Args:
        logits: Logits of the network, (B, K).
        shift: Change of the log odds of each output by the sampler, (K,); None for no correction.

    Raises:
        InputError: The head's logits are not one per output.
    """
    if shift is None:
        return logits
    if logits.shape[1:] != shift.shape:
        raise InputError(
            f"data.loading.sampler: correct_prior adds to one logit per output, {tuple(shift.shape)}, and the head "
            f"returned {tuple(logits.shape[1:])} per row. Remove correct_prior, or choose another head."
        )
    return logits + shift
