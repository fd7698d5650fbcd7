"""Rounds predictions to grades, by the same rule for the metric and for the submission."""

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
