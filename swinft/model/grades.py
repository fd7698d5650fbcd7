"""Decisions, by the same rule for the metric and for the submission: grades, and sets of labels."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def to_grades(values: NDArray[Any], low: ArrayLike, high: ArrayLike) -> NDArray[Any]:
    """Rounds to whole numbers (halves to even), and clips to the range of grades.

    Args:
        values: Predictions, float (N, K).
        low: Smallest grade, for all columns or per column (K,).
        high: Largest grade, likewise.

    Returns:
        Whole numbers of the same type and shape, never −0; NaN stays NaN.
    """
    clipped: NDArray[Any] = np.clip(np.rint(values), np.rint(low), np.rint(high))
    return clipped + 0.0  # -0.0 + 0.0 is 0.0


def to_label_sets(values: NDArray[Any], threshold: float, never_empty: bool = True) -> NDArray[np.bool_]:
    """Chooses labels: those of a threshold and more.

    Args:
        values: Probabilities, float (N, K).
        threshold: The lowest probability that is chosen.
        never_empty: Whether the most probable label is chosen where none reaches the threshold.

    Returns:
        bool (N, K).
    """
    chosen: NDArray[np.bool_] = values >= threshold
    if never_empty:
        chosen[np.arange(len(values)), values.argmax(axis=1)] = True
    return chosen
