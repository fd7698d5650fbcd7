"""The pixels of out-of-fold maps that count: those of the image, and not of its border, which its mask does not ignore.

Shapes: N rows, K classes, (H, W) pixels of a map, of which (h, w) are of the image.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from swinft.data.datamodule import CSVDataModule
from swinft.data.images.resize import nearest
from swinft.data.masks.rle import IGNORED
from swinft.inference.maps import WHITE, Maps, inner_box

Levels = NDArray[np.uint8]
Counts = NDArray[np.bool_]  # (K, h, w): which pixels of a map count


def counted_pixels(maps: Maps, data: CSVDataModule, rows: NDArray[np.int64]) -> Iterator[tuple[Levels, Counts | None]]:
    """The map of each row within its image, (K, h, w), and which of its pixels count; None for all of them.

    Args:
        maps: Out-of-fold predictions of the training table.
        data: The datamodule after `setup("fit")`.
        rows: The N rows' positions in the table.
    """
    masks, resize = data.splits.train.masks, data.settings.loading.resize
    for row in rows.tolist():
        levels, full = np.asarray(maps.levels[row]), (int(maps.sizes[row, 0]), int(maps.sizes[row, 1]))
        if not levels.size or 0 in full:
            yield levels, None
            continue
        top, bottom, left, right = inner_box(full, (levels.shape[1], levels.shape[2]), resize)
        inner, ignored = levels[:, top:bottom, left:right], None if masks is None else masks.ignored
        if masks is None or ignored is None or not any(map(len, ignored[row] or [])):
            yield inner, None
            continue
        planes = masks.planes(row)
        counts = (nearest(planes, *inner.shape[1:]) != IGNORED).transpose(2, 0, 1)
        if not counts.any((1, 2)).all():  # what counts is smaller than a pixel of the map
            inner = np.stack([maps.full(row, k, resize) for k in range(len(inner))])
            counts = (planes != IGNORED).transpose(2, 0, 1)
        yield inner, counts


def counted_coverage(maps: Maps, data: CSVDataModule, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """The mean probability of the pixels that count, float32 (N, K), as the coverage of the true masks is counted."""
    found = [mean_of(levels / WHITE, counts) for levels, counts in counted_pixels(maps, data, rows)]
    return np.array(found, dtype=np.float32).reshape(len(rows), maps.num_classes)


def mean_of(values: NDArray[np.float64], counts: Counts | None) -> NDArray[np.float64]:
    """The mean of the values (K, h, w) that count, (K,); 0 where there are none."""
    if not values.size:
        return np.zeros(len(values))
    if counts is None:
        return np.asarray(values.mean((1, 2)))
    return np.asarray((values * counts).sum((1, 2)) / np.maximum(1, counts.sum((1, 2))))
