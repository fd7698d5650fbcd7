"""Test-time augmentation: the views of an image that are predicted and averaged.

Shapes: B batch, V views, K outputs.
"""

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

from swinft.errors import InputError

View = Literal["identity", "hflip", "vflip", "rot90", "rot180", "rot270", "transpose", "scale"]

# timm evaluates at a centre crop of 0.875 for most backbones: the zoom they were tuned to.
ZOOM_MARGIN = (1 - 0.875) / 2


def _scale(images: Tensor) -> Tensor:
    """Zooms into the centre: the middle 87.5 % of each side, enlarged to the full size."""
    height, width = images.shape[-2:]
    top, left = max(1, round(height * ZOOM_MARGIN)), max(1, round(width * ZOOM_MARGIN))
    crop = images[..., top:-top, left:-left].float()
    return functional.interpolate(crop, (height, width), mode="bilinear", align_corners=False, antialias=True)


VIEWS: dict[View, Callable[[Tensor], Tensor]] = {
    "identity": lambda images: images,
    "hflip": lambda images: images.flip(-1),
    "vflip": lambda images: images.flip(-2),
    "rot90": lambda images: images.rot90(1, (-2, -1)),
    "rot180": lambda images: images.rot90(2, (-2, -1)),
    "rot270": lambda images: images.rot90(3, (-2, -1)),
    "transpose": lambda images: images.transpose(-2, -1),
    "scale": _scale,
}
SWAPS_SIDES = {"rot90", "rot270", "transpose"}


def check_views(views: Sequence[View], image_size: tuple[int, int]) -> None:
    """Checks that views can be averaged at an image size.

    Args:
        views: Names from `VIEWS`.
        image_size: Height and width in pixels.

    Raises:
        InputError: No view, one given twice, or one that swaps the sides of an image that is not square.
    """
    if not views or len(set(views)) < len(views):
        raise InputError(
            f"predict.views is {list(views)}: name at least one view, each once, of {', '.join(get_args(View))}."
        )
    turned = sorted(SWAPS_SIDES.intersection(views))
    if turned and image_size[0] != image_size[1]:
        raise InputError(
            f"the views {turned} swap height and width, but data.image_size is {list(image_size)}. "
            f"Remove them from predict.views or use a square image_size."
        )


def predict_views(predict: Callable[[Tensor], Tensor], images: Tensor, views: Sequence[View]) -> Tensor:
    """The mean prediction over views, in the competition's units.

    Averaging happens after decoding: the mean of probabilities or of target values is what is submitted; a mean of
    logits would be another number.

    Args:
        predict: Images (B, 3, H, W) to decoded predictions (B, K).
        images: uint8 or float images (B, 3, H, W).
        views: Names from `VIEWS`.

    Returns:
        float32 predictions (B, K).
    """
    return torch.stack([predict(VIEWS[view](images)).float() for view in views]).mean(0)  # (V, B, K) -> (B, K)
