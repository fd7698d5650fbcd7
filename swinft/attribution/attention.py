"""The attention weights of a network's blocks, verified to be those with which it computes.

A fast attention never holds its weights. They are read from a second forward pass by timm's own formula,
softmax(QK·scale + bias + mask), and the output of each of its blocks must equal that of the first pass, in which the
network computes as it predicts. So the weights that are shown give the outputs that were computed.

Shapes: B images, W' windows of an image, h heads, N tokens of a window, (H, W) pixels.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from timm.models.swin_transformer import PatchMerging as MergingV1
from timm.models.swin_transformer import SwinTransformerBlock
from timm.models.swin_transformer_v2 import PatchMerging as MergingV2
from timm.models.swin_transformer_v2 import SwinTransformerV2Block
from torch import Tensor, nn
from torch.nn import functional

from swinft.attribution.layers import FINAL, Activation, recorded
from swinft.errors import InputError, RunError
from swinft.model.network import ImageModel

# Largest difference of a block's output, relative to its largest value: sums in another order; elsewhere also tf32.
TOLERANCES = {"cpu": 1e-3}
TOLERANCE = 2e-2
OTHER_METHODS = "Use the method gradcam, integrated-gradients or occlusion."


class Attention(NamedTuple):
    """The attention of a block.

    Args:
        name: The block's name in the backbone.
        stage: Its stage, from 0; 0 in a ViT.
        block: Its number in the stage, from 0.
        recorded: From each query to each key, (B · W', h, N, N), part of the graph of the logits; a ViT has one window.
        tokens: The token of the grid at each place of a window, int64 (W', N); −1 for padding.
        grid: Rows and columns of the tokens that are positions of the image.
        prefix: Number of tokens before these: class token and registers.
        window: Rows and columns of a window; None for attention between all tokens.
        shift: The cyclic shift to the top left, in tokens.
    """

    name: str
    stage: int
    block: int
    recorded: Tensor
    tokens: Tensor
    grid: tuple[int, int]
    prefix: int
    window: tuple[int, int] | None
    shift: tuple[int, int]

    @property
    def weights(self) -> Tensor:
        """The weights of each image, (B, W', h, N, N)."""
        return self.by_image(self.recorded)

    def by_image(self, values: Tensor) -> Tensor:
        """Values of the shape of `recorded`, such as a gradient, as (B, W', h, N, N)."""
        return values.view(-1, len(self.tokens), *values.shape[1:])


class Merging(NamedTuple):
    """A patch merging: two by two tokens of a grid become one.

    Args:
        grid: Rows and columns before.
    """

    grid: tuple[int, int]


class Attended(NamedTuple):
    """A forward pass with the attention of every block.

    Args:
        logits: Of the network.
        steps: Blocks and patch mergings in the order of their computation.
        final: The features that are pooled; None if the head reads maps of the stages.
        difference: The largest difference of a block's output from the first pass, relative to its largest value.
    """

    logits: Tensor
    steps: list[Attention | Merging]
    final: Activation | None
    difference: float

    @property
    def blocks(self) -> list[Attention]:
        """The blocks alone."""
        return [step for step in self.steps if isinstance(step, Attention)]


def attended(network: ImageModel, pixels: Tensor, features: Tensor | None, image_mask: Tensor | None) -> Attended:
    """The attention of every block of a network, for images as of `gradcam`; call it inside `prepared`.

    Raises:
        InputError: The backbone's attention is not that of a ViT or a Swin.
        RunError: The weights do not give what the network computes.
    """
    model = network.backbone.model
    attentions = attention_modules(model)
    with torch.no_grad(), _outputs_of(model, attentions) as computed:
        as_computed = network(pixels, features, image_mask)
    size = int(pixels.shape[-2]), int(pixels.shape[-1])
    of_steps = _recorded_steps(model, attentions, size)
    with recorded(model, FINAL) as final, of_steps as steps, _outputs_of(model, attentions) as again:
        logits = network(pixels, features, image_mask)
    outputs = [*zip(computed, again, strict=True), (as_computed, logits)]
    difference = max(_difference(one, other.detach()) for one, other in outputs)
    if not difference <= TOLERANCES.get(pixels.device.type, TOLERANCE):  # also true for NaN
        raise RunError(
            f"the attention weights do not give what the network computes: outputs of its blocks differ by "
            f"{difference:.1e} of the largest value. This is a fault of the attention on {pixels.device}; nothing is "
            f"explained."
        )
    return Attended(logits, steps, final[0] if final else None, difference)


def attention_modules(model: nn.Module) -> dict[str, Any]:
    """The attention module of each block, by the block's name.

    Raises:
        InputError: There is none.
    """
    found = {
        name.rpartition(".")[0]: module
        for name, module in model.named_modules()
        if isinstance(getattr(module, "attn_drop", None), nn.Dropout) and hasattr(module, "num_heads") and "." in name
    }
    if not found:
        raise InputError(f"{type(model).__name__} has no attention whose weights can be read. {OTHER_METHODS}")
    return found


def window_tokens(grid: tuple[int, int], window: tuple[int, int], shift: tuple[int, int]) -> Tensor:
    """The token of a grid at each place of its shifted windows, int64 (W', N), as timm cuts them; −1 for padding."""
    (rows, columns), (high, wide) = grid, window
    index = torch.arange(rows * columns).view(rows, columns).roll((-shift[0], -shift[1]), (0, 1))
    index = functional.pad(index, (0, -columns % wide, 0, -rows % high), value=-1)
    cut = index.view(index.shape[0] // high, high, index.shape[1] // wide, wide).transpose(1, 2)
    return cut.reshape(-1, high * wide)


def _difference(one: Tensor, other: Tensor) -> float:
    largest = float(one.abs().max())
    return float((one - other).abs().max()) / max(largest, torch.finfo(torch.float).tiny)


@contextmanager
def _outputs_of(model: nn.Module, names: dict[str, Any]) -> Iterator[list[Tensor]]:
    """Records what the blocks return. Hooks on a block, unlike those inside its attention, keep it fast."""
    found: list[Tensor] = []
    modules = dict(model.named_modules())
    keep: Callable[..., None] = lambda module, given, returned: found.append(returned.detach())  # noqa: E731
    handles = [modules[name].register_forward_hook(keep) for name in names]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _recorded_steps(
    model: Any, attentions: dict[str, Any], size: tuple[int, int]
) -> Iterator[list[Attention | Merging]]:
    """Records attention weights and patch mergings; inside, attention is computed by timm's formula, step by step."""
    steps: list[Attention | Merging] = []
    weights: dict[str, Tensor] = {}
    handles, fused = [], []
    modules = dict(model.named_modules())
    prefix = int(getattr(model, "num_prefix_tokens", None) or 0)
    for name, attention in attentions.items():
        if getattr(attention, "fused_attn", False):
            attention.fused_attn = False
            fused.append(attention)
        handles += [
            attention.attn_drop.register_forward_pre_hook(_keep_weights(weights, name)),
            modules[name].register_forward_hook(_keep_step(steps, weights, name, prefix, size)),
        ]
    for module in model.modules():
        if isinstance(module, MergingV1 | MergingV2):
            handles.append(module.register_forward_hook(lambda _, given, __: steps.append(_merging(given[0]))))
    try:
        yield steps
    finally:
        for attention in fused:
            attention.fused_attn = True
        for handle in handles:
            handle.remove()


def _merging(tokens: Tensor) -> Merging:
    return Merging((tokens.shape[1], tokens.shape[2]))


def _keep_weights(weights: dict[str, Tensor], name: str) -> Callable[..., None]:
    def keep(module: nn.Module, given: Any) -> None:
        weights[name] = given[0]

    return keep


def _keep_step(
    steps: list[Attention | Merging], weights: dict[str, Tensor], name: str, prefix: int, size: tuple[int, int]
) -> Callable[..., None]:
    def keep(block: Any, given: Any, returned: Tensor) -> None:
        merged = sum(isinstance(step, Merging) for step in steps)
        number = sum(isinstance(step, Attention) and step.stage == merged for step in steps)
        steps.append(_attention(block, name, (merged, number), weights.pop(name, None), given[0], prefix, size))

    return keep


def _attention(
    block: Any,
    name: str,
    place: tuple[int, int],
    weights: Tensor | None,
    tokens: Tensor,
    prefix: int,
    size: tuple[int, int],
) -> Attention:
    """What was recorded of a block.

    Raises:
        InputError: Its attention is not a softmax over the tokens of its input.
    """
    is_swin = isinstance(block, SwinTransformerBlock | SwinTransformerV2Block)
    if weights is not None and weights.ndim == 4 and weights.shape[-1] == weights.shape[-2]:
        sides = weights.shape[-1]
        if is_swin and tokens.ndim == 4:
            grid, window = (tokens.shape[1], tokens.shape[2]), tuple(block.window_size)
            shift = tuple(block.shift_size)
            index = window_tokens(grid, window, shift)
            return Attention(name, *place, weights, index.to(weights.device), grid, 0, window, shift)
        count = sides - prefix
        rows = round(math.sqrt(max(0, count) * size[0] / size[1]))
        is_softmax = bool(((weights.detach().sum(-1) - 1).abs() < 1e-2).all())
        if tokens.ndim == 3 and tokens.shape[1] == sides and is_softmax and rows and count == rows * (count // rows):
            index = torch.arange(sides, device=weights.device)[None]
            return Attention(name, *place, weights, index, (rows, count // rows), prefix, None, (0, 0))
    raise InputError(
        f"the attention of {type(block).__name__} ({name}) is not a softmax over all tokens of an image, as in a ViT, "
        f"or over those of the windows of timm's Swin. {OTHER_METHODS}"
    )
