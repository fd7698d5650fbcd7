"""Room for predictions: what those of all rows need in memory and on the disk, known before anything is trained.

Shapes: N rows, K outputs.
"""

from collections.abc import Sequence

from swinft.errors import InputError
from swinft.model.metrics import Metric
from swinft.model.scoring import takes_float32
from swinft.system.limits import format_bytes, total_memory

FLOAT = 4  # bytes of a prediction
TEXT = 12  # bytes of a prediction in a CSV: nine digits, mostly after zeros
COPIES = 2  # of all predictions, while they are joined, scored and drawn


def oof_memory(rows: int, outputs: int, seeds: int, metrics: Sequence[Metric], are_classes: bool) -> int:
    """Bytes of memory that a run needs to join and score its out-of-fold predictions.

    Args:
        rows: N, those of the training table.
        outputs: K.
        seeds: Trainings of each fold, whose predictions are averaged.
        metrics: What scores them; most of those of classes need no copy in float64.
        are_classes: Whether they are of classes.
    """
    is_float32 = are_classes and all(map(takes_float32, metrics))
    copies = COPIES + (0 if is_float32 else 2) + (seeds if seeds > 1 else 0)
    return FLOAT * rows * outputs * copies


def oof_bytes(rows: int, outputs: int, seeds: int, views: int) -> int:
    """Bytes on the disk of the folds' and of all out-of-fold predictions, with those of each view."""
    by_view = FLOAT * views if views > 1 else 0
    return rows * outputs * ((TEXT + by_view) * seeds + TEXT)


def check_memory(rows: int, outputs: int, seeds: int, metrics: Sequence[Metric], are_classes: bool) -> None:
    """Checks that out-of-fold predictions can be in memory; arguments as of `oof_memory`.

    Raises:
        InputError: They cannot.
    """
    needed = oof_memory(rows, outputs, seeds, metrics, are_classes)
    most = int(rows * total_memory() / max(1, needed))
    refuse_too_much(
        needed,
        f"the out-of-fold predictions of {rows:,} rows and {outputs:,} outputs",
        f"Let at most {most:,} rows have some: move the others into a table of data.folds.extra, which every fold "
        f"trains on and none scores. Or join rare classes into one, or use a machine with more memory.",
    )


def refuse_too_much(needed: int, what: str, fix: str) -> None:
    """Refuses what cannot be in this machine's memory.

    Args:
        needed: Bytes.
        what: What takes them, in the plural.
        fix: What to do, as a sentence.

    Raises:
        InputError: It cannot.
    """
    if needed > (total := total_memory()):
        raise InputError(
            f"{what} take {format_bytes(needed)} of memory, and this machine has {format_bytes(total)}. {fix}"
        )
