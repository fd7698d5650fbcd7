"""Error for NaN or infinite predictions: names the rows, the networks and the fix."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from swinft.errors import InputError, listed
from swinft.system.precision import Precision


@dataclass(frozen=True)
class Origin:
    """Names of rows and networks, and the fix, for the error message.

    Args:
        ids: Ids of all rows of the table.
        weights: File of each network.
        fix: How to compute in 32-true instead.
    """

    ids: Sequence[str]
    weights: Sequence[Path]
    fix: str


def check_finite(
    rows: Tensor, is_finite: Tensor, at_fault: Sequence[int], precision: Precision, origin: Origin | None
) -> None:
    """Raises an error if a prediction of a batch is NaN or infinite.

    Args:
        rows: Rows of the batch, int64 (B,).
        is_finite: Which of them have finite predictions, bool (B,).
        at_fault: Indices of the networks with other predictions.
        precision: The precision of the prediction.
        origin: Names of rows and networks; None to use their numbers.

    Raises:
        InputError: A prediction is not finite.
    """
    bad = rows[~is_finite].tolist()
    if not bad:
        return
    names = [origin.ids[row] for row in bad] if origin else [str(row) for row in bad]
    nets = [origin.weights[net].parent.name if origin else f"network {net}" for net in at_fault]
    what = f"{', '.join(nets)}: " if nets else ""
    fix = "Weights and precision are not the cause: check these images, and `decode` of the head."
    if precision != "32-true":
        reason = "the largest fp16 number is 65,504" if precision == "16-mixed" else "bf16 has 8 significant bits"
        fix = f"{reason}. {origin.fix if origin else 'Predict in 32-true.'}"
    raise InputError(
        f"{what}predictions of {len(bad)} of the {len(rows)} rows of a batch are NaN or infinite in {precision} (ids "
        f"{listed(names, 5)}). Nothing is written. {fix}"
    )
