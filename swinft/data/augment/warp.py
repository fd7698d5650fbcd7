"""Applies augmentation parameters on a device: affine sampling of images of any sizes, and colour changes.

Shapes: B batch, (S, T) common padded size, (H, W) output size.
"""

import math
from itertools import product
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def warp(
    images: Tensor,
    shapes: Tensor | None,
    matrix: Tensor,
    image_size: tuple[int, int],
    samples: tuple[int, int] = (1, 1),
    is_black_outside: bool = False,
) -> Tensor:
    """Samples images through affine maps, bilinear.

    Args:
        images: float (B, 3, S, T).
        shapes: Height and width of each image, at the upper left of the padded size, (B, 2); None without padding.
        matrix: From output to image coordinates, both from −1 to 1 between the edges, float32 (B, 2, 3).
        image_size: (H, W).
        samples: Numbers of samples along y and x that are averaged for each output pixel.
        is_black_outside: Outside of an image is black; otherwise it is mirrored as with OpenCV's REFLECT_101.

    Returns:
        float (B, 3, H, W).
    """
    grid = _Grid(images, shapes, matrix, is_black_outside)
    total = torch.zeros((), device=images.device)
    for index in product(*map(range, samples)):
        # In output pixels, from the centre of one.
        y, x = ((k + 0.5) / count - 0.5 for k, count in zip(index, samples, strict=True))
        total = total + grid.sampled(image_size, (y, x)) / math.prod(samples)
    return total


def adjust_colour(images: Tensor, colour: Tensor) -> Tensor:
    """Changes contrast and brightness.

    Args:
        images: float (B, 3, H, W) in 0–255.
        colour: Factor of every value, and the fraction of the image's mean that is added then, float32 (B, 2).

    Returns:
        Images of the same shape, clamped to 0–255.
    """
    factor, share = colour[:, :, None, None, None].unbind(1)
    return (images * factor + images.mean((1, 2, 3), keepdim=True) * share).clamp(0, 255)


class _Grid:
    """Sampling positions for `grid_sample`: 0 is the centre of the first pixel here; −1 is added last."""

    def __init__(self, images: Tensor, shapes: Tensor | None, matrix: Tensor, is_black_outside: bool) -> None:
        self.images, self.is_black_outside = images, is_black_outside
        self.keeps_inside = is_black_outside or shapes is not None
        self.steps = [max(side - 1, 1) for side in images.shape[-2:]]  # from the first to the last pixel
        self.sides: list[Any] = list(images.shape[-2:])
        if shapes is not None:
            self.sides = list(shapes.float()[:, :, None, None].unbind(1))  # (B, 1, 1) each
        # No matrix product as in `affine_grid`: with TF32 or bf16 it would be off by a tenth of a pixel.
        self.slopes = [
            (rows[:, 0] * (side / steps), rows[:, 1] * (side / steps), (rows[:, 2] * side + (side - 1)) / steps)
            for rows, side, steps in zip(matrix[..., None, None].flip(1).unbind(1), self.sides, self.steps, strict=True)
        ]

    def sampled(self, image_size: tuple[int, int], offset: tuple[float, float]) -> Tensor:
        """One sample per output pixel, at an offset (y, x) from its centre, in output pixels."""
        y, x = (
            (2 * (torch.arange(side, device=self.images.device) + more) + 1) / side - 1
            for side, more in zip(image_size, offset, strict=True)
        )
        positions = [slope[0] * x + slope[1] * y[:, None] + slope[2] for slope in self.slopes]
        inside = positions
        if self.keeps_inside:
            inside = [
                self._inside(position, 2 * (side - 1) / steps)
                for position, side, steps in zip(positions, self.sides, self.steps, strict=True)
            ]
        grid = torch.stack([inside[1] - 1, inside[0] - 1], dim=-1)
        sampled = functional.grid_sample(
            self.images, grid, mode="bilinear", padding_mode="reflection", align_corners=True
        )
        if not self.is_black_outside:
            return sampled
        for position, side, steps in zip(positions, self.sides, self.steps, strict=True):
            sampled = sampled * ((position >= -1 / steps) & (position <= (2 * side - 1) / steps))[:, None]
        return sampled

    def _inside(self, position: Tensor, last: Tensor | float) -> Tensor:
        """Positions within an image that ends at `last`: clamped for black borders, mirrored otherwise."""
        if self.is_black_outside:
            return position.clamp(min=0).clamp(max=last)
        assert isinstance(last, Tensor)  # without padding, `grid_sample` mirrors
        return last - (position.abs() % (2 * last).clamp(min=1e-6) - last).abs()
