"""Window attention with as few copies of data as possible.

Shapes: B images, H and W tokens per side, W' windows per image, N tokens per window, h heads, d channels per head.
Projections are per token, so they run on the whole grid; only scores and softmax need windows. One permutation moves
queries, keys and values from the grid to shifted windows, and one moves the outputs back. All operations are torch's
own, with gradients of any order.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

# Not cuDNN: it has no gradient for the bias and returns NaN at 64 tokens per window. Not flash: it supports no bias.
FUSED_ON = {"cuda"}  # on other devices, torch's fused attention is slower for windows than separate operations
BIASED_SDPA = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
BIAS_ALIGNMENT = 8  # elements: for SDPA's kernels, rows of a bias start at multiples of it
MAX_PER_CALL = 65_535  # largest dimension of CUDA's grids; SDPA's kernels use dimensions for images and heads
MAX_CACHED_BYTES = 2**29  # of permutations: for a Swin-T at 224 px about 1.2 MB per image of a batch


@dataclass(frozen=True)
class Windows:
    """How a grid is split into windows: `window` divides `grid`; all sides in tokens, height first.

    Args:
        grid: H and W.
        window: Sides of a window.
        shift: Cyclic shift to the top left before splitting.
        heads: h.
    """

    grid: tuple[int, int]
    window: tuple[int, int]
    shift: tuple[int, int]
    heads: int

    @property
    def tokens(self) -> int:
        """N."""
        return self.window[0] * self.window[1]

    def cut(self, x: Tensor) -> Tensor:
        """Grid (B, H·W, c) to shifted windows (B, W', N, c), by operations that compilers support."""
        (height, width), (rows, columns) = self.grid, self.window
        x = x.reshape(x.shape[0], height, width, -1).roll((-self.shift[0], -self.shift[1]), (1, 2))
        x = x.view(x.shape[0], height // rows, rows, width // columns, columns, -1).transpose(2, 3)
        return x.reshape(x.shape[0], -1, self.tokens, x.shape[-1])

    def paste(self, x: Tensor) -> Tensor:
        """The inverse of `cut`: windows (B, W', N, c) to grid (B, H·W, c)."""
        (height, width), (rows, columns) = self.grid, self.window
        x = x.reshape(x.shape[0], height // rows, width // columns, rows, columns, -1).transpose(2, 3)
        return x.reshape(x.shape[0], height, width, -1).roll(self.shift, (1, 2)).flatten(1, 2)


Orders = tuple[Tensor, Tensor]  # a permutation of rows and its inverse
_kept: OrderedDict[Any, Orders] = OrderedDict()
_lock = Lock()


def _cached_orders(make: Callable[..., Orders], *key: Any) -> Orders:
    """Cached result of a function for its arguments (LRU), shared by all blocks of a stage."""
    with _lock:
        orders = _kept.pop((make, *key), None) or make(*key)
        _kept[(make, *key)] = orders
        while len(_kept) > 1 and sum(2 * order.nbytes for order, _ in _kept.values()) > MAX_CACHED_BYTES:
            _kept.popitem(last=False)
    return orders


def _made_head_orders(windows: Windows, batch: int, parts: int, device: torch.device) -> Orders:
    """The permutation of rows of d channels, from (B, H·W, parts, h) to (parts, B, W', h, N).

    One lookup does shift, window split and head split. `embedding` moves whole rows on all threads: as fast as copying
    a permuted view in the forward pass, and twice as fast in the backward pass.
    """
    tokens = windows.cut(_rows(windows, batch, device)).view(1, -1, 1, windows.tokens)
    part = torch.arange(parts, device=device, dtype=torch.int32).view(-1, 1, 1, 1)
    head = torch.arange(windows.heads, device=device, dtype=torch.int32).view(1, 1, -1, 1)
    order = ((tokens * parts + part) * windows.heads + head).flatten()
    return order, order.argsort().to(torch.int32)


def _rows(windows: Windows, batch: int, device: torch.device) -> Tensor:
    """Index of every token (B, H·W, 1) among those of all images."""
    tokens = windows.grid[0] * windows.grid[1]
    return torch.arange(batch * tokens, device=device, dtype=torch.int32).view(batch, -1, 1)


@cache  # called by every block in every step, with few different arguments
def _groups(windows: Windows, is_masked: bool) -> list[list[int]]:
    """Indices of an image's windows, in groups with the same mask.

    After a shift, opposite edges meet in the last row and the last column of windows.
    """
    rows, columns = (side // part for side, part in zip(windows.grid, windows.window, strict=True))
    groups: dict[tuple[bool, bool], list[int]] = {}
    for row in range(rows):
        for column in range(columns):
            at_edges = (is_masked and row == rows - 1, is_masked and column == columns - 1)
            groups.setdefault(at_edges, []).append(row * columns + column)
    return list(groups.values())


def _made_group_orders(windows: Windows, batch: int, is_masked: bool, device: torch.device) -> Orders:
    """The permutation of tokens (B·H·W) to shifted windows, one group of windows after another."""
    tokens = windows.cut(_rows(windows, batch, device)).view(batch, -1, windows.tokens)
    order = torch.cat([tokens[:, group].flatten() for group in _groups(windows, is_masked)]).long()
    return order, order.argsort()


def position_bias(table: Tensor, window: tuple[int, int]) -> Tensor:
    """Bias of every relative position to bias of every pair of tokens.

    The pairs are sliding windows over the table, flipped. As views they need no index, and the backward pass adds in a
    fixed order; indexing would sort or use atomics.

    Args:
        table: ((2·rows − 1)·(2·columns − 1), h).
        window: Rows and columns.

    Returns:
        (h, N, N).
    """
    rows, columns = window
    positions = table.view(2 * rows - 1, 2 * columns - 1, -1).flip(0, 1)
    pairs = positions.unfold(0, rows, 1).unfold(1, columns, 1).flip(0, 1)
    return pairs.permute(2, 0, 1, 3, 4).reshape(-1, rows * columns, rows * columns)


def attend(
    qkv: Tensor,
    bias: Tensor,
    mask: Tensor | None,
    windows: Windows,
    scale: float = 1.0,
    cosine: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention in windows.

    Args:
        qkv: Queries, keys and values (B, H·W, 3·h·d).
        bias: Of token pairs (h, N, N).
        mask: Of token pairs (W', N, N): −100 for tokens that only the shift made neighbours, else 0. None for no shift.
        windows: How the grid is split.
        scale: Factor on all scores.
        cosine: Scale per head (h, 1, 1) of cosine attention, which normalises queries and keys; None for dot products.
        dropout: Fraction of attention weights set to 0.

    Returns:
        (B, H·W, h·d).
    """
    # A subclass of Tensor traces or counts operations: it must see ordinary ones.
    is_plain = type(qkv) is Tensor and not torch.compiler.is_compiling()
    if qkv.device.type in FUSED_ON and is_plain:
        return attend_by_groups(qkv, bias, mask, windows, scale, cosine, dropout)
    if qkv.device.type == "cpu" and is_plain:
        return attend_by_heads(qkv, bias, mask, windows, scale, cosine, dropout)
    return attend_by_parts(qkv, bias, mask, windows, scale, cosine, dropout)


def attend_by_groups(
    qkv: Tensor,
    bias: Tensor,
    mask: Tensor | None,
    windows: Windows,
    scale: float = 1.0,
    cosine: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """The same as `attend`, with fused kernels: one lookup arranges queries, keys and values for them.

    Rolling, splitting and copying took a third of a training step of Swin-T on an H200. All windows of a call share one
    bias, so windows with another mask need another call.
    """
    batch, grid, channels = qkv.shape
    heads, tokens = windows.heads, windows.tokens
    order, inverse = _cached_orders(_made_group_orders, windows, batch, mask is not None, qkv.device)
    groups = _groups(windows, mask is not None)
    cut: Tensor = _Reordered.apply(qkv.reshape(-1, channels), order, inverse)
    attended = []
    for group, rows in zip(groups, torch.split(cut, [batch * len(group) * tokens for group in groups]), strict=True):
        q, k, v = rows.view(-1, tokens, 3, heads, channels // (3 * heads)).permute(2, 0, 3, 1, 4).unbind(0)
        if cosine is not None:
            q, k = _cosine(q, k, cosine)
        pairs = bias if mask is None else bias + mask[group[0]]
        x = _weighted(q, k, v, pairs.unsqueeze(0), scale, dropout)  # (B·W', h, N, d)
        attended.append(x.transpose(1, 2).reshape(len(rows), -1))
    joined = attended[0] if len(attended) == 1 else torch.cat(attended)
    pasted: Tensor = _Reordered.apply(joined, inverse, order)
    return pasted.view(batch, grid, -1)


def attend_by_heads(
    qkv: Tensor,
    bias: Tensor,
    mask: Tensor | None,
    windows: Windows,
    scale: float = 1.0,
    cosine: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """The same as `attend`, for CPUs: one lookup arranges queries, keys and values for the matrix products."""
    batch, grid, channels = qkv.shape
    depth, tokens = channels // (3 * windows.heads), windows.tokens
    orders = _cached_orders(_made_head_orders, windows, batch, 3, qkv.device)
    cut: Tensor = _Reordered.apply(qkv.reshape(-1, depth), *orders)
    q, k, v = cut.view(3, batch, -1, windows.heads, tokens, depth).unbind(0)  # each (B, W', h, N, d)
    if cosine is not None:
        q, k = _cosine(q, k, cosine)
    x = _weighted(q, k, v, bias if mask is None else bias + mask.unsqueeze(1), scale, dropout)
    order, inverse = _cached_orders(_made_head_orders, windows, batch, 1, qkv.device)
    pasted: Tensor = _Reordered.apply(x.reshape(-1, depth), inverse, order)
    return pasted.view(batch, grid, -1)


class _Reordered(Function):
    """Reorders rows. The gradient is the inverse permutation, whereas that of indexing would accumulate."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        """Rows (R, c) in the given order (R,)."""
        ctx.orders = inverse, order
        return functional.embedding(order, x) if x.device.type == "cpu" else x.index_select(0, order)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradient of the rows."""
        return _Reordered.apply(grad.contiguous(), *ctx.orders), None, None


def attend_by_parts(
    qkv: Tensor,
    bias: Tensor,
    mask: Tensor | None,
    windows: Windows,
    scale: float = 1.0,
    cosine: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """The same as `attend`, with operations that autograd and compilers support."""
    heads = windows.heads
    cut = windows.cut(qkv)
    q, k, v = cut.view(*cut.shape[:3], 3, heads, -1).permute(3, 0, 1, 4, 2, 5).unbind(0)  # each (B, W', h, N, d)
    if cosine is not None:
        q, k = _cosine(q, k, cosine)
    if mask is None:  # fold images into windows
        q, k, v = (x.flatten(0, 1) for x in (q, k, v))
    else:  # fold windows into heads: one small mask for all images
        q, k, v, bias = (x.flatten(1, 2) for x in (q, k, v, (bias + mask.unsqueeze(1)).unsqueeze(0)))
    x = _weighted(q, k, v, bias.view(1, -1, *bias.shape[-2:]), scale, dropout)
    x = x.reshape(qkv.shape[0], -1, heads, *x.shape[-2:]).transpose(2, 3)
    return windows.paste(x.flatten(3))


def _cosine(q: Tensor, k: Tensor, cosine: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised and scaled queries and keys (·, h, N, d) of cosine attention."""
    return (functional.normalize(q, dim=-1) * cosine).to(q.dtype), functional.normalize(k, dim=-1).to(k.dtype)


def _weighted(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float, dropout: float) -> Tensor:
    """Values weighted by attention, all (·, ·, N, d), on CPUs with any leading dimensions; bias (1, ·, N, N)."""
    if q.device.type in FUSED_ON:
        with sdpa_kernel(BIASED_SDPA):
            return _fused(q, k, v, _aligned(bias.to(q.dtype)), scale, dropout)
    weights = ((q * scale) @ k.transpose(-2, -1) + bias).softmax(-1)
    return functional.dropout(weights, dropout).to(v.dtype) @ v


def _aligned(bias: Tensor) -> Tensor:
    """The same bias (1, ·, N, N), with rows aligned as the fused kernels require.

    Torch pads by itself in eager mode. Compilers pad in the forward pass, but some versions not in the backward pass.
    """
    missing = -bias.shape[-1] % BIAS_ALIGNMENT
    return functional.pad(bias, (0, missing))[..., : bias.shape[-1]] if missing else bias


def _fused(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, scale: float, dropout: float) -> Tensor:
    """Torch's fused attention, in several calls if it exceeds CUDA's grid size; arguments as in `_weighted`."""
    for side in (0, 1):
        if q.shape[side] > MAX_PER_CALL:
            queries, keys, values = (torch.split(x, MAX_PER_CALL, side) for x in (q, k, v))
            biases = torch.split(bias, MAX_PER_CALL, 1) if side else (bias,) * len(queries)
            calls = zip(queries, keys, values, biases, strict=True)
            return torch.cat([_fused(*call, scale, dropout) for call in calls], side)
    return functional.scaled_dot_product_attention(q, k, v, bias, dropout, scale=scale)
