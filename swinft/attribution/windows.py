"""Attention inside the windows of one block, as a map over the image.

Shapes: B images, V images of a row, W' windows, h heads, N tokens of a window, (H, W) pixels.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from swinft.attribution.attention import Attention, attended
from swinft.attribution.gradcam import of_images
from swinft.attribution.prepared import prepared
from swinft.errors import InputError
from swinft.model.network import ImageModel


class WindowMaps(NamedTuple):
    """The attention of a block over the image.

    Args:
        maps: Attention that each token gets, float32 (B, H, W) or (B, V, H, W); 1 if all got the same.
        name: The block's name in the backbone.
        rows: Pixels, from the top, at which windows begin; cuts within the image.
        columns: The same from the left.
    """

    maps: Tensor
    name: str
    rows: list[float]
    columns: list[float]


def window_attention(
    network: ImageModel,
    images: Tensor,
    stage: int | None = None,
    block: int | None = None,
    head: int | None = None,
    query: tuple[int, int] | None = None,
    features: Tensor | None = None,
    image_mask: Tensor | None = None,
) -> WindowMaps:
    """The attention of one block, in its windows; of a ViT over the whole image.

    Args:
        network: As of `gradcam`, as are `images`, `features` and `image_mask`.
        images: Pixels.
        stage: The stage, from 0; None for the last one with several windows, or the last.
        block: The block of the stage, from 0, negative from the end; None for its last one.
        head: The head, from 0; None for their mean.
        query: Row and column of a pixel, whose token asks; elsewhere than in its window the map is 0. None for the mean
            of all tokens of each window; in a ViT for that of its class token, if it has one.
        features: Metadata.
        image_mask: Which of several images exist.

    Raises:
        InputError: There is no such stage, block, head or pixel, or the backbone is no ViT or Swin.
        RunError: The weights do not give what the network computes.
    """
    with prepared(network):
        mask = None if image_mask is None else image_mask.clone()
        pixels = images.detach().clone().float()
        with torch.no_grad():
            found = attended(network, pixels, None if features is None else features.clone(), mask)
    chosen = _chosen(found.blocks, stage, block)
    weights = chosen.weights.float()
    heads = weights.shape[2]
    if head is not None and not 0 <= head < heads:
        raise InputError(f"head is {head}: {chosen.name} has heads 0 to {heads - 1}.")
    of_heads = weights.mean(2) if head is None else weights[:, :, head]
    height, width = images.shape[-2:]
    given = _given(chosen, of_heads, query, (height, width))
    rows, columns = chosen.grid
    coarse = given[:, chosen.prefix :].view(-1, 1, rows, columns)
    maps = functional.interpolate(coarse, (height, width), mode="nearest")[:, 0]
    cuts = [
        _cuts(side, pixels, size, shift)
        for side, pixels, size, shift in zip(
            chosen.grid, (height, width), chosen.window or chosen.grid, chosen.shift, strict=True
        )
    ]
    return WindowMaps(of_images(maps, images, mask) if images.ndim == 5 else maps, chosen.name, *cuts)


def _cuts(side: int, pixels: int, window: int, shift: int) -> list[float]:
    """Where windows begin within a side, in pixels: a shift moves all cuts to the bottom right."""
    return [cut * pixels / side for cut in range(shift % window, side, window) if cut]


def _chosen(blocks: list[Attention], stage: int | None, block: int | None) -> Attention:
    """The block of a stage and a number.

    Raises:
        InputError: There is none.
    """
    stages = sorted({each.stage for each in blocks})
    if stage is None:
        several = [each.stage for each in blocks if each.tokens.shape[0] > 1]
        stage = max(several or stages)
    if stage not in stages:
        raise InputError(f"stage is {stage}: the backbone has stages {stages[0]} to {stages[-1]}.")
    own = [each for each in blocks if each.stage == stage]
    number = -1 if block is None else block
    if not -len(own) <= number < len(own):
        raise InputError(f"block is {number}: stage {stage} has blocks 0 to {len(own) - 1}.")
    return own[number]


def _given(block: Attention, weights: Tensor, query: tuple[int, int] | None, size: tuple[int, int]) -> Tensor:
    """Attention that each token gets, relative to equal attention, (B, T), from weights (B, W', N, N)."""
    tokens = block.tokens
    is_token = tokens >= 0
    per_token = is_token.sum(1).view(1, -1, 1).float()  # of each window
    if query is None and block.window is None and block.prefix:
        asked = weights[:, :, 0] * per_token
    elif query is None:
        from_tokens = weights * is_token[:, :, None]
        asked = from_tokens.sum(2)  # the mean over queries, times the number of keys
    else:
        asked = _asked(block, weights, query, size) * per_token
    found = weights.new_zeros(len(weights), int(tokens.max()) + 1)
    return found.index_add_(1, tokens.clamp(min=0).flatten(), (asked * is_token).flatten(1))


def _asked(block: Attention, weights: Tensor, query: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The weights (B, W', N) of the token of a pixel; 0 in other windows.

    Raises:
        InputError: The pixel is outside the image.
    """
    if not all(0 <= place < side for place, side in zip(query, size, strict=True)):
        raise InputError(f"query is {list(query)}: the image has rows 0 to {size[0] - 1}, columns 0 to {size[1] - 1}.")
    row, column = (int(place * cells / side) for place, cells, side in zip(query, block.grid, size, strict=True))
    token = block.prefix + row * block.grid[1] + column
    window, place = (int(each) for each in (block.tokens == token).nonzero()[0])
    found = torch.zeros_like(weights[:, :, 0])
    found[:, window] = weights[:, window, place]
    return found
