"""Resamples of rows, or of groups of rows, as counts: how often each row was drawn; and what their scores say.

Shapes: R resamples, r of them in a block, N rows, G groups.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.float64]  # whole numbers, as they are multiplied with losses and weights
CELLS = 2_000_000  # counts of a block: 16 MB
WIDE = 0.95  # level of the interval of an out-of-fold difference


@dataclass(frozen=True)
class Units:
    """What is drawn: rows, or groups of rows, which are drawn together.

    Args:
        of_row: The group of each row from 0, int64 (N,); None where each row is drawn by itself.
        rows: The number of rows N.
    """

    of_row: NDArray[np.int64] | None
    rows: int

    @classmethod
    def of(cls, groups: NDArray[Any] | None, rows: int) -> "Units":
        """The units of rows with these groups (N,)."""
        return cls(None if groups is None else np.unique(groups, return_inverse=True)[1].astype(np.int64), rows)

    @property
    def number(self) -> int:
        """The number of groups, or of rows."""
        return self.rows if self.of_row is None else int(self.of_row.max()) + 1

    def size_of(self, rows: int) -> int:
        """How many units have about so many rows; at least one."""
        return max(1, round(rows * self.number / self.rows))

    def resamples(self, generator: np.random.Generator, size: int, count: int) -> Iterator[Counts]:
        """Resamples with replacement, in blocks (r, N).

        Args:
            generator: Draws them.
            size: Units of each resample.
            count: The number of resamples R.
        """
        number = self.number
        at_once = max(1, CELLS // max(size, self.rows))
        for start in range(0, count, at_once):
            block = min(at_once, count - start)
            drawn = generator.integers(number, size=(block, size))
            drawn += np.arange(block)[:, None] * number
            counts = np.bincount(drawn.ravel(), minlength=block * number).reshape(block, number).astype(np.float64)
            yield counts if self.of_row is None else counts[:, self.of_row]


def interval(values: NDArray[np.float64], level: float = WIDE) -> tuple[float, float] | None:
    """The interval that holds a share of the defined values, and leaves out as many on both sides; None without any."""
    defined = values[np.isfinite(values)]
    if not len(defined):
        return None
    low, high = np.quantile(defined, ((1 - level) / 2, (1 + level) / 2))
    return float(low), float(high)


def chance(gains: NDArray[np.float64]) -> float:
    """The share of the defined gains that are above 0; of those that are 0, half; NaN without any."""
    defined = gains[np.isfinite(gains)]
    return float(((defined > 0) + 0.5 * (defined == 0)).mean()) if len(defined) else float("nan")
