"""Receptive fields: the part of the image that reaches the middle of a stage's feature map.

Of shifted windows it follows from windows, shifts and mask; of attention among all tokens it is the whole image; of all
other networks it is where the gradient of the middle of the map is not zero, with positive weights in the place of the
network's, so that nothing cancels and no unit is silent.
"""

import copy
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from swinft.architecture.axis import Axis
from swinft.architecture.stages import HEAD, STEM, Span

if TYPE_CHECKING:
    from collections.abc import Iterator

    from swinft.architecture.describe import Part

How = Literal["windows", "attention", "gradient"]
# Gradients at the corners of a receptive field are those at its middle to the power of the depth: the smallest float is
# 1e-45, and that of forty convolutions of 3 x 3 is 1e-38.
SCALE, FAINT = 2.0**60, 2.0**-14
MASKED = -100.0  # what timm adds to the logits of pairs that are kept apart


@dataclass(frozen=True)
class Field:
    """A receptive field.

    Args:
        height: Pixels.
        width: Pixels.
        is_whole: Whether that is the whole image.
        how: How it was found.
    """

    height: int
    width: int
    is_whole: bool
    how: How


def derived(parts: Sequence["Part"], size: tuple[int, int], patch: tuple[int, int] | None) -> list[Field | None] | None:
    """The fields of all parts by arithmetic; None for a network to which that does not apply.

    Args:
        parts: The parts of the network.
        size: Height and width in pixels.
        patch: Height and width of a patch, if the stem cuts the image into patches that do not overlap.
    """
    stages = [part for part in parts if part.name not in (STEM, HEAD)]
    if patch is None or not stages or any(part.attention is None or part.grid is None for part in stages):
        return None
    attentions = [part.attention for part in stages if part.attention is not None]
    stem = [Field(*patch, patch == size, "windows")] * sum(part.name == STEM for part in parts)
    head = [None] * sum(part.name == HEAD for part in parts)
    if all(each.reach == "all tokens" and not each.windows for each in attentions):
        return [*stem, *[Field(*size, True, "attention") for _ in stages], *head]
    if any(len(each.windows) != part.blocks for each, part in zip(attentions, stages, strict=True)):
        return None
    sides = []
    for side in range(2):
        axes = [[(each.rows, each.columns)[side] for each in attention.windows] for attention in attentions]
        sides.append(reaches(axes, patch[side], size[side]))
    return [*stem, *[Field(*each, each == size, "windows") for each in zip(sides[0], sides[1], strict=True)], *head]


def reaches(stages: Sequence[Sequence[Axis]], patch: int, side: int) -> list[int]:
    """Pixels along one side that reach the middle of each stage of a network with shifted windows.

    Args:
        stages: The windows of every block.
        patch: Pixels of a patch.
        side: Pixels of the image.
    """
    found = []
    for last in range(len(stages)):
        positions = {stages[last][0].length // 2}
        for number in range(last, -1, -1):
            for axis in reversed(stages[number]):
                positions = axis.reached(positions)
            if number:  # a merge joins two neighbours
                limit = stages[number - 1][0].length
                positions = {each for one in positions for each in (2 * one, 2 * one + 1) if each < limit}
        found.append(min(side, patch * (max(positions) - min(positions) + 1)))
    return found


def measured(
    model: Any, parts: Sequence[Span], size: tuple[int, int], channels: int = 3, prefix: str = ""
) -> list[Field | None]:
    """The fields of all parts by gradients; None for parts without a feature map.

    Args:
        model: A timm model, or a custom one, on the CPU; it is copied.
        parts: Its parts.
        size: Height and width in pixels.
        channels: Channels of its images.
        prefix: What the names of the parts' modules begin with.

    Raises:
        RuntimeError: The network cannot be differentiated.
    """
    model = _positive(copy.deepcopy(model)).float().eval()
    # So faint that no activation, such as ReLU6, is saturated where residual branches add up.
    image = FAINT * torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(0))
    image.requires_grad_()
    named = {part.name: part.modules[-1].removeprefix(prefix) for part in parts if part.modules}
    maps: dict[str, Tensor] = {}
    with _kept(model, named, maps), torch.enable_grad():
        model(image)
    fields = list[Field | None]()
    for part in parts:
        middle = None if part.name not in maps else _middle(maps[part.name], part)
        fields.append(None if middle is None else _field(middle, image, size))
    return fields


def _positive(model: nn.Module) -> nn.Module:
    """Weights between 0.5 and 1.5, over the number of inputs; scales of 1; no biases; masks that let none through."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight.requires_grad_(False)
            if weight.ndim > 1:
                weight.copy_((torch.rand(weight.shape, generator=generator) + 0.5) * weight.shape[0] / weight.numel())
            else:
                weight.fill_(0.0 if name.endswith("bias") else 1.0)
        for module in list(model.modules()):
            if isinstance(module, _NormBase):
                module.reset_running_stats()
            for key, child in list(module.named_children()):
                if isinstance(child, nn.MaxPool2d):  # a maximum lets one of its inputs through, which can be any
                    setattr(module, key, nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode))
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer[buffer == MASKED] = -torch.inf
    return model


@contextmanager
def _kept(model: nn.Module, named: dict[str, str], maps: dict[str, Tensor]) -> "Iterator[None]":
    """Keeps what modules return while the block runs."""

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, out: Any) -> None:
            if isinstance(out, Tensor):
                maps[name] = out

        return hook

    handles = [model.get_submodule(module).register_forward_hook(keep(name)) for name, module in named.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _middle(found: Tensor, part: Span) -> Tensor | None:
    """The channels of the middle of a feature map; None if its layout cannot be told."""
    if part.grid is None:
        return None
    rows, columns = part.grid[0] // 2, part.grid[1] // 2
    shape = tuple(found.shape)
    if shape[1:] == (part.channels, *part.grid):
        return found[0, :, rows, columns]
    if shape[1:] == (*part.grid, part.channels):
        return found[0, rows, columns]
    tokens = part.grid[0] * part.grid[1]
    if len(shape) == 3 and shape[1] >= tokens:
        return found[0, shape[1] - tokens + rows * part.grid[1] + columns]
    return None


def _field(middle: Tensor, image: Tensor, size: tuple[int, int]) -> Field:
    weights = SCALE * (torch.rand(middle.shape, generator=torch.Generator().manual_seed(1)) + 0.5)
    (gradient,) = torch.autograd.grad((middle * weights).sum(), image, retain_graph=True)
    if not gradient.isfinite().all():
        raise RuntimeError("the gradients are not finite")
    reached = (gradient[0] != 0).any(0)
    height, width = (_extent(reached.any(1 - side)) for side in range(2))
    return Field(height, width, (height, width) == size, "gradient")


def _extent(reached: Tensor) -> int:
    places = reached.nonzero()
    return int(places.max() - places.min()) + 1 if len(places) else 0
