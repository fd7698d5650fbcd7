"""Items become a batch with one copy per image."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import default_collate, get_worker_info

from swinft.errors import InputError


def collate(items: Sequence[dict[str, Any]], pins: bool = False) -> dict[str, Any]:
    """Makes a batch of items whose `image`, if they have one, is uint8 (H, W, 3); all else is stacked as PyTorch does.

    Args:
        items: B of them, with equal names and shapes.
        pins: As for `batch_images`.
    """
    rest: dict[str, Any] = default_collate(
        [{name: value for name, value in item.items() if name != "image"} for item in items]
    )
    return {"image": batch_images([item["image"] for item in items], pins), **rest} if "image" in items[0] else rest


def batch_images(images: Sequence[NDArray[np.uint8]], pins: bool = False) -> Tensor:
    """Copies images into one tensor that is allocated where it is needed next.

    That is memory shared with the main process if called in a worker, else page-locked memory if a CUDA device is next:
    the tensor is not copied again before it goes to the device.

    Args:
        images: B arrays, uint8 (H, W, 3), of one shape.
        pins: A CUDA device is next.

    Returns:
        uint8 (B, 3, H, W) in `channels_last` order: the channels of a pixel stay side by side, as images have them, and
        nothing is transposed.

    Raises:
        InputError: The shapes differ.
    """
    shapes = {image.shape for image in images}
    if len(shapes) > 1:
        raise InputError(f"images of different shapes cannot be one batch: {sorted(shapes)}. Resize them to one size.")
    batch = _empty((len(images), *images[0].shape), pins)
    rows = batch.numpy()
    for row, image in zip(rows, images, strict=True):
        row[:] = image
    return batch.permute(0, 3, 1, 2)


def _empty(shape: tuple[int, ...], pins: bool) -> Tensor:
    if get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8, pin_memory=pins)
    # As PyTorch's own collation does: filled in place, instead of copied into shared memory by the queue.
    storage = torch.UntypedStorage._new_shared(math.prod(shape))  # type: ignore[no-untyped-call]
    return torch.empty(0, dtype=torch.uint8).set_(storage).view(shape)
