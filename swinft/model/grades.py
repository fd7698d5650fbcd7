"""Numbers become grades: by one rule for the metric that scores them and for the file that is submitted."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def to_grades(values: NDArray[Any], low: ArrayLike, high: ArrayLike) -> NDArray[Any]:
    """Rounds to whole numbers, halves to the even one, and clips to the grades that there are.

    Args:
        values: Predictions, float (N, K).
        low: Smallest grade, of all columns or of each (K,).
        high: Largest grade.

    Returns:
        Whole numbers of the same type and shape, never −0; NaN stays NaN.
    """
    clipped: NDArray[Any] = np.clip(np.rint(values), np.rint(low), np.rint(high))
    return clipped + 0.0  # -0.0 + 0.0 is 0.0
