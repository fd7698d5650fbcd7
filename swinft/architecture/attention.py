"""The attention of a stage: heads, windows, shift and mask, and its cost beside that of attention among all tokens.

Modules are told by what they do and hold, never by a model's name: an attention multiplies activations with one
another; windows, shifts and masks are what its block says of itself (`window_size`, `shift_size`).
Shapes: h rows and w columns of the grid, M rows and columns of a window, C channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from swinft.architecture.axis import Axis
from swinft.architecture.trace import Trace

Reach = Literal["all tokens", "windows", "fewer keys", "channels"]


@dataclass(frozen=True)
class Shifted:
    """The windows of one block.

    Args:
        rows: Windows along the rows.
        columns: Windows along the columns.
    """

    rows: Axis
    columns: Axis

    @property
    def window(self) -> tuple[int, int]:
        """Rows and columns of a window."""
        return self.rows.window, self.columns.window

    @property
    def shift(self) -> tuple[int, int]:
        """By how many rows and columns the grid is rolled."""
        return self.rows.shift, self.columns.shift

    @property
    def count(self) -> int:
        """Number of windows, the same with a shift and without."""
        return len(self.rows.positions) * len(self.columns.positions)

    @property
    def padded(self) -> tuple[int, int]:
        """Rows and columns of the padded grid."""
        return self.rows.padded, self.columns.padded

    @property
    def masked(self) -> float:
        """Share of the pairs in windows that the mask keeps apart."""
        return 1.0 - float(self.rows.allowed.mean() * self.columns.allowed.mean())

    @property
    def padding(self) -> float:
        """Share of the tokens in windows that are padding."""
        return 1.0 - self.rows.length * self.columns.length / (self.rows.padded * self.columns.padded)

    @property
    def wraps(self) -> bool:
        """Whether tokens of opposite edges attend to each other."""
        return bool(self.rows.wrapped or self.columns.wrapped)


@dataclass(frozen=True)
class Attention:
    """The attention of a stage; numbers are of its first block where they differ.

    Args:
        reach: What a token attends to; None of a stage without a grid.
        heads: Number of heads; None if it cannot be told.
        keys: Keys of each query, with padding.
        blocks: Number of modules that attend.
        windows: Windows of every block that says so, in their order; empty for other kinds.
        products: MACs of all blocks in products of activations: queries with keys, and weights with values.
        macs: MACs of all blocks in their attention, with the projections.
        per_block: MACs of the first block's attention, as 4hwC² + 2M²hwC counts them.
        if_global: MACs of it if every token attended to all: 4hwC² + 2(hw)²C; None if that is what it does.
    """

    reach: Reach | None
    heads: int | None
    keys: int
    blocks: int
    windows: tuple[Shifted, ...]
    products: int
    macs: int
    per_block: int
    if_global: int | None

    @property
    def ratio(self) -> float | None:
        """How many times as much attention among all tokens would cost."""
        return None if self.if_global is None else self.if_global / self.per_block

    @property
    def widest(self) -> Shifted | None:
        """The block with a shift, or the first one; None without windows."""
        return next((each for each in self.windows if any(each.shift)), self.windows[0] if self.windows else None)


def attention_of(
    network: Any, found: Trace, names: Sequence[str], grid: tuple[int, int] | None, images: int = 1
) -> Attention | None:
    """The attention of a stage.

    Args:
        network: The network.
        found: Its trace.
        names: The stage's modules that multiply activations with one another.
        grid: The stage's rows and columns.
        images: Number of images of the trace.
    """
    if not names:
        return None
    first, tokens = names[0], None if grid is None else grid[0] * grid[1]
    inside = found.inside(first)
    every = [each.product for each in inside if each.product]
    batch, queries, inner, keys = every[0]
    heads = _heads(network, first)
    is_looped = heads is None or (heads > 1 and every.count(every[0]) % heads == 0)  # one head after another
    count = _windows(batch // images, heads, (queries, inner, keys), tokens, is_looped)
    windows = () if grid is None else tuple(each for name in names if (each := windows_of(network, name, grid)))
    reach: Reach | None = (
        None
        if tokens is None
        else "windows"
        if count > 1
        else "all tokens"
        if keys >= tokens
        else "fewer keys"
        if queries >= tokens or inner < tokens
        else "channels"
    )
    if windows and reach == "all tokens" and keys > (tokens or 0):
        reach = "windows"  # one window, larger than the grid
    products = sum(each.macs for each in inside if each.product)
    projections = sum(each.macs for each in inside) - products
    if_global = None
    if tokens and reach in ("windows", "fewer keys") and keys != tokens and queries * count:
        share = tokens / (queries * count) if reach == "windows" else 1.0  # of the padded tokens
        width = products / (images * queries * count * keys)  # of queries and of values, of all heads
        if_global = round(projections * share + images * tokens**2 * width)
    return Attention(
        reach=reach,
        heads=heads,
        keys=keys,
        blocks=len(names),
        windows=windows,
        products=sum(each.macs for name in names for each in found.inside(name) if each.product),
        macs=sum(each.macs for name in names for each in found.inside(name)),
        per_block=products + projections,
        if_global=if_global,
    )


def _windows(matrices: int, heads: int | None, shape: tuple[int, int, int], tokens: int | None, is_looped: bool) -> int:
    """Number of windows of an attention.

    Args:
        matrices: Products of queries and keys that are computed at once, of one image: each window's, of each head.
        heads: Heads of the attention, if known.
        shape: Queries, what they are multiplied over, and keys.
        tokens: Positions of the grid, if it has one.
        is_looped: Whether heads may be computed one after another.
    """
    queries, inner, keys = shape
    count = max(1, matrices // (heads or 1))
    if tokens is None or queries >= tokens or (heads is not None and count > 1 and tokens <= count * queries):
        return count
    if inner >= tokens and max(queries, keys) < tokens:
        return 1  # channels attend, by products over all tokens
    return matrices if is_looped and tokens <= matrices * queries else count


def _heads(network: Any, name: str) -> int | None:
    """Heads of an attention, by itself or by the module that holds it."""
    for module in (network.get_submodule(name), network.get_submodule(name.rpartition(".")[0])):
        for name in ("num_heads", "heads"):
            heads = getattr(module, name, None)
            if isinstance(heads, int) and heads > 0:
                return heads
    return None


def windows_of(network: Any, name: str, grid: tuple[int, int]) -> Shifted | None:
    """The windows of the block that holds an attention; None if it does not say that it has shifted windows."""
    block = network.get_submodule(name.rpartition(".")[0])
    window, shift = _pair(getattr(block, "window_size", None)), _pair(getattr(block, "shift_size", None))
    if window is None or shift is None:
        return None
    is_masked = getattr(block, "attn_mask", None) is not None or bool(getattr(block, "dynamic_mask", False))
    sides = zip(grid, window, shift, strict=True)
    rows, columns = (Axis(length, size, by, is_masked) for length, size, by in sides)
    return Shifted(rows, columns)


def _pair(value: Any) -> tuple[int, int] | None:
    """A side, or rows and columns, as rows and columns; None for anything else."""
    if isinstance(value, int):
        return value, value
    if isinstance(value, tuple | list) and len(value) == 2 and all(isinstance(each, int) for each in value):
        return int(value[0]), int(value[1])
    return None
