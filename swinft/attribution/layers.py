"""Layers of a backbone whose activations have positions: found by timm's contract, and recorded in a forward pass.

timm's `feature_info` names a module for each stage, or each block of a ViT. Their outputs, and what `forward_features`
returns, are (B, C, H, W), (B, H, W, C) or (B, prefix + H · W, C), told apart by the dimension of size C.

Shapes: B images, C channels, N positions.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn

from swinft.errors import InputError, suggest

FINAL = "final"  # the name of what `forward_features` returns


class Activation(NamedTuple):
    """What a layer returned in a forward pass.

    Args:
        layer: Its name: that of its module, or `final`.
        tensor: What it returned, part of the graph of the logits.
        channels: C.
        prefix: Number of class and register tokens before the positions.
    """

    layer: str
    tensor: Tensor
    channels: int
    prefix: int

    def positions(self, values: Tensor, size: Sequence[int]) -> tuple[Tensor, tuple[int, int]] | None:
        """Values of the layer's shape, such as its gradient, as (B, N, C), with rows and columns of the grid.

        Args:
            values: Of the shape of `tensor`.
            size: Height and width of the images, which a grid of tokens is shaped like.

        Returns:
            None if it has none of the three layouts.
        """
        given = tuple(values.shape)
        if values.ndim == 4 and self.channels in (given[1], given[3]):
            is_last = given[3] == self.channels and (given[1] != self.channels or given[1] == given[2])
            grid = (given[1], given[2]) if is_last else (given[2], given[3])
            return (values.flatten(1, 2) if is_last else values.flatten(2).transpose(1, 2)), grid
        if values.ndim == 3 and given[2] == self.channels:
            for prefix in dict.fromkeys((self.prefix, 0)):  # some models add their class token in their last blocks
                count = given[1] - prefix
                rows = round(math.sqrt(max(0, count) * size[0] / size[1]))
                if rows and count == rows * (count // rows):
                    return values[:, prefix:], (rows, count // rows)
        return None


def layer_names(model: Any) -> list[str]:
    """Names of the layers that a backbone has, from its input to `final`."""
    modules = dict(model.named_modules())
    named = [str(each.get("module", "")) for each in _feature_info(model)]
    return [*(name for name in named if name in modules), *([FINAL] if hasattr(model, "forward_features") else [])]


@contextmanager
def recorded(model: Any, layer: str | None = None) -> Iterator[list[Activation]]:
    """Inside, a list is filled with the activations of a forward pass, from the input to the last layer.

    Args:
        model: A backbone, such as a timm model.
        layer: The name of a layer, to record no other; None for all of `layer_names`.

    Raises:
        InputError: The backbone has no such layer, or none at all.
    """
    names = _chosen(model, layer)
    found: list[Activation] = []
    prefix, modules = int(getattr(model, "num_prefix_tokens", None) or 0), dict(model.named_modules())
    widths = {str(each.get("module", "")): int(each["num_chs"]) for each in _feature_info(model)}
    handles = [
        modules[name].register_forward_hook(_recorder(found, name, widths[name], prefix))
        for name in names
        if name != FINAL
    ]
    undo = _recorded_final(model, found, prefix) if FINAL in names else None
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()
        if undo is not None:
            undo()


def _feature_info(model: Any) -> list[dict[str, Any]]:
    info = getattr(model, "feature_info", None) or []
    return list(getattr(info, "info", info))


def _chosen(model: Any, layer: str | None) -> list[str]:
    names = layer_names(model)
    if not names:
        raise InputError(
            f"{type(model).__name__} has no layers with positions that timm's contract names (`feature_info`, "
            f"`forward_features`), which Grad-CAM needs: use the method occlusion or integrated-gradients."
        )
    if layer is None:
        return names
    if layer not in names:
        raise InputError(
            f"{type(model).__name__} has no layer '{layer}'.{suggest(layer, names)} Its layers: {', '.join(names)}."
        )
    return [layer]


def _recorder(found: list[Activation], name: str, channels: int, prefix: int) -> Callable[..., None]:
    def record(module: nn.Module, given: Any, returned: Any) -> None:
        if isinstance(returned, Tensor):
            found.append(Activation(name, returned, channels, prefix))

    return record


def _recorded_final(model: Any, found: list[Activation], prefix: int) -> Callable[[], None]:
    """Records what the method `forward_features` returns, which no hook sees; returns what undoes it."""
    compute, own = model.forward_features, vars(model).get("forward_features")

    def forward_features(*args: Any, **kwargs: Any) -> Any:
        returned = compute(*args, **kwargs)
        if isinstance(returned, Tensor):
            found.append(Activation(FINAL, returned, int(model.num_features), prefix))
        return returned

    def undo() -> None:
        del model.forward_features
        if own is not None:
            model.forward_features = own

    model.forward_features = forward_features
    return undo
