"""Drawings of Swin on a real image: patches, windows, the cyclic shift, the mask, merging, and position biases.

Shapes: h rows and w columns of the grid, P pixels of a token's side, W windows, N tokens of a window.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

from swinft.architecture.axis import PADDING
from swinft.architecture.layout import Layout

Pixels = NDArray[np.uint8]
SIDE = 448  # pixels of the image in a drawing
TEXT = "#6b7886"  # readable on white and on black
COLORS = ("#e4572e", "#2e86ab", "#f2a541", "#3a9d5d", "#8e5ba6", "#c2185b", "#00897b", "#6d4c41", "#546e7a")
BLANK, COLORS_OF_PNG = 128, 128


@dataclass(frozen=True)
class Drawing:
    """A figure.

    Args:
        name: Name of its file.
        title: Its title.
        text: What it shows.
        content: Bytes of the PNG or GIF.
        kind: `png` or `gif`.
    """

    name: str
    title: str
    text: str
    content: bytes
    kind: str = "png"


def cut(image: Pixels, grid: tuple[int, int]) -> Pixels:
    """An image (h·P, w·P, 3) as what each token stands for (h·w, P, P, 3)."""
    rows, columns = grid
    height, width = image.shape[0] // rows, image.shape[1] // columns
    parts = image[: rows * height, : columns * width].reshape(rows, height, columns, width, 3)
    return parts.transpose(0, 2, 1, 3, 4).reshape(rows * columns, height, width, 3)


def joined(parts: Pixels, placed: NDArray[np.int64]) -> Pixels:
    """What tokens stand for (h·w, P, P, 3), placed as their numbers are (rows, columns); padding is grey."""
    blank = np.full((1, *parts.shape[1:]), BLANK, np.uint8)
    found = np.concatenate([parts, blank])[placed]  # −1 is the last one
    rows, columns = placed.shape
    height, width = parts.shape[1:3]
    return found.transpose(0, 2, 1, 3, 4).reshape(rows * height, columns * width, 3)


def _figure(panels: int, width: float = 9.6, height: float | None = None) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(width, height or width / panels + 0.35), layout="constrained", facecolor="none")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    for axis in axes:
        axis.set_axis_off()
    return figure, list(axes)


def _titled(axis: Axes, text: str) -> None:
    axis.set_title(text, color=TEXT, fontsize=9)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, transparent=True)
    small = io.BytesIO()
    # An eighth of the colours, a third of the bytes; this method is the one that keeps transparency.
    Image.open(buffer).quantize(COLORS_OF_PNG, Image.Quantize.FASTOCTREE).save(small, "PNG", optimize=True)
    return small.getvalue()


def _lines(axis: Axes, size: tuple[int, int], step: tuple[float, float], color: str, width: float) -> None:
    """Lines every so many pixels, also around."""
    for place in np.arange(0, size[0] + 0.5, step[0]):
        axis.plot([-0.5, size[1] - 0.5], [place - 0.5] * 2, color=color, linewidth=width)
    for place in np.arange(0, size[1] + 0.5, step[1]):
        axis.plot([place - 0.5] * 2, [-0.5, size[0] - 0.5], color=color, linewidth=width)


def patches(image: Pixels, grid: tuple[int, int], window: tuple[int, int], patch: tuple[int, int]) -> Drawing:
    """The image in windows of the first stage, and one of its windows in patches."""
    figure, (whole, zoom) = _figure(2, 7.6)
    token = image.shape[0] / grid[0], image.shape[1] / grid[1]
    step = token[0] * window[0], token[1] * window[1]
    whole.imshow(image)
    _lines(whole, image.shape[:2], step, "white", 0.8)
    row, column = grid[0] // window[0] // 2, grid[1] // window[1] // 2
    top, left = round(row * step[0]), round(column * step[1])
    whole.add_patch(Rectangle((left, top), step[1], step[0], fill=False, edgecolor=COLORS[0], linewidth=2))
    part = image[top : round(top + step[0]), left : round(left + step[1])]
    zoom.imshow(part)
    _lines(zoom, part.shape[:2], token, COLORS[0], 0.8)
    _titled(whole, f"{grid[0]} × {grid[1]} tokens in windows of {window[0]} × {window[1]}")
    _titled(zoom, f"one window: each cell is a patch of {patch[0]} × {patch[1]} px, one token")
    text = (
        f"Patch partition: the image is cut into {grid[0]} × {grid[1]} patches of {patch[0]} × {patch[1]} px; a linear "
        f"layer makes a token of each. Attention is within windows of {window[0]} × {window[1]} tokens."
    )
    return Drawing("patches", "Patches and windows", text, _png(figure))


def windows(image: Pixels, plain: Layout, shifted: Layout) -> Drawing:
    """Windows of a block, those of the next one where they lie in the image, and as they are computed."""
    figure, axes = _figure(3)
    parts = cut(image, plain.grid)
    token = parts.shape[1], parts.shape[2]
    regions = region_map(shifted)
    for axis, layout in zip(axes, (plain, shifted, shifted), strict=True):
        is_rolled = axis is axes[2]
        placed = layout.placed if is_rolled else np.arange(parts.shape[0]).reshape(plain.grid)
        shown = joined(parts, placed).astype(float)
        owner = regions if layout is shifted else region_map(plain)
        colors = [_rgb(COLORS[owner[each] % len(COLORS)]) if each != PADDING else (0, 0, 0) for each in placed.flat]
        tint = np.array(colors)
        tint = tint.reshape(*placed.shape, 3).repeat(token[0], 0).repeat(token[1], 1)
        axis.imshow((0.62 * shown + 0.38 * tint).astype(np.uint8))
        if is_rolled or layout is plain:
            step = layout.window[0] * token[0], layout.window[1] * token[1]
            _lines(axis, shown.shape[:2], step, "white", 1.5)
    _titled(axes[0], f"W-MSA: {len(plain.tokens)} windows")
    _titled(axes[1], "SW-MSA: who attends to whom, in the image")
    _titled(axes[2], f"… after the cyclic shift: {len(shifted.tokens)} windows")
    text = (
        "Tokens of one colour attend to one another. In the second block the windows lie half a window further. "
        "Instead of cutting smaller windows at the edges, the grid is rolled up and to the left: the number of windows "
        "stays the same, and the mask keeps apart what the roll has brought into one window."
    )
    return Drawing("windows", "Shifted windows by a cyclic shift", text, _png(figure))


def region_map(layout: Layout) -> NDArray[np.int64]:
    """A number for each token (h·w,), equal for those that attend to each other."""
    found = np.full(layout.grid[0] * layout.grid[1], -1)
    number = 0
    for token in range(len(found)):
        if found[token] < 0:
            found[layout.keys_of(token)] = number
            number += 1
    return found


def _rgb(color: str) -> tuple[int, int, int]:
    return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)


def mask(shifted: Layout) -> Drawing:
    """The different masks of a block's windows: which pairs attend."""
    patterns, counts = np.unique(shifted.allowed, axis=0, return_counts=True)
    order = np.argsort(-patterns.mean((1, 2)))[:4]
    figure, axes = _figure(len(order), 2.4 * len(order))
    for axis, number in zip(axes, order, strict=True):
        colors = np.where(patterns[number][..., None], np.array(_rgb(COLORS[1])), np.array((205, 210, 215)))
        axis.imshow(colors.astype(np.uint8), interpolation="nearest")
        kept = patterns[number].mean()
        _titled(axis, f"{counts[number]} of {len(shifted.tokens)} windows: {kept:.0%} of pairs")
    text = (
        f"Queries are rows, keys are columns, {shifted.tokens.shape[1]} tokens of a window each. Blue pairs attend to "
        f"each other; to the logits of the others −100 is added before the softmax."
    )
    return Drawing("mask", "The attention mask", text, _png(figure))


def merging(image: Pixels, grid: tuple[int, int], sources: NDArray[np.int64], widths: tuple[int, int]) -> Drawing:
    """Four neighbours that become one token."""
    figure, (before, after) = _figure(2, 6.4)
    tokens = np.arange(grid[0] * grid[1]).reshape(grid)[:4, :4]
    for axis, cells in ((before, tokens), (after, None)):
        axis.set(xlim=(0, 4), ylim=(4, 0), aspect="equal")
        for row in range(4):
            for column in range(4):
                place = tuple(np.argwhere((sources == tokens[row, column]).any(-1))[0])
                part = int(np.argwhere(sources[place] == tokens[row, column])[0, 0])
                color = COLORS[(place[0] * 2 + place[1]) % len(COLORS)]
                if cells is not None:
                    axis.add_patch(Rectangle((column, row), 1, 1, facecolor=color, edgecolor="white", alpha=0.85))
                    axis.text(
                        column + 0.5, row + 0.5, f"{tokens[row, column]}", ha="center", va="center", color="white"
                    )
                else:
                    left, top = 2 * place[1] + 0.5 * part, 2 * place[0]
                    axis.add_patch(Rectangle((left, top), 0.5, 2, facecolor=color, edgecolor="white", alpha=0.85))
                    axis.text(left + 0.25, top + 1, f"{tokens[row, column]}", ha="center", va="center", color="white")
    _titled(before, f"{grid[0]} × {grid[1]} tokens of {widths[0]} channels")
    _titled(after, f"{sources.shape[0]} × {sources.shape[1]} tokens of 4 × {widths[0]}, then {widths[1]} channels")
    text = (
        "Patch merging: the channels of 2 × 2 neighbours are joined in the order shown, and a linear layer makes half "
        "as many of them. Resolution is halved, width is doubled, as between the stages of a convolutional network."
    )
    return Drawing("merging", "Patch merging", text, _png(figure))


def biases(tables: NDArray[np.float32], name: str, is_random: bool) -> Drawing:
    """The relative position bias of each head."""
    heads = min(len(tables), 6)
    figure, axes = _figure(heads, 1.9 * heads, 2.3)
    limit = float(np.abs(tables[:heads]).max()) or 1.0
    for head, axis in enumerate(axes):
        axis.imshow(tables[head], cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        _titled(axis, f"head {head + 1} of {len(tables)}")
    of = "random ones: a trained network's have a shape" if is_random else "those of the run's weights"
    text = (
        f"{name}: what is added to the logit of a pair by its offset, zero in the middle; from −{limit:.2g} (blue) to "
        f"{limit:.2g} (red). These are {of}. A window of M × M has (2M − 1)² offsets, for M⁴ pairs."
    )
    return Drawing("biases", "Relative position biases", text, _png(figure))


def shown_image(pixels: Any, size: tuple[int, int]) -> Pixels:
    """An image as drawings show it: resized to the network's proportions, with the longer side near `SIDE`."""
    scale, image = max(1, round(SIDE / max(size))), Image.fromarray(np.ascontiguousarray(pixels))
    resized = image.resize((size[1] * scale, size[0] * scale), Image.Resampling.BICUBIC)
    return np.asarray(resized.convert("RGB"))
