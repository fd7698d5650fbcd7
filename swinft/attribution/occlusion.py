"""Occlusion (arXiv 1311.2901): how much an output falls when a part of the image is covered.

Shapes: B rows, V images of a row, C channels, (H, W) pixels.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from swinft.attribution.baselines import baseline_of
from swinft.attribution.names import BaselineName
from swinft.attribution.objective import chosen_outputs, mask_of, objective
from swinft.attribution.prepared import prepared
from swinft.errors import InputError
from swinft.model.network import ImageModel

PATCHES = 8  # along the shorter side, by default


def occlusion(
    network: ImageModel,
    images: Tensor,
    outputs: Tensor | Sequence[int] | int | None = None,
    features: Tensor | None = None,
    image_mask: Tensor | None = None,
    baseline: BaselineName = "mean",
    patch: int | None = None,
    stride: int | None = None,
    batch_size: int = 16,
) -> Tensor:
    """The occlusion map of a batch: for each pixel the mean fall of the score over all patches that cover it.

    Args:
        network: As of `gradcam`, as are the next four.
        images: Pixels.
        outputs: The output of each row.
        features: Metadata.
        image_mask: Which of several images exist.
        baseline: What covers a patch, as of `baseline_of`.
        patch: Side of a square patch in pixels; None for an eighth of the image's shorter side.
        stride: Pixels from one patch to the next; None for half of a patch. The last patch ends where the image ends.
        batch_size: Covered images per forward pass.

    Returns:
        Signed falls of the logit, or of the prediction where that is no probability, (B, H, W) or (B, V, H, W).

    Raises:
        InputError: A size is out of its range, or an output or the baseline does not exist.
    """
    height, width = int(images.shape[-2]), int(images.shape[-1])
    side = max(1, min(height, width) // PATCHES) if patch is None else patch
    step = max(1, side // 2) if stride is None else stride
    if not 1 <= side <= min(height, width):
        raise InputError(
            f"patch is {side}: an image of {height} x {width} px takes a patch of 1 to {min(height, width)} px."
        )
    if not 1 <= step <= side:
        raise InputError(f"stride is {step}: a patch of {side} px takes a stride of 1 to {side} px, which covers all.")
    with prepared(network), torch.no_grad():
        pixels = images.detach().clone().float()
        more = [None if each is None else each.clone() for each in (features, image_mask)]
        logits = network(pixels, *more)
        chosen = chosen_outputs(network, logits, outputs)
        where = mask_of(network, logits, chosen) if network.maps is not None else None
        scores = objective(network, logits, chosen, where, in_units=True)
        fill = baseline_of(network, pixels, baseline)
        maps = torch.zeros(*pixels.shape[:-3], height, width, device=pixels.device)
        for row in range(len(pixels)):
            given = [None if each is None else each[[row]] for each in (*more, chosen, where)]
            for covered, place, falls in _falls(network, pixels[[row]], fill[[row]], given, (side, step), batch_size):
                top, left = covered
                maps[(row, *place)][top : top + side, left : left + side] += scores[row] - falls
    times = [_times(length, side, step, maps) for length in (height, width)]
    return maps / (times[0][:, None] * times[1])


def starts(length: int, side: int, step: int) -> list[int]:
    """Where patches start along a side of an image: the last one ends where the image ends."""
    return sorted({*range(0, length - side + 1, step), length - side})


def _times(length: int, side: int, step: int, like: Tensor) -> Tensor:
    """How many patches cover each pixel along a side."""
    found = torch.zeros(length, device=like.device)
    for start in starts(length, side, step):
        found[start : start + side] += 1
    return found


def _falls(
    network: ImageModel,
    pixels: Tensor,
    fill: Tensor,
    given: list[Tensor | None],
    sizes: tuple[int, int],
    batch_size: int,
) -> Iterator[tuple[tuple[int, int], tuple[int, ...], Tensor]]:
    """The score of a row with each patch covered in turn, in each of its images: top and left, the image, the score.

    Args:
        network: The network.
        pixels: Of the row, (1, C, H, W) or (1, V, C, H, W).
        fill: What covers a patch, of the same shape.
        given: Its metadata, which of its images exist, its output, and its mask; None for what it has not.
        sizes: Side and stride of the patches.
        batch_size: Covered images per forward pass.
    """
    there = given[1]
    images: list[tuple[int, ...]] = (
        [()] if pixels.ndim == 4 else [(k,) for k in range(pixels.shape[1]) if there is None or bool(there[0, k])]
    )
    tops, lefts = (starts(int(length), *sizes) for length in pixels.shape[-2:])
    work = [(top, left, image) for image in images for top in tops for left in lefts]
    for first in range(0, len(work), batch_size):
        part = work[first : first + batch_size]
        covered = pixels.expand(len(part), *pixels.shape[1:]).clone()
        for number, (top, left, image) in enumerate(part):
            box = (..., slice(top, top + sizes[0]), slice(left, left + sizes[0]))
            covered[(number, *image)][box] = fill[(0, *image)][box]
        repeated = [None if each is None else each.expand(len(part), *each.shape[1:]) for each in given]
        logits = network(covered, repeated[0], repeated[1])
        assert repeated[2] is not None
        found = objective(network, logits, repeated[2], repeated[3], in_units=True)
        for (top, left, image), value in zip(part, found, strict=True):
            yield (top, left), image, value
