"""The base class of a loss of one's own, which a head takes in the place of a named one.

Shapes: B batch, K outputs.
"""

from collections.abc import Iterable

from torch import Tensor, nn

from swinft.errors import InputError, suggest
from swinft.model.class_spec import InitArgsMixin


class Loss(InitArgsMixin, nn.Module):
    """Compares logits with targets, row by row: the argument `loss` of a head.

    A subclass gives `forward`. Its own arguments come from `init_args` in YAML; its parameters and buffers are part of
    the network. It works in float32, also where the network computes in 16 bit.
    """

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Loss of every row (B,).

        Args:
            logits: float32 (B, K), before softmax or sigmoid.
            target: float32 (B, K), as the head encodes it: for classification one-hot rows, smoothed by
                `label_smoothing` and mixed by mixup and cutmix; for regression standardised numbers; for multilabel
                0 and 1, mixed as well.
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
    """Refuses weights that a loss of one's own would never see.

    Raises:
        InputError: There are both.
    """
    if isinstance(loss, Loss) and weights is not None:
        raise InputError(
            f"{head}: {name} weights the head's own loss, and loss is {type(loss).__name__}, which knows nothing of "
            f"it. Remove {name}, and weight in the loss."
        )
