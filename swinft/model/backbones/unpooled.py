"""A backbone's unpooled features in one layout, and the layers after its pooling.

timm's models return (B, C, H, W), (B, H, W, C) or (B, prefix + H · W, C), told apart by the dimension of size C.

Shapes: B batch, N positions of the grid, C channels.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from swinft.errors import InputError


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


def pooled(model: Any, image: Tensor, pool: Any) -> Any:
    """Normalised images (B, 3, H, W) to features, pooled by `pool` instead of the backbone's own pooling; or to maps.

    The backbone's own pooling of a single position is the identity, so `forward_head` applies only the layers after it.

    Raises:
        InputError: The backbone does not return what the pooling takes.
    """
    reads = getattr(pool, "reads", "positions")
    if reads == "maps":
        return pool(model, image)
    earlier: list[Tensor] = []
    if reads == "stages":
        final, maps = stage_features(model, image, pool.stages)
        found = laid_out(model, final, image.shape)
        for each in maps:
            earlier.append(_standardised(pool(each.flatten(2).transpose(1, 2), (each.shape[2], each.shape[3]))))
    else:
        found = class_token(model, image) if reads == "class_token" else unpooled(model, image)
    features = pool(found.tokens, found.grid)
    if not hasattr(model, "forward_head"):
        return torch.cat([features, *earlier], 1) if earlier else features
    width = found.tokens.shape[2]
    if features.shape[1] % width:
        raise InputError(
            f"{type(pool).__name__} returns {features.shape[1]} features for {width} channels (model.pooling); with a "
            f"timm backbone it must be a multiple of them."
        )
    parts = [model.forward_head(found.wrap(part)) for part in torch.split(features, width, 1)]
    return torch.cat([*parts, *earlier], 1)


def unpooled(model: Any, image: Tensor) -> Unpooled:
    """Features of all positions of normalised images (B, 3, H, W).

    Raises:
        InputError: The backbone does not return them in one of the three layouts.
    """
    return laid_out(model, _forward_features(model, image), image.shape)


def laid_out(model: Any, features: Any, shape: Sequence[int]) -> Unpooled:
    """What a backbone returns for images of shape (B, 3, H, W), as features of positions.

    Raises:
        InputError: It has none of the three layouts.
    """
    width = int(model.num_features)
    given = tuple(features.shape) if isinstance(features, Tensor) else ()
    if len(given) == 4 and width in (given[1], given[3]):
        is_last = given[3] == width and (given[1] != width or str(getattr(model, "output_fmt", "")).endswith("NHWC"))
        rows, columns = (given[1], given[2]) if is_last else (given[2], given[3])
        tokens = features.flatten(1, 2) if is_last else features.flatten(2).transpose(1, 2)
        return Unpooled(tokens, (rows, columns), _wrap_last if is_last else _wrap_first)
    prefix = int(getattr(model, "num_prefix_tokens", 0))
    if len(given) == 3 and given[2] == width:
        count = given[1] - prefix
        rows = round(math.sqrt(count * shape[2] / shape[3]))
        if rows and count == rows * (count // rows):
            return Unpooled(features[:, prefix:], (rows, count // rows), lambda each: _wrap_tokens(each, prefix))
    what = f"a tensor {given}" if given else f"a {type(features).__name__}"
    raise InputError(
        f"{type(model).__name__}.forward_features returns {what} for {width} channels, which is not a feature map: set "
        f"model.pooling to avg, the backbone's own pooling."
    )


def class_token(model: Any, image: Tensor) -> Unpooled:
    """The class token of normalised images (B, 3, H, W), as a single position.

    Raises:
        InputError: The backbone has no class token.
    """
    if getattr(model, "cls_token", None) is None:
        raise InputError(
            f"{type(model).__name__} has no class token: set model.pooling to avg, the backbone's own pooling, or to "
            f"another pooling of positions."
        )
    features, width = _forward_features(model, image), int(model.num_features)
    if not isinstance(features, Tensor) or features.ndim != 3 or features.shape[2] != width:
        raise InputError(
            f"{type(model).__name__}.forward_features does not return tokens (B, tokens, {width}) with the class "
            f"token first: set model.pooling to avg, the backbone's own pooling."
        )
    prefix = max(1, int(getattr(model, "num_prefix_tokens", 1)))
    return Unpooled(features[:, :1], (1, 1), lambda each: _wrap_tokens(each, prefix))


def stage_features(model: Any, image: Tensor, stages: int | list[int]) -> tuple[Any, list[Tensor]]:
    """Final features of normalised images (B, 3, H, W), and those of earlier stages (B, channels, rows, columns).

    Args:
        model: The backbone.
        image: The images.
        stages: As in `StagesPooling`.

    Raises:
        InputError: The backbone does not return them, or has fewer stages.
    """
    if not hasattr(model, "forward_intermediates"):
        raise InputError(
            f"{type(model).__name__} does not return the features of its stages: choose another model.pooling than "
            f"stages, or another model.backbone."
        )
    count = len(model.feature_info)
    chosen = list(range(count - stages, count - 1)) if isinstance(stages, int) else stages
    if not all(-count <= each < count for each in chosen):
        raise InputError(
            f"StagesPooling: stages is {stages}, and {type(model).__name__} has {count} stages, 0 to {count - 1}."
        )
    final, maps = model.forward_intermediates(image, indices=chosen)
    return final, list(maps)


def _standardised(features: Tensor) -> Tensor:
    """Features (B, any width) with mean 0 and deviation 1; layer norm would need their number, which a trace hides."""
    centred = features.float() - features.float().mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True) + 1e-5).sqrt()


def _forward_features(model: Any, image: Tensor) -> Any:
    if not hasattr(model, "forward_features"):
        raise InputError(
            f"{type(model).__name__} has no `forward_features` with the features of all positions: set model.pooling "
            f"to avg, the backbone's own pooling."
        )
    return model.forward_features(image)


def _wrap_first(features: Tensor) -> Tensor:
    return features[:, :, None, None]


def _wrap_last(features: Tensor) -> Tensor:
    return features[:, None, None, :]


def _wrap_tokens(features: Tensor, prefix: int) -> Tensor:
    return features[:, None, :].expand(-1, prefix + 1, -1)  # class and register tokens get the same vector


def pooled_width(model: nn.Module, pool: Any, size: tuple[int, int], channels: int = 3) -> int:
    """Number of features of a backbone with a pooling, found by a forward pass at an image size.

    Raises:
        InputError: The pooling does not fit the backbone.
    """
    was_training = model.training, pool.training
    try:
        with torch.inference_mode():
            features = pooled(model.eval(), torch.zeros(1, channels, *size), pool.eval())
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
    return int(features.shape[1])
