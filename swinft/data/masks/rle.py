"""Run-length encoding of masks, as in Kaggle's CSVs: pairs of start and length, starts counted from 1.

Shapes: R runs, (H, W) image size.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from swinft.errors import number_of

Order = Literal["columns", "rows"]
Runs = NDArray[np.int64]  # (R, 2): start, counted from 0, and length, in the order of the pixels
Mask = NDArray[np.bool_]

# A pixel that counts neither in the loss nor in a score, in planes of masks and in the `target` of a batch; otherwise
# these are 0 and 1. `swinft.model.heads.segmentation` has the same number.
IGNORED = 255
NUMPY_ORDER: dict[Order, Literal["F", "C"]] = {"columns": "F", "rows": "C"}
LARGEST = 2**40  # pixels; a longer number is no position in an image


def encode(mask: NDArray[np.generic], order: Order = "columns") -> Runs:
    """The runs of a mask: as few as possible, sorted.

    Args:
        mask: (H, W); what is not 0 is in the mask.
        order: Pixels are counted down the first column, then the second (`columns`), or along the rows.
    """
    flat = (mask != 0).ravel(order=NUMPY_ORDER[order]).view(np.int8)
    edges = np.flatnonzero(np.diff(flat, prepend=np.int8(0), append=np.int8(0)))
    return np.stack([edges[::2], edges[1::2] - edges[::2]], axis=1).astype(np.int64)


def decode(runs: Runs, shape: tuple[int, int], order: Order = "columns") -> Mask:
    """The mask of runs, bool (H, W).

    Args:
        runs: Sorted, without overlap, inside the image.
        shape: (H, W).
        order: As in `encode`.

    Raises:
        ValueError: They are not.
    """
    if problem := runs_problem(runs, shape):
        raise ValueError(problem)
    # Lengths of what is outside and inside of the mask, in turn.
    bounds = np.concatenate([[0], np.stack([runs[:, 0], runs.sum(1)], axis=1).ravel(), [shape[0] * shape[1]]])
    flat = np.repeat(np.arange(len(bounds) - 1) % 2 == 1, np.diff(bounds))
    return flat.reshape(shape, order=NUMPY_ORDER[order])


def parse(text: str) -> Runs:
    """The runs in a cell; none for an empty cell.

    Raises:
        ValueError: It is no run-length encoding; the message is the end of a sentence about the cell.
    """
    words = text.split()
    if wrong := next((word for word in words if not (word.isascii() and word.isdigit())), None):
        raise ValueError(f"has {_short(wrong)}, which is no whole number from 1")
    if len(words) % 2:
        raise ValueError(f"has {len(words)} numbers; starts and lengths come in pairs")
    numbers = [int(word) for word in words]
    if large := next((number for number in numbers if number > LARGEST), None):
        raise ValueError(f"has the number {_short(str(large))}, which is no position in an image")
    runs = np.array(numbers, dtype=np.int64).reshape(-1, 2)
    if (runs < 1).any():
        raise ValueError("has a 0; starts are counted from 1, and a run has at least one pixel")
    runs[:, 0] -= 1
    if problem := runs_problem(runs):
        raise ValueError(problem)
    return runs


def runs_problem(runs: Runs, shape: tuple[int, int] | None = None) -> str:
    """What is wrong with runs, as the end of a sentence; empty if nothing is.

    Args:
        runs: Starts from 0, and lengths.
        shape: Height and width of the image, if known.
    """
    ends = runs.sum(1)
    if (runs[1:, 0] < runs[:-1, 0]).any():
        return "has runs that are not sorted by their starts"
    if (overlap := np.flatnonzero(runs[1:, 0] < ends[:-1])).size:
        first = int(overlap[0])
        return f"has overlapping runs: {_run(runs[first])} and {_run(runs[first + 1])}"
    if shape is not None and len(runs) and ends[-1] > shape[0] * shape[1]:
        return (
            f"has the run {_run(runs[-1])}, which ends at {ends[-1]}, and the image has {shape[0]} x {shape[1]} = "
            f"{shape[0] * shape[1]} pixels"
        )
    return ""


def classes_problem(of_classes: Sequence[Runs], shape: tuple[int, int], is_complete: bool, num_ignored: int = 0) -> str:
    """What is wrong with the masks of classes of which a pixel is in one, after "the masks"; empty if nothing is.

    Args:
        of_classes: The runs of every class.
        shape: Height and width of the image.
        is_complete: Whether every pixel must be in a class.
        num_ignored: Pixels that do not count, which are in none.
    """
    runs = np.concatenate(list(of_classes))
    runs = runs[runs[:, 0].argsort(kind="stable")]
    if (twice := np.flatnonzero(runs[1:, 0] < runs[:-1].sum(1))).size:
        return f"have pixels in several classes, the first is number {runs[twice[0] + 1, 0] + 1}"
    missing = shape[0] * shape[1] - area(runs) - num_ignored
    return f"have {number_of(missing, 'pixel')} in no class" if is_complete and missing else ""


def text_of(runs: Runs) -> str:
    """Runs as the text of a cell; empty for an empty mask."""
    return " ".join(map(str, (runs + np.array([1, 0])).ravel().tolist()))


def area(runs: Runs) -> int:
    """Number of pixels of a mask."""
    return int(runs[:, 1].sum())


def _run(run: NDArray[np.int64]) -> str:
    return f"{run[0] + 1} {run[1]}"


def _short(text: str) -> str:
    return repr(text if len(text) <= 20 else f"{text[:19]}…")
