"""Compares a converted network with torch: example images, and the largest difference.

Shapes: B batch, H and W pixels, F metadata features, K outputs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from swinft.model.network import ImageModel


class Predicting(nn.Module):
    """A module whose forward pass is `predict`, for conversion."""

    def __init__(self, net: ImageModel) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor, features: Tensor | None = None) -> Tensor:
        """Pixels (B, 3, H, W) and metadata (B, F) to predictions (B, K)."""
        return self.net.predict(image, features)


def example_inputs(net: ImageModel, image_size: tuple[int, int], num_images: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Different images of coloured patches with noise, and metadata distributed as in training, if there is any.

    Pure noise is not enough: a network predicts nearly the same for all such images, even a wrong network.

    Args:
        net: The network to compare.
        image_size: Height and width in pixels.
        num_images: B.
        seed: Selects the images.
    """
    random = torch.Generator().manual_seed(seed)
    patches = torch.rand(num_images, 3, 4, 4, generator=random) * 255
    noise = torch.randn(num_images, 3, *image_size, generator=random) * 20
    image = (functional.interpolate(patches, image_size) + noise).clamp(0, 255).round()
    if net.metadata is None:
        return (image,)
    return image, net.metadata.draw(num_images, random)


def largest_difference(found: Tensor, expected: Tensor, smallest_range: float, is_one_unit: bool = False) -> float:
    """Largest difference relative to the range of the expected outputs; NaN if any output is NaN.

    Args:
        found: Outputs of the converted network (B, K).
        expected: Outputs of torch (B, K).
        smallest_range: Lower limit of the range, relative to the largest magnitude: if predictions hardly vary over the
            images, the rounding of fp32 would otherwise be a large fraction of the range.
        is_one_unit: Whether all outputs have one unit, and so one range, as probabilities do.
    """
    outputs = expected.flatten()[:, None] if is_one_unit else expected
    differences = (found - expected).abs()
    spread = outputs.amax(0) - outputs.amin(0)
    smallest = (smallest_range * outputs.abs().amax(0)).clamp_min(torch.finfo(torch.float32).tiny)
    return float((differences.amax(0) / spread.maximum(smallest)).max())
