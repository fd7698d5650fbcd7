"""A backbone's unpooled features in one layout, and the layers after its pooling.

timm's models return (B, C, H, W), (B, H, W, C) or (B, prefix + H · W, C), told apart by the dimension of size C.

Shapes: B batch, N positions of the grid, C channels.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from swinft.errors import InputError

Pool = Callable[[Tensor, tuple[int, int]], Tensor]


class Unpooled(NamedTuple):
    """Features of an image's positions.

    Args:
        tokens: (B, N, C), row by row.
        grid: Rows and columns; N is their product.
        wrap: Converts one vector per image, (B, C), to the backbone's layout for an image with a single position.
    """

    tokens: Tensor
    grid: tuple[int, int]
    wrap: Callable[[Tensor], Tensor]


def pooled(model: Any, image: Tensor, pool: Pool) -> Tensor:
    """Normalised images (B, 3, H, W) to features, pooled by `pool` instead of the backbone's own pooling.

    The backbone's own pooling of a single position is the identity, so `forward_head` applies only the layers after it.
    """
    found = unpooled(model, image)
    features = pool(found.tokens, found.grid)
    if not hasattr(model, "forward_head"):
        return features
    width = found.tokens.shape[2]
    if features.shape[1] % width:
        raise InputError(
            f"{type(pool).__name__} returns {features.shape[1]} features for {width} channels (model.pooling); with a "
            f"timm backbone it must be a multiple of them."
        )
    return torch.cat([model.forward_head(found.wrap(part)) for part in torch.split(features, width, 1)], 1)


def unpooled(model: Any, image: Tensor) -> Unpooled:
    """Features of all positions of normalised images (B, 3, H, W).

    Raises:
        InputError: The backbone does not return them in one of the three layouts.
    """
    if not hasattr(model, "forward_features"):
        raise InputError(
            f"{type(model).__name__} has no `forward_features` with the features of all positions: set model.pooling "
            f"to avg, the backbone's own pooling."
        )
    features, width = model.forward_features(image), int(model.num_features)
    shape = tuple(features.shape) if isinstance(features, Tensor) else ()
    if len(shape) == 4 and width in (shape[1], shape[3]):
        is_last = shape[3] == width and (shape[1] != width or str(getattr(model, "output_fmt", "")).endswith("NHWC"))
        rows, columns = (shape[1], shape[2]) if is_last else (shape[2], shape[3])
        tokens = features.flatten(1, 2) if is_last else features.flatten(2).transpose(1, 2)
        return Unpooled(tokens, (rows, columns), _wrap_last if is_last else _wrap_first)
    prefix = int(getattr(model, "num_prefix_tokens", 0))
    if len(shape) == 3 and shape[2] == width:
        count = shape[1] - prefix
        rows = round(math.sqrt(count * image.shape[2] / image.shape[3]))
        if rows and count == rows * (count // rows):
            return Unpooled(features[:, prefix:], (rows, count // rows), lambda each: _wrap_tokens(each, prefix))
    given = f"a tensor {shape}" if shape else f"a {type(features).__name__}"
    raise InputError(
        f"{type(model).__name__}.forward_features returns {given} for {width} channels, which is not a feature map: "
        f"set model.pooling to avg, the backbone's own pooling."
    )


def _wrap_first(features: Tensor) -> Tensor:
    return features[:, :, None, None]


def _wrap_last(features: Tensor) -> Tensor:
    return features[:, None, None, :]


def _wrap_tokens(features: Tensor, prefix: int) -> Tensor:
    return features[:, None, :].expand(-1, prefix + 1, -1)  # class and register tokens get the same vector


def pooled_width(model: nn.Module, pool: Any, size: tuple[int, int]) -> int:
    """Number of features of a backbone with a pooling, found by a forward pass at an image size.

    Raises:
        InputError: The pooling does not fit the backbone.
    """
    was_training = model.training, pool.training
    try:
        with torch.inference_mode():
            features = pooled(model.eval(), torch.zeros(1, 3, *size), pool.eval())
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{type(pool).__name__} (model.pooling) fails after {type(model).__name__} at {size[0]} x {size[1]} px: "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        model.train(was_training[0])
        pool.train(was_training[1])
    if features.ndim != 2 or len(features) != 1:
        raise InputError(
            f"{type(pool).__name__} returns {tuple(features.shape)} (model.pooling); it must return (B, num_features)."
        )
    return features.shape[1]
