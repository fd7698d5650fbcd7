"""What is explained: a number of each row, of the logits or the predictions of one output.

Shapes: B rows, K outputs, (H, W) pixels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from swinft.errors import InputError, number_of
from swinft.model.network import ImageModel


def scores(network: ImageModel, logits: Tensor, in_units: bool = False) -> Tensor:
    """A number of each output that a higher prediction raises, (B, K); of maps (B, K, H, W).

    Args:
        network: The network.
        logits: What it returned, (B, …).
        in_units: Take predictions for outputs that are no probabilities, in the units of the competition.

    Returns:
        The logits where each output has one, as their gradient does not vanish where a network is certain; else the
        predictions.
    """
    head = network.head
    has_own = logits.ndim == (4 if head.reads == "maps" else 2) and logits.shape[1] >= head.num_outputs
    if has_own and not (in_units and not head.gives_probabilities):
        return logits[:, : head.num_outputs].float()
    return head.decode(logits).float()


def chosen_outputs(network: ImageModel, logits: Tensor, outputs: Tensor | Sequence[int] | int | None) -> Tensor:
    """The output of each row, int64 (B,).

    Args:
        network: The network.
        logits: What it returned.
        outputs: Those of the rows, or one for all; None for the predicted ones, of the highest score.

    Raises:
        InputError: There is no such output, or not one for each row.
    """
    count = network.head.num_outputs
    if outputs is None:
        found = scores(network, logits.detach())
        return found.flatten(2).mean(2).argmax(1) if found.ndim == 4 else found.argmax(1)
    given = torch.as_tensor(outputs, dtype=torch.int64, device=logits.device)
    given = given.expand(len(logits)) if given.ndim == 0 else given
    if given.shape != (len(logits),) or bool((given < 0).any()) or bool((given >= count).any()):
        raise InputError(
            f"outputs is {given.tolist()}; give one number from 0 to {count - 1} for each of "
            f"{number_of(len(logits), 'row')}."
        )
    return given


def objective(
    network: ImageModel, logits: Tensor, outputs: Tensor, where: Tensor | None = None, in_units: bool = False
) -> Tensor:
    """The score of one output of each row, (B,); of maps its mean over a mask.

    Args:
        network: The network.
        logits: What it returned.
        outputs: The outputs, int64 (B,).
        where: Pixels of a mask, bool (B, H, W), for maps; None for those that the network decides are in it. An empty
            mask stands for the whole image.
        in_units: As in `scores`.
    """
    found = scores(network, logits, in_units)
    own = found[torch.arange(len(found), device=found.device), outputs.to(found.device)]
    if own.ndim == 1:
        return own
    mask = mask_of(network, logits, outputs) if where is None else where
    return (own * mask).flatten(1).sum(1) / mask.flatten(1).sum(1)


def mask_of(network: ImageModel, logits: Tensor, outputs: Tensor) -> Tensor:
    """The pixels that a network decides are in the mask of an output, bool (B, H, W); all pixels if there are none."""
    head = network.head
    decided = head.decided(head.decode(logits.detach()))  # type: ignore[operator]  # a head of maps
    own: Tensor = decided[torch.arange(len(decided), device=decided.device), outputs.to(decided.device)]
    return own | ~own.flatten(1).any(1).view(-1, 1, 1)
