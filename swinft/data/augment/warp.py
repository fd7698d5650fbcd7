"""What was drawn becomes pixels: images of any sizes, sampled where maps say.

Shapes: B batch, (S, T) common size that images are filled up to, (H, W) size of the result.
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
    """Samples images where maps say, bilinear.

    Args:
        images: float (B, 3, S, T).
        shapes: Height and width of the part at the upper left that each fills, (B, 2); None where all fill everything.
        matrix: From a pixel of the result to the image, both from −1 to 1 between their edges, float32 (B, 2, 3).
        image_size: (H, W).
        samples: How many samples along y and x each pixel of the result is the mean of.
        is_black_outside: What lies beyond an image is black; otherwise it is mirrored about its outermost pixels, as
            OpenCV's REFLECT_101 does.

    Returns:
        float (B, 3, H, W).
    """
    grid = _Grid(images, shapes, matrix, is_black_outside)
    total = torch.zeros((), device=images.device)
    for index in product(*map(range, samples)):
        # In pixels of the result, from the centre of one.
        y, x = ((place + 0.5) / count - 0.5 for place, count in zip(index, samples, strict=True))
        total = total + grid.sampled(image_size, (y, x)) / math.prod(samples)
    return total


def change(images: Tensor, colour: Tensor) -> Tensor:
    """Changes contrast and brightness.

    Args:
        images: float (B, 3, H, W) in 0–255.
        colour: Factor of every value, and what share of the image's mean is added after that, float32 (B, 2).

    Returns:
        The same, cut off at 0 and 255.
    """
    factor, share = colour[:, :, None, None, None].unbind(1)
    return (images * factor + images.mean((1, 2, 3), keepdim=True) * share).clamp(0, 255)


class _Grid:
    """Where `grid_sample` samples: from 0 at the centre of the first pixel of all, so that -1 is added last."""

    def __init__(self, images: Tensor, shapes: Tensor | None, matrix: Tensor, is_black_outside: bool) -> None:
        self.images, self.is_black_outside = images, is_black_outside
        self.keeps_inside = is_black_outside or shapes is not None
        self.steps = [max(side - 1, 1) for side in images.shape[-2:]]  # pixels from the first to the last of all
        self.sides: list[Any] = list(images.shape[-2:])
        if shapes is not None:
            self.sides = list(shapes.float()[:, :, None, None].unbind(1))  # (B, 1, 1) each
        # No matrix product as in `affine_grid`: with TF32 or bf16 allowed, it would miss by a tenth of a pixel.
        self.slopes = [
            (rows[:, 0] * (side / steps), rows[:, 1] * (side / steps), (rows[:, 2] * side + (side - 1)) / steps)
            for rows, side, steps in zip(matrix[..., None, None].flip(1).unbind(1), self.sides, self.steps, strict=True)
        ]

    def sampled(self, image_size: tuple[int, int], offset: tuple[float, float]) -> Tensor:
        """One sample per pixel of the result, so many pixels below and to the right of its centre."""
        y, x = (
            (2 * (torch.arange(side, device=self.images.device) + more) + 1) / side - 1
            for side, more in zip(image_size, offset, strict=True)
        )
        places = [slope[0] * x + slope[1] * y[:, None] + slope[2] for slope in self.slopes]
        folded = places
        if self.keeps_inside:
            folded = [
                self._folded(place, 2 * (side - 1) / steps)
                for place, side, steps in zip(places, self.sides, self.steps, strict=True)
            ]
        grid = torch.stack([folded[1] - 1, folded[0] - 1], dim=-1)
        found = functional.grid_sample(
            self.images, grid, mode="bilinear", padding_mode="reflection", align_corners=True
        )
        if not self.is_black_outside:
            return found
        for place, side, steps in zip(places, self.sides, self.steps, strict=True):
            found = found * ((place >= -1 / steps) & (place <= (2 * side - 1) / steps))[:, None]
        return found

    def _folded(self, place: Tensor, last: Tensor | float) -> Tensor:
        """Places within the part that an image fills, which ends at `last`: mirrored about its ends, or cut off."""
        if self.is_black_outside:
            return place.clamp(min=0).clamp(max=last)
        assert isinstance(last, Tensor)  # an image that fills everything is mirrored by the sampler
        return last - (place.abs() % (2 * last).clamp(min=1e-6) - last).abs()
