"""Tiled prediction: a large image as overlapping tiles, whose maps are blended into one.

A batch of one image has its tiles by three more keys: `tile`, int64 (1, 5), the size (h, w) of a tile, tiles of a
forward pass, and the size of the image without the pixels that were added to fill a tile; `tops` and `lefts`, int64,
where tiles start. Every pixel gets the weighted mean of the tiles that contain it; the weights fall smoothly (sin²)
towards a tile's border, and their sum is 1.

Shapes: T tiles, C channels, K classes, (H, W) image size, (h, w) tile size.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from swinft.errors import InputError
from swinft.model.heads.base import Head
from swinft.model.heads.contract import decoded, encoded_targets, row_losses

Places = list[tuple[int, int]]  # top and left of each tile
LogitsOf = Callable[[dict[str, Tensor]], tuple[Tensor, Any]]


class Tiling(NamedTuple):
    """Where the tiles of an image are.

    Args:
        size: (h, w).
        per_pass: Tiles of a forward pass at most.
        inner: (H, W) of the image, without pixels that were added to fill a tile.
        tops: First rows of the tiles, ascending.
        lefts: First columns, ascending.
    """

    size: tuple[int, int]
    per_pass: int
    inner: tuple[int, int]
    tops: list[int]
    lefts: list[int]

    @classmethod
    def of(cls, batch: Mapping[str, Any]) -> "Tiling | None":
        """That of a batch; None if its images are predicted whole."""
        if "tile" not in batch:
            return None
        height, width, per_pass, *inner = batch["tile"][0].tolist()
        return cls(
            (height, width), per_pass, (inner[0], inner[1]), batch["tops"][0].tolist(), batch["lefts"][0].tolist()
        )


def shares(starts: list[int], side: int) -> NDArray[np.float32]:
    """Weight of each tile in each of its pixels along one side, (tiles, side); the weights of a pixel sum to 1."""
    window = np.sin(np.pi * (np.arange(side) + 0.5) / side) ** 2  # above 0 everywhere
    total = np.zeros(starts[-1] + side)
    for start in starts:
        total[start : start + side] += window
    return np.stack([window / total[start : start + side] for start in starts]).astype(np.float32)


def bands(predict: Callable[[Tensor, Places], Tensor], image: Tensor, tiling: Tiling) -> Iterator[Tensor]:
    """The blended maps of an image from top to bottom, float32 (K, rows, W): only what tiles still add to is held.

    Args:
        predict: Tiles (T, C, h, w), and where they are, to maps (T, K, h, w).
        image: Pixels (C, H, W), at least of a tile's size.
        tiling: Where its tiles are.
    """
    (height, width), tops, lefts = tiling.size, tiling.tops, tiling.lefts
    down, across = (
        torch.from_numpy(shares(starts, side)).to(image.device)
        for starts, side in zip((tops, lefts), tiling.size, strict=True)
    )
    boxes = [(r, c) for r in range(len(tops)) for c in range(len(lefts))]
    pending, base = None, 0  # maps of the rows from `base`, which are not complete yet
    for first in range(0, len(boxes), tiling.per_pass):
        chosen = boxes[first : first + tiling.per_pass]
        places = [(tops[r], lefts[c]) for r, c in chosen]
        tiles = torch.stack([image[:, top : top + height, left : left + width] for top, left in places])
        maps = predict(tiles, places).float()
        bottom = places[-1][0] + height
        pending = _grown(pending, maps, bottom - base, image.shape[2])
        for (r, c), (top, left), each in zip(chosen, places, maps, strict=True):
            share = down[r][:, None] * across[c]
            pending[:, top - base : top - base + height, left : left + width] += each * share
        rest = boxes[first + tiling.per_pass :]
        end = tops[rest[0][0]] if rest else bottom
        if end > base:
            yield pending[:, : max(0, min(end, tiling.inner[0]) - base), : tiling.inner[1]]
            pending, base = pending[:, end - base :], end


def _grown(pending: Tensor | None, maps: Tensor, rows: int, width: int) -> Tensor:
    """Blended maps (K, rows, width), to which maps of tiles (T, K, h, w) are added; rows that lack are empty."""
    if pending is None:
        return maps.new_zeros(maps.shape[1], rows, width)
    more = rows - pending.shape[1]
    return torch.cat([pending, maps.new_zeros(maps.shape[1], more, width)], dim=1) if more else pending


def predicted_tiles(head: Head, logits_of: LogitsOf, batch: dict[str, Tensor], tiling: Tiling) -> Tensor:
    """The blended maps of a batch of one image, (1, K, H, W); arguments as of `evaluated_tiles`."""

    def predict(tiles: Tensor, _: Places) -> Tensor:
        return decoded(head, logits_of({"image": tiles})[0])

    return torch.cat(list(bands(predict, batch["image"][0], tiling)), dim=1)[None]


def evaluated_tiles(
    head: Head, logits_of: LogitsOf, batch: dict[str, Tensor], tiling: Tiling
) -> tuple[Tensor, Tensor, Tensor]:
    """What metrics get of a batch of one image, from its blended maps, and the mean of its tiles' losses, (1,).

    Args:
        head: The head.
        logits_of: A batch of tiles to logits of the head and of auxiliary targets.
        batch: The batch, with masks (1, K, H, W).
        tiling: Its tiles.

    Raises:
        InputError: A custom head has no `counted`.
    """
    (height, width), losses = tiling.size, []

    def predict(tiles: Tensor, places: Places) -> Tensor:
        logits = logits_of({"image": tiles})[0]
        target = torch.stack([batch["target"][0, :, y : y + height, x : x + width] for y, x in places])
        losses.append(row_losses(head, logits, encoded_targets(head, target, len(tiles))))
        return decoded(head, logits)

    top, parts = 0, []
    for band in bands(predict, batch["image"][0], tiling):
        wanted = batch["target"][:, :, top : top + band.shape[1], : band.shape[2]]
        found = head.counted(band[None], wanted)
        if found is None:
            raise InputError(f"{type(head).__name__} has no `counted`, which scores of tiles are computed from.")
        parts.append(found)
        top += band.shape[1]
    counts, true = (torch.stack(each).sum(0) for each in zip(*parts, strict=True))
    return counts, true, torch.cat(losses).mean()[None]
