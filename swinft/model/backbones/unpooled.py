"""A backbone's features before its pooling, in one layout, and what it has behind the pooling.

timm's models give them as (B, C, H, W), (B, H, W, C) or (B, prefix + H · W, C); which one is seen by where C stands.

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
        wrap: Brings one vector per image, (B, C), into the backbone's layout of an image with that vector at its only
            position.
    """

    tokens: Tensor
    grid: tuple[int, int]
    wrap: Callable[[Tensor], Tensor]


def pooled(model: Any, image: Tensor, pool: Pool) -> Tensor:
    """Normalised images (B, 3, H, W) to features, pooled by `pool` in the place of the backbone's own pooling.

    A backbone's own pooling of a single position is that position: what it has behind its pooling is applied so.
    """
    found = unpooled(model, image)
    features = pool(found.tokens, found.grid)
    if not hasattr(model, "forward_head"):
        return features
    width = found.tokens.shape[2]
    if features.shape[1] % width:
        raise InputError(
            f"{type(pool).__name__} gives {features.shape[1]} features for {width} channels (model.pooling); with a "
            f"timm backbone it must be a multiple of them."
        )
    return torch.cat([model.forward_head(found.wrap(part)) for part in torch.split(features, width, 1)], 1)


def unpooled(model: Any, image: Tensor) -> Unpooled:
    """Features of the positions of normalised images (B, 3, H, W).

    Raises:
        InputError: The backbone does not give them, or in none of the three layouts.
    """
    if not hasattr(model, "forward_features"):
        raise InputError(
            f"{type(model).__name__} has no `forward_features` with the features of all positions: set model.pooling "
            f"to avg, which is the backbone's own."
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
        f"{type(model).__name__}.forward_features gives {given} for {width} channels, which is no map of features: set "
        f"model.pooling to avg, which is the backbone's own."
    )


def _wrap_first(features: Tensor) -> Tensor:
    return features[:, :, None, None]


def _wrap_last(features: Tensor) -> Tensor:
    return features[:, None, None, :]


def _wrap_tokens(features: Tensor, prefix: int) -> Tensor:
    return features[:, None, :].expand(-1, prefix + 1, -1)  # also as the tokens that belong to no position


def pooled_width(model: nn.Module, pool: Any, size: tuple[int, int]) -> int:
    """How many features a backbone gives with a pooling, found by trying it on an image of a size.

    Raises:
        InputError: They do not go together.
    """
    was_training = model.training, pool.training
    try:
        with torch.inference_mode():
            features = pooled(model.eval(), torch.zeros(1, 3, *size), pool.eval())
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{type(pool).__name__} (model.pooling) fails behind {type(model).__name__} at {size[0]} x {size[1]} px: "
            f"{type(error).__name__}: {error}"
        ) from error
    finally:
        model.train(was_training[0])
        pool.train(was_training[1])
    if features.ndim != 2 or len(features) != 1:
        raise InputError(
            f"{type(pool).__name__} gives {tuple(features.shape)} (model.pooling); it must give (B, num_features)."
        )
    return features.shape[1]
