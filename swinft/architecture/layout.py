"""What timm's own modules do with tokens: which window each comes into, which pairs attend, which four are merged.

A block is given a map whose values are the numbers of its tokens, and asked what reaches its attention. So what is
found is what the block does, in every version of Swin, padding included.
Shapes: h rows and w columns of the grid, W windows, N tokens of a window, C channels, A heads.
"""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from swinft.architecture.axis import PADDING


@dataclass(frozen=True)
class Layout:
    """Tokens in windows.

    Args:
        grid: Rows and columns of the grid.
        window: Rows and columns of a window.
        tokens: Number of the token in each place of each window (W, N), row by row from 0; `PADDING` for none.
        allowed: Which pairs of places attend to each other (W, N, N).
    """

    grid: tuple[int, int]
    window: tuple[int, int]
    tokens: NDArray[np.int64]
    allowed: NDArray[np.bool_]

    @property
    def windows(self) -> tuple[int, int]:
        """Rows and columns of windows."""
        rows = -(-self.grid[0] // self.window[0])
        return rows, len(self.tokens) // rows

    @property
    def placed(self) -> NDArray[np.int64]:
        """Tokens as the windows lie side by side (rows of windows · window rows, columns · window columns)."""
        (rows, columns), (height, width) = self.windows, self.window
        cut = self.tokens.reshape(rows, columns, height, width)
        return cut.transpose(0, 2, 1, 3).reshape(rows * height, columns * width)

    def keys_of(self, token: int) -> list[int]:
        """The tokens that a token attends to; padding is none."""
        number, place = np.argwhere(self.tokens == token)[0]
        found = self.tokens[number][self.allowed[number, place]]
        return sorted(int(each) for each in found if each != PADDING)


class _Captured(Exception):
    """Ends a forward pass once the inputs of a module are known.

    Args:
        args: Those of the module.
        kwargs: Those of the module.
    """

    def __init__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        super().__init__()
        self.given, self.named = args, kwargs


def _capture(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    raise _Captured(args, kwargs)


def _numbers(grid: tuple[int, int], channels: int) -> Tensor:
    """A map (1, h, w, C) whose values are the numbers of its tokens, from 1; padding is 0."""
    numbers = torch.arange(1, grid[0] * grid[1] + 1, dtype=torch.float)
    return numbers.reshape(1, *grid, 1).expand(-1, -1, -1, channels)


@torch.no_grad()
def layout_of(block: Any, grid: tuple[int, int], channels: int) -> Layout:
    """The windows of a block of shifted windows, with its mask.

    Args:
        block: timm's block: with `attn`, `norm1` and `window_size`, on the CPU.
        grid: Rows and columns of its map.
        channels: C.
    """
    block = copy.deepcopy(block).eval()
    block.norm1 = nn.Identity()  # before the attention it would change the numbers
    block.attn.register_forward_pre_hook(_capture, with_kwargs=True)
    try:
        block(_numbers(grid, channels))
    except _Captured as captured:
        windows = captured.given[0]
        mask = captured.named.get("mask", captured.given[1] if len(captured.given) > 1 else None)
    tokens = windows[..., 0].long().numpy() - 1
    size = tokens.shape[1]
    allowed = np.ones((len(tokens), size, size), dtype=bool) if mask is None else mask.numpy() == 0
    return Layout(grid, (int(block.window_size[0]), int(block.window_size[1])), tokens, allowed)


@torch.no_grad()
def merged_by(merging: nn.Module, grid: tuple[int, int], channels: int) -> NDArray[np.int64]:
    """The four tokens that each token of the next stage is made of (rows, columns, 4), in the order of channels."""
    merging = copy.deepcopy(merging).eval()
    for child in merging.children():
        child.register_forward_pre_hook(_capture, with_kwargs=True)
    try:
        merging(_numbers(grid, channels))
    except _Captured as captured:
        joined = captured.given[0]
    found: NDArray[np.int64] = joined[0, :, :, ::channels].long().numpy() - 1
    return found


@torch.no_grad()
def bias_of(attention: nn.Module) -> NDArray[np.float32] | None:
    """What an attention adds to the logits of every pair of places (A, N, N); None if it cannot be read.

    Its softmax is asked what it gets where queries and keys are zero.
    """
    attention = copy.deepcopy(attention).eval()
    attention.fused_attn = False  # type: ignore[assignment]
    for name, weight in attention.named_parameters():
        if name.startswith(("qkv", "q_bias", "k_bias", "v_bias")):
            weight.zero_()
    for child in attention.modules():
        if isinstance(child, nn.Softmax):
            child.register_forward_pre_hook(_capture, with_kwargs=True)
    size = int(attention.window_size[0]) * int(attention.window_size[1])  # type: ignore[index]
    width = attention.qkv.in_features  # type: ignore[union-attr]
    try:
        attention(torch.zeros(1, size, int(width)))  # type: ignore[arg-type]
    except _Captured as captured:
        found: NDArray[np.float32] = captured.given[0][0].numpy()
        return found
    return None


def bias_tables(attention: Any) -> NDArray[np.float32] | None:
    """The bias of every offset between two places (A, 2 · rows − 1, 2 · columns − 1), by timm's index of pairs."""
    bias, index = bias_of(attention), getattr(attention, "relative_position_index", None)
    if bias is None or index is None:
        return None
    height, width = (2 * int(side) - 1 for side in attention.window_size)
    tables = np.zeros((len(bias), height * width), dtype=np.float32)
    tables[:, index.cpu().numpy().ravel()] = bias.reshape(len(bias), -1)
    return tables.reshape(-1, height, width)
