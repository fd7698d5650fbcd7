"""The base class of losses, a user's own included, that a head takes in the place of the one that it computes itself.

Shapes: B batch, N training rows, K outputs.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from swinft.errors import InputError, suggest
from swinft.model.class_spec import InitArgsMixin


class Loss(InitArgsMixin, nn.Module):
    """A custom loss, the argument `loss` of a head: one value per row.

    A subclass defines `forward`. In YAML, its arguments are given as `init_args`. Its parameters and buffers are part
    of the network. Its inputs are float32, even if the network computes in 16 bit.
    """

    kinds: ClassVar[tuple[str, ...]] = ()
    """Kinds of target whose predictions mean what it learns; empty for any."""

    takes_weights: ClassVar[bool] = False
    """Whether the head's `class_weights` may multiply the loss of a row by the weight of its class."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,).

        Args:
            logits: float32 (B, K), before softmax or sigmoid.
            target: float32 (B, K), encoded by the head: one-hot rows for classification, smoothed by `label_smoothing`;
                standardised numbers for regression; 0 and 1 for multilabel. All may be mixed by mixup and cutmix.
        """
        raise NotImplementedError

    def prepare(self, num_outputs: int) -> None:
        """Called once when its head is made: buffers of K numbers are registered here."""

    def initialize(self, target: Tensor) -> None:
        """Called once before training with the targets of the fold's training rows, as the table has them.

        Args:
            target: int64 (N,) for classification, else float (N, K).
        """

    @property
    def learns_from_targets(self) -> bool:
        """Whether `initialize` must be called before training."""
        return type(self).initialize is not Loss.initialize

    def probabilities(self, logits: Tensor) -> Tensor | None:
        """What its logits (B, K) say of the classes (B, K) where that is not their softmax; None where it is."""
        return None

    def decode_rule(self) -> dict[str, Any] | None:
        """What `probabilities` does, as plain values; None for a softmax."""
        return None


def check_loss(head: str, loss: str | Loss, named: Iterable[str], kind: str) -> None:
    """Checks the argument `loss` of a head.

    Raises:
        InputError: It is neither one of the names nor a `Loss`, or one for another kind of target.
    """
    names = list(named)
    if isinstance(loss, Loss):
        if loss.kinds and kind not in loss.kinds:
            raise InputError(
                f"{head}: loss is {type(loss).__name__}, which is for {' and '.join(loss.kinds)}; for {kind} it must "
                f"be {' or '.join(names)}, or another class."
            )
        return
    if loss in names:
        return
    given = f"'{loss}'" if isinstance(loss, str) else f"a {type(loss).__name__}"
    hint = suggest(loss, names) if isinstance(loss, str) else ""
    raise InputError(
        f"{head}: loss is {given}; it must be {' or '.join(names)}, or an object of a class derived from swinft.Loss."
        f"{hint}"
    )


def refuse_weights(head: str, loss: Loss | None, name: str, weights: object) -> None:
    """Refuses weights that another loss than the head's own would never see.

    Raises:
        InputError: Both are given.
    """
    if loss is not None and weights is not None and not loss.takes_weights:
        raise InputError(
            f"{head}: {name} acts only on the head's own loss, and loss is {type(loss).__name__}. Remove {name}, and "
            f"apply weights in the loss."
        )


def class_counts(target: Tensor, num_outputs: int) -> Tensor:
    """Rows of each class or label, float64 (K,) on the CPU; of soft targets their sums.

    Args:
        target: Class indices int64 (N,), or shares, or 0 and 1, float (N, K).
        num_outputs: K.
    """
    if target.ndim == 1:
        return torch.bincount(target.cpu(), minlength=num_outputs).double()
    return target.cpu().double().nansum(0)
