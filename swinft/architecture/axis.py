"""Shifted windows along one side of a grid: which positions a window holds, and which of them attend to each other.

Rows and columns of Swin's windows are independent: two tokens attend to each other if they share window and region
along both sides. What is computed here is what timm's blocks do: shift, then pad, then cut windows, then mask.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

PADDING = -1  # in place of the position of a token


@dataclass(frozen=True)
class Axis:
    """Windows along one side.

    Args:
        length: Positions of the grid.
        window: Positions of a window.
        shift: By how many positions the grid is rolled before windows are cut; 0 for none.
        is_masked: Whether regions that the roll has brought together are kept apart.
    """

    length: int
    window: int
    shift: int = 0
    is_masked: bool = True

    @property
    def padded(self) -> int:
        """Positions after padding: a multiple of the window."""
        return -(-self.length // self.window) * self.window

    @cached_property
    def positions(self) -> NDArray[np.int64]:
        """Positions of the grid in every window (windows, window); `PADDING` where there is none."""
        rolled = np.roll(np.arange(self.length), -self.shift)
        rest = np.full(self.padded - self.length, PADDING)
        return np.concatenate([rolled, rest]).reshape(-1, self.window)

    @cached_property
    def regions(self) -> NDArray[np.int64]:
        """The region of every position (windows, window): 0 all but the last window, 1 and 2 its two parts."""
        found = np.zeros(self.padded, dtype=np.int64)
        if self.shift and self.is_masked:
            found[-self.window :] = 1
            found[-self.shift :] = 2
        return found.reshape(-1, self.window)

    @cached_property
    def allowed(self) -> NDArray[np.bool_]:
        """Which pairs in a window are of one region (windows, window, window)."""
        return np.asarray(self.regions[:, :, None] == self.regions[:, None, :])

    def reached(self, positions: Iterable[int]) -> set[int]:
        """The positions that these attend to; themselves, and never padding."""
        found = set[int]()
        for number, offset in zip(*np.nonzero(np.isin(self.positions, list(positions))), strict=True):
            found |= set(self.positions[number][self.allowed[number, offset]].tolist())
        return found - {PADDING}

    @property
    def wrapped(self) -> int:
        """Ordered pairs of positions that attend to each other though they are no neighbours: a window or more apart.

        There are some only where padding comes after the shift and the window does not divide the grid.
        """
        first, second = self.positions[:, :, None], self.positions[:, None, :]
        is_real = (first != PADDING) & (second != PADDING)
        return int((self.allowed & is_real & (np.abs(first - second) >= self.window)).sum())
