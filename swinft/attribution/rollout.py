"""Attention rollout (arXiv 2005.00928): how much of each part of the image reaches what the head reads.

A block passes on half of each token by its residual connection, and half by its attention, averaged over heads. Rolled
out, that is a product of matrices; only its product with what the head reads is needed, and is computed from the last
block to the first, in windows. Through patch merging, a token's share goes to the four tokens that it was merged from.

With `by="gradient"` (arXiv 2103.15679) attention counts by how much it raises the output, and the residual as one.

Shapes: B images, V images of a row, T tokens of a grid, W' windows, h heads, N tokens of a window, (H, W) pixels.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from swinft.attribution.attention import Attended, Attention, Merging, attended
from swinft.attribution.gradcam import of_images
from swinft.attribution.names import RolloutBy
from swinft.attribution.objective import chosen_outputs, objective
from swinft.attribution.prepared import prepared
from swinft.errors import InputError
from swinft.model.network import ImageModel


def rollout(
    network: ImageModel,
    images: Tensor,
    outputs: Tensor | Sequence[int] | int | None = None,
    features: Tensor | None = None,
    image_mask: Tensor | None = None,
    by: RolloutBy = "mean",
) -> Tensor:
    """The attention rollout of a batch, for a ViT or a Swin.

    Args:
        network: As of `gradcam`, as are the next four.
        images: Pixels.
        outputs: The output of each row; attention alone (`by="mean"`) is the same for every output.
        features: Metadata.
        image_mask: Which of several images exist.
        by: `mean`: attention averaged over heads; `gradient`: also weighted by its gradient, where that is positive.

    Returns:
        Shares, 0 or more, float32 (B, H, W) or (B, V, H, W): of each token, spread evenly over its pixels. By `mean`
        their mean over an image is 1, without the share of a class token.

    Raises:
        InputError: The backbone is none of these, or the head reads no pooled features.
        RunError: The weights do not give what the network computes.
    """
    with prepared(network):
        pixels = images.detach().clone().float()
        mask = None if image_mask is None else image_mask.clone()
        pixels.requires_grad_()
        found = attended(network, pixels, None if features is None else features.clone(), mask)
        of_row = objective(network, found.logits, chosen_outputs(network, found.logits, outputs))
        start = _read(network, found, of_row)
        gradients = _gradients(found, of_row) if by == "gradient" else None
    shares = rolled_out(found.steps, start, gradients)
    first = found.blocks[0]
    coarse = shares[:, first.prefix :].view(-1, 1, *first.grid) * (first.grid[0] * first.grid[1])
    maps = functional.interpolate(coarse, images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]
    return of_images(maps, images, mask) if images.ndim == 5 else maps


def rolled_out(
    steps: Sequence[Attention | Merging], start: Tensor, gradients: Sequence[Tensor] | None = None
) -> Tensor:
    """Shares of the last tokens to shares of the first ones.

    Args:
        steps: Blocks and patch mergings in the order of their computation.
        start: What is read of each token behind the last block, (B, T).
        gradients: Those of the weights of each block; None for the mean of heads.

    Returns:
        (B, T') for the tokens before the first block.
    """
    shares, alone = start, start  # `alone`: by residual connections only
    left = list(gradients or [])
    for step in reversed(steps):
        if isinstance(step, Merging):
            shares, alone = _unmerged(shares, step.grid), _unmerged(alone, step.grid)
            continue
        weights = step.weights.detach().float()
        if gradients is None:
            shares = (shares + _passed_on(shares, weights.mean(2), step.tokens)) / 2
        else:
            raised = (weights * left.pop().float()).relu().mean(2)
            shares = shares + _passed_on(shares, raised, step.tokens, is_distribution=False)
    return shares if gradients is None else (shares - alone).clamp(min=0)


def _passed_on(shares: Tensor, weights: Tensor, tokens: Tensor, is_distribution: bool = True) -> Tensor:
    """Shares of queries (B, T) to shares of their keys, by weights (B, W', N, N).

    What attention gives to padding, which is no token of the image, is given to the other keys in proportion.
    """
    is_token = tokens >= 0
    weights = weights * is_token[:, None]
    if is_distribution and not bool(is_token.all()):
        weights = weights / weights.sum(-1, keepdim=True).clamp(min=1e-12)
    place = tokens.clamp(min=0)
    queries = shares[:, place] * is_token  # (B, W', N)
    keys = torch.einsum("bwq,bwqk->bwk", queries, weights)
    return torch.zeros_like(shares).index_add_(1, place.flatten(), (keys * is_token).flatten(1))


def _unmerged(shares: Tensor, grid: tuple[int, int]) -> Tensor:
    """Shares of merged tokens to those of the two by two that each was merged from: the mean of those that exist."""
    rows, columns = grid
    merged = shares.view(len(shares), 1, -(-rows // 2), -(-columns // 2))
    ones = torch.ones(1, 1, rows, columns, device=shares.device)
    padded = functional.pad(ones, (0, columns % 2, 0, rows % 2))
    existing = functional.avg_pool2d(padded, 2) * 4
    spread = (merged / existing).repeat_interleave(2, 2).repeat_interleave(2, 3)
    return spread[:, 0, :rows, :columns].flatten(1)


def _read(network: ImageModel, found: Attended, of_row: Tensor) -> Tensor:
    """What the head reads of each token behind the last block, (B, T): equal shares of those it depends on.

    Raises:
        InputError: The head reads maps of the stages, or none of the tokens.
    """
    last, final = found.blocks[-1], found.final
    count = last.prefix + last.grid[0] * last.grid[1]
    gradient = None if final is None else torch.autograd.grad(of_row.sum(), [final.tensor], retain_graph=True)[0]
    if final is not None and gradient is not None:
        as_tokens = gradient if gradient.ndim == 3 else gradient.flatten(1, 2)
        if as_tokens.shape[1] == count and as_tokens.shape[2] == final.channels:
            is_read = (as_tokens != 0).any(2).float()
            if bool((is_read.sum(1) > 0).all()):
                return is_read / is_read.sum(1, keepdim=True)
    raise InputError(
        f"attention rollout starts from the tokens that are pooled, and {type(network.head).__name__} on "
        f"{type(network.backbone.model).__name__} reads none of the last block. Use the method gradcam or occlusion."
    )


def _gradients(found: Attended, of_row: Tensor) -> list[Tensor]:
    gradients = torch.autograd.grad(of_row.sum(), [block.recorded for block in found.blocks])
    return [block.by_image(gradient) for block, gradient in zip(found.blocks, gradients, strict=True)]
