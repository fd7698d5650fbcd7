"""Compares a converted network with torch: example images, and the largest difference.

Shapes: B batch, H and W pixels, F metadata features, K outputs.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from swinft.model.network import ImageModel


class Predicting(nn.Module):
    """A module whose forward pass is `predict`, for conversion."""

    def __init__(self, net: ImageModel) -> None:
        super().__init__()
        self.net = net

    def forward(self, image: Tensor, second: Tensor | None = None, third: Tensor | None = None) -> Tensor:
        """What `ImageModel.inputs` names, in its order, to predictions (B, K)."""
        given = [tensor for tensor in (image, second, third) if tensor is not None]
        return self.net.predict(**dict(zip(self.net.inputs, given, strict=True)))


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
    *several, channels, height, width = net.image_shape(image_size)
    count = num_images * math.prod(several)
    patches = torch.rand(count, channels, 4, 4, generator=random) * 255
    noise = torch.randn(count, channels, height, width, generator=random) * 20
    image = (functional.interpolate(patches, image_size) + noise).clamp(0, 255).round()
    given = {"image": image.reshape(num_images, *several, channels, height, width)}
    if net.metadata is not None:
        given["features"] = net.metadata.draw(num_images, random)
    if net.fusion is not None:
        mask = torch.rand(num_images, *several, generator=random) < 0.75
        mask[:, 0] = True
        given["image_mask"] = mask
    return tuple(given[name] for name in net.inputs)


def output_ranges(expected: Tensor, smallest_range: float, is_one_unit: bool = False) -> Tensor:
    """The range of each output, (K,) or (1,), by which differences are divided.

    Args:
        expected: Outputs of torch (N, K), of as many images as there are: the outputs of a few images may by chance be
            equal, or close to zero.
        smallest_range: Lower limit of the range, relative to the largest magnitude: if predictions hardly vary over the
            images, the rounding of fp32 would otherwise be a large fraction of the range.
        is_one_unit: Whether all outputs have one unit, and so one range, as probabilities do.
    """
    outputs = expected.flatten()[:, None] if is_one_unit else expected
    spread = outputs.amax(0) - outputs.amin(0)
    smallest = (smallest_range * outputs.abs().amax(0)).clamp_min(torch.finfo(torch.float32).tiny)
    return spread.maximum(smallest)


def largest_difference(found: Tensor, expected: Tensor, ranges: Tensor) -> float:
    """Largest difference of outputs (B, K), relative to the ranges of the outputs; NaN if any output is NaN."""
    return float(((found - expected).abs().amax(0) / ranges).max())
