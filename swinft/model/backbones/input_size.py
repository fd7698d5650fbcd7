"""Adapts a timm model to an image size without cropping the image or padding a window."""

import inspect
import math
from collections.abc import Callable
from typing import Any

from timm.layers import to_2tuple  # type: ignore[attr-defined]
from torch import nn

from swinft.errors import InputError

Window = int | tuple[int, int]
# A window this many times larger or smaller than the pretrained one sees a different context: an error that suggests
# sizes is better than a silent loss of accuracy.
MAX_WINDOW_RATIO = 2.0


def resize(model: Any, name: str, size: tuple[int, int], window: Window | None) -> bool:
    """Adapts a model from its native size to `size`; call it once, with its original weights.

    Args:
        model: A timm model at its native size.
        name: Its name.
        size: Height and width in pixels.
        window: The configured window; None for the one nearest to the native one.

    Returns:
        Whether the model was adapted; False if it has no `set_input_size`.

    Raises:
        InputError: A part of the image would be cropped, or no window divides the model's grids.
    """
    patch = patch_sides(model)
    if any(side % length for side, length in zip(size, patch, strict=True)):
        raise InputError(
            f"data.image_size {size[0]} x {size[1]} px is no multiple of the {patch[0]} px patches of '{name}': the "
            f"rest would be cut off. Set {size[0] // patch[0] * patch[0]} or {-(-size[0] // patch[0]) * patch[0]}."
        )
    native = tuple(model.pretrained_cfg["input_size"][-2:])
    set_size = getattr(model, "set_input_size", None)
    if set_size is None:
        return False
    takes_windows = "window_size" in inspect.signature(set_size).parameters
    # MaxViT's windows are not shifted: they need not divide the grid of each stage.
    if not takes_windows or not hasattr(model, "patch_embed") or not hasattr(model, "layers"):
        if size != native:
            _set_size(set_size, name, size)
        return True
    windows = _stage_windows(model, name, size, window)
    _set_size(set_size, name, size, window_size=windows)
    return True


def scaled_windows(model: Any, at: tuple[int, int], size: tuple[int, int]) -> list[tuple[int, int]] | None:
    """A window per stage for another size than the one that a model is at: the same where it divides the grid there.

    Others are scaled with the image, to the nearest divisor.

    Args:
        model: A timm model, adapted to `at`.
        at: Height and width in pixels.
        size: The other size.

    Returns:
        The windows; empty where no divisor is near enough, and None for a model without shifted windows.
    """
    set_size = getattr(model, "set_input_size", None)
    if set_size is None or "window_size" not in inspect.signature(set_size).parameters:
        return None
    if not hasattr(model, "patch_embed") or not hasattr(model, "layers"):
        return None
    # With the windows that the model has now at the size that it has now.
    sides = [_side_windows(model, at[axis], size[axis], axis, None, keeps=True) for axis in range(2)]
    return list(zip(*sides, strict=True)) if all(sides) else []


def patch_sides(model: Any) -> tuple[int, int]:
    """Sides of a patch if the grid of patches is not padded: timm then drops the remainder of the image; else 1."""
    embed = getattr(model, "patch_embed", None)
    proj = getattr(embed, "proj", None)
    if not isinstance(proj, nn.Conv2d) or getattr(embed, "dynamic_img_pad", False):
        return 1, 1
    if proj.kernel_size != proj.stride or any(to_2tuple(proj.padding)):
        return 1, 1
    return to_2tuple(proj.stride)  # type: ignore[no-any-return]


def _set_size(set_size: Callable[..., None], name: str, size: tuple[int, int], **options: Any) -> None:
    try:
        set_size(img_size=size, **options)
    except AssertionError as error:
        raise InputError(f"'{name}' cannot work at {size[0]} x {size[1]} px (data.image_size): {error}") from error


def _stage_windows(model: Any, name: str, size: tuple[int, int], window: Window | None) -> list[tuple[int, int]]:
    """A window per stage that divides the stage's grid.

    Where a window does not divide the grid, timm pads after the cyclic shift and opposite edges attend to each other.
    So every stage gets the divisor of its grid that is nearest to the desired window: the native one, scaled with the
    image above the native size, as Swin's authors do from 224 (7) to 384 (12) px.
    """
    natives = model.pretrained_cfg["input_size"][-2:]
    asked = to_2tuple(window)

    def sides(*lengths: int) -> list[list[int]]:
        return [_side_windows(model, natives[axis], length, axis, asked[axis]) for axis, length in enumerate(lengths)]

    windows = sides(*size)
    if not all(windows):
        near = sorted(range(8, 2 * max(size), 4), key=lambda length: abs(length - max(size)))
        good = sorted([length for length in near if all(sides(length, length))][:4])
        raise InputError(
            f"'{name}' cannot cut {size[0]} x {size[1]} px into windows{f' of {window}' if window else ''} without "
            f"padding, which would let opposite edges attend to each other. Sizes that work: {good} (data.image_size)."
        )
    return list(zip(*windows, strict=True))


def _side_windows(model: Any, native: int, side: int, axis: int, window: int | None, keeps: bool = False) -> list[int]:
    """Windows along one side, one per stage; empty if a stage has none.

    With `keeps`, a window that divides the grid is left as it is, and others shrink with the image, too.
    """
    patch = model.patch_embed.patch_size[axis]
    if side % patch:
        return []
    windows = []
    for index, stage in enumerate(model.layers):
        grid = -(-side // patch // 2**index)  # each merge halves the grid, rounding up
        made_for = stage.blocks[0].window_size[axis]
        if keeps and grid % made_for == 0:
            windows.append(made_for)
            continue
        scale = side / native if keeps else max(1.0, side / native)
        wanted = min(grid, window or made_for * scale)
        divisors = [d for d in range(1, grid + 1) if grid % d == 0]
        best = min(divisors, key=lambda d: abs(math.log(d / wanted)))
        if best != wanted if window else not 1 / MAX_WINDOW_RATIO <= best / wanted <= MAX_WINDOW_RATIO:
            return []
        windows.append(best)
    return windows
