"""Whether a network in another form predicts what torch predicts: the images that are tried, and the difference.

Shapes: B batch, H and W pixels, F metadata features, K outputs.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from swinft.model.network import ImageModel


class Predicting(nn.Module):
    """A network whose forward pass is `predict`, which is what gets converted."""

    def __init__(self, net: ImageModel) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor, features: Tensor | None = None) -> Tensor:
        """Pixels (B, 3, H, W) and metadata (B, F) to predictions (B, K)."""
        return self.net.predict(image, features)


def example_inputs(net: ImageModel, image_size: tuple[int, int], num_images: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Images of coloured patches under noise, each unlike the others, and metadata as in training where there is any.

    Pure noise would not do: every such image looks the same to a network, and so would a wrong one's predictions.

    Args:
        net: What they are for.
        image_size: Height and width in pixels.
        num_images: B.
        seed: Other numbers give other images.
    """
    random = torch.Generator().manual_seed(seed)
    patches = torch.rand(num_images, 3, 4, 4, generator=random) * 255
    noise = torch.randn(num_images, 3, *image_size, generator=random) * 20
    image = (functional.interpolate(patches, image_size) + noise).clamp(0, 255).round()
    if net.metadata is None:
        return (image,)
    return image, net.metadata.draw(num_images, random)


def largest_difference(found: Tensor, expected: Tensor, smallest_range: float, is_one_unit: bool = False) -> float:
    """Largest difference as a share of the range of what is expected; NaN where one of both is NaN.

    Args:
        found: Of the other form (B, K).
        expected: Of torch (B, K).
        smallest_range: The range is at least this share of the largest magnitude: where predictions hardly vary over
            the images, fp32's own rounding would be a large share of next to nothing.
        is_one_unit: Whether the outputs share one unit, and so one range, as probabilities do.
    """
    outputs = expected.flatten()[:, None] if is_one_unit else expected
    differences = (found - expected).abs()
    spread = outputs.amax(0) - outputs.amin(0)
    smallest = (smallest_range * outputs.abs().amax(0)).clamp_min(torch.finfo(torch.float32).tiny)
    return float((differences.amax(0) / spread.maximum(smallest)).max())
