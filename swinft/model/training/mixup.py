"""Mixup and cutmix: pure functions on a batch, and the random choice between them.

Image, target, metadata and weight of a row are mixed with those of another row, in the same ratio. Targets and metadata
are mixed in encoded form: one-hot rows, 0/1 rows and numbers. If the loss is linear in the target, as cross-entropy is,
the loss of a mixed target is the mixed loss.

Shapes: B batch, H and W pixels, K outputs.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from swinft.ranges import NOT_NEGATIVE, UNIT, check_ranges


@dataclass(frozen=True)
class MixConfig:
    """When and how strongly to mix.

    Args:
        mixup_alpha: Both parameters of the Beta distribution of mixup's ratio; 0 for no mixup.
        cutmix_alpha: The same for cutmix's area; 0 for no cutmix. If both are set, one is chosen at random per batch.
        probability: Fraction of batches that are mixed, in 0–1.
    """

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        """Checks the ranges."""
        ranges = {"mixup_alpha": NOT_NEGATIVE, "cutmix_alpha": NOT_NEGATIVE, "probability": UNIT}
        check_ranges("model.mix", vars(self), ranges)


def mixup(images: Tensor, targets: Tensor, share: float, order: Tensor, *more: Tensor) -> tuple[Tensor, ...]:
    """Blends every row with another one (arXiv 1710.09412).

    Args:
        images: uint8 or float (B, 3, H, W).
        targets: Encoded targets, float (B, K).
        share: Weight of the row itself, in 0–1.
        order: The row to blend with, int64 (B,).
        *more: Other tensors of the rows, float (B, …).

    Returns:
        Images as float in the same range, targets, and `more`.
    """
    return tuple(x.lerp(x[order], 1 - share) for x in (images.float(), targets, *more))


def cutmix(
    images: Tensor, targets: Tensor, box: tuple[int, int, int, int], order: Tensor, *more: Tensor
) -> tuple[Tensor, ...]:
    """Pastes a box of another row into every row, and mixes the rest by area (arXiv 1905.04899).

    Args:
        images: uint8 or float (B, 3, H, W).
        targets: Encoded targets, float (B, K).
        box: Top, bottom, left, right in pixels; bottom and right are exclusive.
        order: The row to paste from, int64 (B,).
        *more: Other tensors of the rows, float (B, …).

    Returns:
        Images in the same dtype, targets, and `more`.
    """
    top, bottom, left, right = box
    mixed = images.clone()
    mixed[:, :, top:bottom, left:right] = images[order, :, top:bottom, left:right]
    area = (bottom - top) * (right - left) / (images.shape[-2] * images.shape[-1])
    return mixed, *(x.lerp(x[order], area) for x in (targets, *more))


def draw_box(height: int, width: int, share: float, rng: np.random.Generator) -> tuple[int, int, int, int]:
    """A box of about `1 - share` of the image around a uniformly drawn centre, clipped at the edges."""
    side = np.sqrt(1 - share)
    half_height, half_width = int(height * side) // 2, int(width * side) // 2
    y, x = int(rng.integers(height)), int(rng.integers(width))
    return max(y - half_height, 0), min(y + half_height, height), max(x - half_width, 0), min(x + half_width, width)


def mix(
    images: Tensor, targets: Tensor, config: MixConfig, rng: np.random.Generator, *more: Tensor
) -> tuple[Tensor, ...]:
    """Mixes a batch as configured, or returns it unchanged.

    Args:
        images: uint8 or float in 0–255 (B, 3, H, W).
        targets: Encoded targets, float (B, K).
        config: When and how strongly.
        rng: On the CPU: random numbers from the device would synchronise it.
        *more: Other tensors of the rows, float (B, …): encoded metadata, weights.

    Returns:
        Images, targets, and `more`.
    """
    alphas = {mixup: config.mixup_alpha, cutmix: config.cutmix_alpha}
    methods = [method for method, alpha in alphas.items() if alpha > 0]
    if not methods or rng.random() >= config.probability:
        return images, targets, *more
    method = methods[int(rng.integers(len(methods)))]
    share = float(rng.beta(alphas[method], alphas[method]))
    # Only CUDA keeps the source of an asynchronous copy alive; on MPS it is freed at once, and may be overwritten.
    order = torch.from_numpy(rng.permutation(len(images))).to(images.device, non_blocking=images.is_cuda)
    if method is mixup:
        return mixup(images, targets, share, order, *more)
    return cutmix(images, targets, draw_box(images.shape[-2], images.shape[-1], share, rng), order, *more)
