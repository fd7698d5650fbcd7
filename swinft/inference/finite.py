"""Predictions that are no numbers: which rows, whose network, and what to do about it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from swinft.errors import InputError, listed
from swinft.system.precision import Precision


@dataclass(frozen=True)
class Origin:
    """What is predicted and with what, to be named where predictions are no numbers.

    Args:
        ids: Of all rows of the table.
        weights: File of each network.
        cure: How to compute in 32-true instead.
    """

    ids: Sequence[str]
    weights: Sequence[Path]
    cure: str


def check_finite(
    rows: Tensor, is_finite: Tensor, at_fault: Sequence[int], precision: Precision, origin: Origin | None
) -> None:
    """Refuses a batch in which a prediction is NaN or infinite.

    Args:
        rows: Of the batch, int64 (B,).
        is_finite: Which of them have numbers, bool (B,).
        at_fault: Networks whose predictions are none, by their position.
        precision: What was computed in.
        origin: Names rows and networks; None to number them.

    Raises:
        InputError: Always, unless all are finite.
    """
    bad = rows[~is_finite].tolist()
    if not bad:
        return
    names = [origin.ids[row] for row in bad] if origin else [str(row) for row in bad]
    nets = [origin.weights[net].parent.name if origin else f"network {net}" for net in at_fault]
    what = f"{', '.join(nets)}: " if nets else ""
    cure = "The weights and the number format are no reason: look at these images, and at how the head decodes."
    if precision != "32-true":
        reason = "fp16 ends at 65,504" if precision == "16-mixed" else "bf16 has 8 significant bits"
        cure = f"{reason}. {origin.cure if origin else 'Predict in 32-true.'}"
    raise InputError(
        f"{what}predictions of {len(bad)} of the {len(rows)} rows of a batch are NaN or infinite in {precision} (ids "
        f"{listed(names, 5)}). Nothing is written. {cure}"
    )
