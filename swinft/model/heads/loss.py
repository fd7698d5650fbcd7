"""Base class of custom losses, the argument `loss` of a head.

Shapes: B batch, K outputs.
"""

from collections.abc import Iterable

from torch import Tensor, nn

from swinft.errors import InputError, suggest
from swinft.model.class_spec import InitArgsMixin


class Loss(InitArgsMixin, nn.Module):
    """A custom loss, the argument `loss` of a head: one value per row.

    A subclass defines `forward`. In YAML, its arguments are given as `init_args`. Its parameters and buffers are part
    of the network. Its inputs are float32, even if the network computes in 16 bit.
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,).

        Args:
            logits: float32 (B, K), before softmax or sigmoid.
            target: float32 (B, K), encoded by the head: one-hot rows for classification, smoothed by `label_smoothing`;
                standardised numbers for regression; 0 and 1 for multilabel. All may be mixed by mixup and cutmix.
        """
        raise NotImplementedError


def check_loss(head: str, loss: str | Loss, named: Iterable[str]) -> None:
    """Checks the argument `loss` of a head.

    Raises:
        InputError: It is neither one of the names nor a `Loss`.
    """
    names = list(named)
    if isinstance(loss, Loss) or loss in names:
        return
    given = f"'{loss}'" if isinstance(loss, str) else f"a {type(loss).__name__}"
    hint = suggest(loss, names) if isinstance(loss, str) else ""
    raise InputError(
        f"{head}: loss is {given}; it must be {' or '.join(names)}, or an object of a class derived from swinft.Loss."
        f"{hint}"
    )


def refuse_weights(head: str, loss: str | Loss, name: str, weights: object) -> None:
    """Rejects class weights together with a custom loss, which would not use them.

    Raises:
        InputError: Both are given.
    """
    if isinstance(loss, Loss) and weights is not None:
        raise InputError(
            f"{head}: {name} acts only on the head's own loss, and loss is {type(loss).__name__}. Remove {name}, and "
            f"apply weights in the loss."
        )
