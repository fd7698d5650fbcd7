"""Base class of losses, built-in and custom, that a head can use.

Shapes: B batch, N training rows, K outputs.
"""

from collections.abc import Iterable
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from swinft.class_spec import InitArgsMixin, check_initialized
from swinft.errors import InputError, suggest


class Loss(InitArgsMixin, nn.Module):
    """Base class of losses, the argument `loss` of a head: one value per row.

    A subclass defines `forward`. In YAML, its arguments are given as `init_args`. Its parameters and buffers are part
    of the network. Its inputs are float32, even if the network computes in 16 bit.
    """

    kinds: ClassVar[tuple[str, ...]] = ()
    """The kinds of target that it is for; empty for any."""

    takes_weights: ClassVar[bool] = False
    """Whether the head's `class_weights` may multiply the loss of each row."""

    compares_rows: ClassVar[bool] = False
    """Whether the loss of a row depends on the other rows of the batch; every row must then have every target."""

    is_per_target: ClassVar[bool] = False
    """Whether it is the mean over the K targets of losses that can be computed alone, from logits and targets (B, 1).

    `target_weights` of a head needs it.
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,).

        Args:
            logits: float32 (B, K), before softmax or sigmoid.
            target: float32 (B, K), encoded by the head: one-hot rows for classification, smoothed by `label_smoothing`;
                standardised numbers for regression; 0 and 1 for multilabel. All may be mixed by mixup and cutmix.
        """
        raise NotImplementedError

    def prepare(self, num_outputs: int) -> None:
        """Called once by the head, to register buffers whose size depends on K."""

    def initialize(self, target: Tensor) -> None:
        """Called once before training with the targets of the fold's training rows, in the competition's units.

        Args:
            target: int64 (N,) for classification, else float (N, K).
        """

    @property
    def learns_from_targets(self) -> bool:
        """Whether `initialize` must be called before training."""
        return type(self).initialize is not Loss.initialize

    def probabilities(self, logits: Tensor) -> Tensor | None:
        """Logits (B, K) to class probabilities (B, K); None for their softmax."""
        return None

    def decode_rule(self) -> dict[str, Any] | None:
        """`probabilities` as plain values, like a head's `decode_rule`; None for a softmax."""
        return None


def check_loss(head: str, loss: str | Loss, named: Iterable[str], kind: str) -> None:
    """Checks the argument `loss` of a head.

    Raises:
        InputError: It is neither a built-in loss nor a `Loss`, is for another kind of target, or its constructor does
            not call that of `Loss`.
    """
    names = list(named)
    if isinstance(loss, Loss):
        check_initialized(loss, f"{head}: loss")
        if isinstance(kinds := cast(Any, loss.kinds), str):
            raise InputError(f"{head}: loss is {type(loss).__name__}, whose `kinds` is '{kinds}': write a tuple.")
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
    """Checks that the loss uses the weights.

    Raises:
        InputError: It does not.
    """
    if loss is not None and weights is not None and not loss.takes_weights:
        raise InputError(
            f"{head}: {name} acts only on the head's own loss, and loss is {type(loss).__name__}. Remove {name}, and "
            f"apply weights in the loss."
        )


def class_counts(target: Tensor, num_outputs: int) -> Tensor:
    """Number of rows of each class or label, float64 (K,) on the CPU; for soft targets, their sums.

    Args:
        target: Class indices int64 (N,); or labels or soft targets, float (N, K), NaN if missing.
        num_outputs: K.
    """
    if target.ndim == 1:
        return torch.bincount(target.cpu(), minlength=num_outputs).double()
    return target.cpu().double().nansum(0)
