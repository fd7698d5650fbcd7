"""The curve of a range test: the loss of steps with ever higher learning rates, and the rate that it suggests.

Shapes: S steps.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# As fastai's finder, far below and above what any optimiser of timm is used with; it ends where the loss diverges.
LOWEST, HIGHEST = 1e-7, 10.0
FIRST = 5  # steps whose mean is the loss of the untrained network, and at least so many show a divergence
DIVERGED = 4.0  # times the lowest loss, as in fastai and Lightning
# Parts of the whole descent between which it is steep. Not to its end: a long flat bottom is lowest where its noise is.
STEEP = (0.1, 0.7)
NOISE = 4.0  # standard errors by which the loss must fall
NORMAL = 1.4826  # standard deviations in a median absolute deviation, of a normal distribution


def rates(steps: int) -> NDArray[np.float64]:
    """The learning rates of a range test, float64 (S,), exponentially from `LOWEST` to `HIGHEST`."""
    return np.geomspace(LOWEST, HIGHEST, steps)


def has_diverged(losses: Sequence[float]) -> bool:
    """Whether the last losses are not finite, or far above the lowest and above those of the untrained network."""
    if not losses or not math.isfinite(losses[-1]):
        return bool(losses)
    if len(losses) < 2 * FIRST:
        return False
    means = np.convolve(losses, np.full(FIRST, 1 / FIRST), "valid")
    best = float(means.min())
    return float(means[-1]) > max(best + (DIVERGED - 1) * abs(best), float(means[0]))


def smoothed(losses: Sequence[float]) -> NDArray[np.float64]:
    """Means of the losses around each step, float64 (S,).

    Around it, and not before it as the exponential means of fastai and Lightning: those lag behind, and move the
    descent to higher rates.
    """
    values = np.asarray(losses, dtype=np.float64)
    sides = [min(_reach(len(values)), step, len(values) - 1 - step) for step in range(len(values))]
    return np.array([values[step - side : step + side + 1].mean() for step, side in enumerate(sides)])


def _reach(steps: int) -> int:
    """Steps on each side of one that its mean is over."""
    return max(1, steps // 20)


def suggested(tested: Sequence[float], losses: Sequence[float]) -> float | None:
    """The rate in the middle, on a logarithmic axis, of the steep part of the descent.

    The steep part is where the loss passes from a tenth to seven tenths of its whole descent to the minimum. A rate of
    the steepest slope (Lightning, fastai's `steep`) is decided by a single noisy step, and the longest descending
    subsequence (fastai's `valley`) also counts noise where the loss is still flat.

    Args:
        tested: The rates (S,), ascending.
        losses: Of the steps with them (S,), finite.

    Returns:
        The rate; None if the loss does not fall by more than its noise.
    """
    curve = smoothed(losses)
    lowest, window = int(curve.argmin()), 1 + 2 * _reach(len(curve))
    start, end = float(np.mean(losses[:FIRST])), float(curve[lowest])
    # Of one step, by how far it is from its window's mean, of which it is a part; not of those that diverge.
    apart = np.abs(np.asarray(losses) - curve)[: lowest + 1]
    noise = NORMAL * float(np.median(apart)) / math.sqrt(1 - 1 / window)
    if lowest < FIRST or start - end <= NOISE * noise * math.sqrt(1 / FIRST + 1 / window):
        return None
    high, low = (start - share * (start - end) for share in STEEP)
    first = max((step for step in range(lowest) if curve[step] >= high), default=0)
    last = next(step for step in range(first + 1, lowest + 1) if curve[step] <= low)
    return math.sqrt(tested[first] * tested[last])
