"""What folds are stratified by: classes, bins of numbers, 0/1 columns; missing targets are a stratum of their own.

Shapes: N rows, K outputs.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def target_bins(values: NDArray[Any], min_rows: int) -> NDArray[np.int64]:
    """Bins of numbers for stratification: 1 + log2 N bins (Sturges); bins with too few rows are merged.

    Bins have equal widths, or equal numbers of rows if more than half of the rows would be in one bin, as with outliers
    or a long tail.

    Args:
        values: Numbers (N,).
        min_rows: Minimum rows of a bin.

    Returns:
        Bin of each row, int64 (N,), from 0 without gaps.
    """
    num_bins = math.floor(1 + math.log2(len(values)))
    edges = np.linspace(values.min(), values.max(), num_bins + 1)[1:-1]
    bins = np.digitize(values, edges)
    if 2 * np.bincount(bins).max() > len(values):
        edges = np.unique(np.quantile(values, np.linspace(0, 1, num_bins + 1)[1:-1], method="lower"))
        bins = np.digitize(values, edges, right=True)
    merged = np.zeros(num_bins, dtype=np.int64)
    current = rows = 0
    for index, count in enumerate(np.bincount(bins, minlength=num_bins)):
        if rows >= min_rows:
            current, rows = current + 1, 0
        merged[index] = current
        rows += count
    if rows < min_rows and current:  # the remainder at the upper end
        merged[merged == current] = current - 1
    chosen: NDArray[np.int64] = merged[bins]
    return chosen


def is_binary(targets: NDArray[Any]) -> bool:
    """Whether targets are 0/1 labels, some of which may be missing."""
    return targets.ndim == 2 and bool((np.isin(targets, (0, 1)) | np.isnan(targets)).all())


def classes_of(targets: NDArray[Any], num_folds: int) -> NDArray[np.int64] | None:
    """Classes or bins to stratify a single target by; None for several. Rows without it are a separate class."""
    if targets.ndim == 1:
        return _with_missing(targets)
    return _bins(targets[:, 0], num_folds) if targets.shape[1] == 1 else None


def labels_of(targets: NDArray[Any], num_folds: int) -> NDArray[np.int8]:
    """Targets of any kind as 0/1 columns (N, labels), with columns for missing labels; numbers are binned."""
    if is_binary(targets):
        is_missing = np.isnan(targets)
        return np.column_stack([targets == 1, is_missing[:, is_missing.any(0)]]).astype(np.int8)
    several = targets[:, None] if targets.ndim == 1 else targets
    columns = [_bins(each, num_folds) if targets.ndim > 1 else _with_missing(each) for each in several.T]
    return np.concatenate([np.eye(column.max() + 1, dtype=np.int8)[column] for column in columns], axis=1)


def _with_missing(classes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Classes (N,), with a class more for rows that lack theirs, −1."""
    found: NDArray[np.int64] = np.where(classes < 0, classes.max() + 1, classes)
    return found


def _bins(values: NDArray[Any], num_folds: int) -> NDArray[np.int64]:
    """Bins of numbers (N,); those that are missing are in a bin of their own, the last."""
    is_missing = np.isnan(values)
    if not is_missing.any():
        return target_bins(values, num_folds)
    bins = np.zeros(len(values), dtype=np.int64)
    bins[~is_missing] = target_bins(values[~is_missing], num_folds)
    bins[is_missing] = bins.max() + 1
    return bins
