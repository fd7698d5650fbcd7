"""The collate function: PyTorch's default, with images in `channels_last` memory format."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import default_collate

from swinft.errors import InputError


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Collates items into a batch; `image`, if present, is (H, W, 3), or (V, H, W, 3) of several images.

    Args:
        items: B items with equal keys and shapes.

    Returns:
        Stacked values; `image` is (B, 3, H, W) in `channels_last` format, so that no memory is transposed, or
        (B, V, 3, H, W).

    Raises:
        InputError: The images' shapes differ.
    """
    if "image" not in items[0]:
        return dict(default_collate(list(items)))
    shapes = {item["image"].shape for item in items}
    if len(shapes) > 1:
        raise InputError(f"images of different shapes cannot be one batch: {sorted(shapes)}. Resize them to one size.")
    with warnings.catch_warnings():  # cached images are read-only; they are only copied here
        warnings.filterwarnings("ignore", "The given NumPy array is not writable")
        images = [torch.from_numpy(item["image"]) for item in items]
    batch = dict(default_collate([item | {"image": image} for item, image in zip(items, images, strict=True)]))
    return batch | {"image": batch["image"].movedim(-1, -3)}
