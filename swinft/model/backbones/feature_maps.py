"""Feature maps of a backbone's stages, from fine to coarse, in the form that decoders take.

Shapes: B batch, C channels, (H, W) pixels, a multiple of the stride of the coarsest map.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from swinft.errors import InputError

STRIDE = 32  # of the coarsest map of nearly every hierarchical backbone: sides are padded to its multiples


def padded_size(size: tuple[int, int], stride: int = STRIDE) -> tuple[int, int]:
    """The smallest multiples of a stride that cover a height and width."""
    return -(-size[0] // stride) * stride, -(-size[1] // stride) * stride


class FeatureMaps:
    """Reads the maps of a timm model; removes the layers that no map needs.

    Args:
        model: A timm model, at its image size.
        size: Height and width in pixels.
        channels: C of its images.

    Raises:
        InputError: Its stages do not halve the resolution one after another, as those of a hierarchical backbone do.
    """

    reads = "maps"  # what `Backbone.forward` returns with it

    def __init__(self, model: Any, size: tuple[int, int], channels: int = 3) -> None:
        if not hasattr(model, "forward_intermediates"):
            raise InputError(
                f"{type(model).__name__} does not return the feature maps of its stages, which segmentation needs: "
                f"name another model.backbone, such as swin_tiny_patch4_window7_224 or resnet34."
            )
        size = padded_size(size)
        every = list(range(len(model.feature_info)))
        maps = _tried(model, (channels, *size), every)
        last_of = {round(size[0] / each.shape[2]): index for index, each in enumerate(maps)}  # the last of each size
        self.strides, self.stages = list(last_of), list(last_of.values())
        found = [math.log2(stride) for stride in self.strides]
        if found != [found[0] + k for k in range(len(found))] or found[0] > 2 or len(found) < 2:
            raise InputError(
                f"{type(model).__name__} has feature maps of strides {self.strides}, and segmentation needs a "
                f"hierarchical backbone, whose stages halve the resolution, such as 4, 8, 16, 32: name another "
                f"model.backbone, such as swin_tiny_patch4_window7_224 or resnet34."
            )
        if hasattr(model, "prune_intermediate_layers"):  # several processes would wait for gradients of unused layers
            model.prune_intermediate_layers(self.stages, prune_norm=True, prune_head=True)
        self.channels = [channels, *self._filled([0] * len(self.strides), [maps[k].shape[1] for k in self.stages])]

    @property
    def stride(self) -> int:
        """What the sides of images are padded to multiples of; the backbone was made for such a size."""
        return max(STRIDE, self.strides[-1])

    def _filled(self, empty: Sequence[Any], given: Sequence[Any]) -> list[Any]:
        """Values of the maps of stride 2 and more: `empty` for those that the backbone lacks; none of stride 1."""
        missing = max(0, int(math.log2(self.strides[0])) - 1)
        return [*empty[:missing], *given][(self.strides[0] == 1) :]

    def __call__(self, model: Any, image: Tensor) -> list[Tensor]:
        """The images (B, C, H, W) and the maps of strides 2, 4, …; one that the backbone lacks has no channels."""
        maps = _maps(model, image, self.stages)
        half = image.new_empty((len(image), 0, image.shape[2] // 2, image.shape[3] // 2), dtype=maps[0].dtype)
        return [image, *self._filled([half], maps)]


def padded(image: Tensor, stride: int) -> Tensor:
    """Images (B, C, H, W) with their last row and column repeated until the sides are multiples of a stride."""
    height, width = padded_size((image.shape[-2], image.shape[-1]), stride)
    rest = (0, width - image.shape[-1], 0, height - image.shape[-2])
    return functional.pad(image.float(), rest, mode="replicate") if any(rest) else image


def _maps(model: Any, image: Tensor, stages: list[int]) -> list[Tensor]:
    return list(model.forward_intermediates(image, indices=stages, intermediates_only=True))


@torch.no_grad()
def _tried(model: Any, shape: tuple[int, ...], stages: list[int]) -> list[Tensor]:
    """The maps of an image of zeros."""
    was_training = model.training
    try:
        return _maps(model.eval(), torch.zeros(1, *shape), stages)
    finally:
        model.train(was_training)
