"""How uncertain predictions are: entropy and margin of probabilities; the spread of several predictions of a number.

Shapes: N rows, K outputs, P predictions of each row (views, and networks of several seeds), H × W pixels of a map.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from swinft.data.target.base import Target
from swinft.inference.maps import WHITE
from swinft.model.metrics.base import row_blocks
from swinft.run.report.rows.counted import Counts, mean_of

Array = NDArray[np.float64]
MOST_PIXELS = 256  # of a side of a map: more say the same of its mean


@dataclass(frozen=True)
class Uncertainty:
    """The uncertainty of some rows.

    Args:
        name: What is measured: `entropy` or `spread`.
        values: (N,); larger is less certain. Entropy is in 0–1: of the largest that K classes or a label can have.
            Spread is in standard deviations of the target.
        margin: How far the likeliest class is before the second one, or the least decided label from 0.5, times two, in
            0–1, (N,); None for numbers and masks.
        description: What the values are, as a sentence.
    """

    name: str
    values: Array
    margin: Array | None
    description: str


def uncertainty(
    target: Target,
    values: NDArray[np.float32],
    several: NDArray[np.float32] | None,
    deviation: Array | None = None,
    by: str = "different views or seeds",
) -> Uncertainty | None:
    """The uncertainty of predictions; None of numbers of which there is one prediction each.

    Args:
        target: The kind of target.
        values: Predictions (N, K).
        several: The predictions of the same rows that were averaged, (P, N, K); None if there is one.
        deviation: Of numbers: standard deviation of each output's targets, (K,).
        by: What the several predictions are by, in words.
    """
    if not target.are_probabilities:
        if several is None or len(several) < 2:
            return None
        scale = np.ones(values.shape[1]) if deviation is None else np.where(deviation > 0, deviation, 1.0)
        spread = (several.astype(np.float64).std(0) / scale).max(1)
        what = f"The standard deviation of a row's predictions by {by}, in those of the target"
        return Uncertainty("spread", spread, None, what + ("." if len(scale) == 1 else "; the largest of all outputs."))
    if target.are_classes and values.shape[1] < 2:
        return None
    blocks = [_of_probabilities(target, values[rows]) for rows in row_blocks(max(1, len(values)), values.shape[1])]
    entropy, margin = (np.concatenate(each) for each in zip(*blocks, strict=True))
    what = "The entropy of a row's least certain label, in bits: 1 where its probability is 0.5."
    if target.are_classes:
        what = "The entropy of a row's probabilities, as a share of the largest there can be: 1 where all are equal."
    return Uncertainty("entropy", entropy, margin, what)


def _of_probabilities(target: Target, values: NDArray[np.float32]) -> tuple[Array, Array]:
    """Entropy and margin of some rows."""
    shares = np.asarray(target.valid(values), dtype=np.float64)
    if target.are_classes:
        two = np.sort(shares, axis=1)[:, -2:]
        return _entropy(shares).sum(1) / np.log(shares.shape[1]), two[:, 1] - two[:, 0]
    entropy = (_entropy(shares) + _entropy(1 - shares)) / np.log(2)
    return entropy.max(1), 2 * np.abs(shares - 0.5).min(1)


def map_uncertainty(maps: Iterable[tuple[NDArray[np.uint8], Counts | None]]) -> Uncertainty:
    """The uncertainty of masks: the mean entropy of their pixels that count, of the least certain class.

    Args:
        maps: The map of each row and which of its pixels count, as `counted_pixels` gives them.
    """
    levels = np.arange(WHITE + 1) / WHITE
    bits = (_entropy(levels) + _entropy(1 - levels)) / np.log(2)
    found = [_of_map(levels, counts, bits) for levels, counts in maps]
    what = "The mean entropy of the pixels of a row's map that count, in bits, of its least certain class."
    return Uncertainty("entropy", np.array(found, dtype=np.float64), None, what)


def _of_map(levels: NDArray[np.uint8], counts: Counts | None, bits: Array) -> float:
    """The mean entropy of a map (K, H, W), of its least certain class; of a large map every few pixels are taken."""
    if not levels.size:
        return 0.0
    step = max(1, max(levels.shape[1:]) // MOST_PIXELS)
    some = None if counts is None else counts[:, ::step, ::step]
    if some is not None and not some.any((1, 2)).all():
        step, some = 1, counts
    return float(mean_of(bits[levels[:, ::step, ::step]], some).max())


def _entropy(shares: Array) -> Array:
    """−p log p, 0 for 0."""
    found: Array = -shares * np.log(np.where(shares > 0, shares, 1))
    return found
