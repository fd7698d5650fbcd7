"""An animation of a pair of blocks, W-MSA and SW-MSA, on an image: windows, cyclic shift, mask, what a token sees."""

import io
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from swinft.architecture.axis import PADDING
from swinft.architecture.drawings import Drawing, Pixels, cut, joined
from swinft.architecture.layout import Layout

SIDE, BAR = 224, 26  # pixels of the longer side of the image, and of the line of text below it
COLORS_OF_GIF = 64
HOLD, STEP = 1600, 90  # milliseconds of a frame that is to be read, and of one of the roll
QUERY, KEY = (228, 87, 46), (255, 236, 120)


def animation(image: Pixels, plain: Layout, shifted: Layout) -> Drawing:
    """A GIF of a token that first attends in its window, then in the shifted one.

    Args:
        image: The image, whose sides are multiples of the grid's.
        plain: Windows of the first block.
        shifted: Those of the second one.
    """
    scale = SIDE / max(image.shape[:2])
    token = max(4, round(scale * image.shape[0] / plain.grid[0])), max(4, round(scale * image.shape[1] / plain.grid[1]))
    size = plain.grid[1] * token[1], plain.grid[0] * token[0]
    parts = cut(np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)), plain.grid)
    in_place = np.arange(plain.grid[0] * plain.grid[1]).reshape(plain.grid)
    rest = [(0, most - side) for most, side in zip(shifted.placed.shape, plain.grid, strict=True)]

    def padded(placed: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.pad(placed, rest, constant_values=PADDING)

    query = _query(plain, shifted)
    first = plain.keys_of(query)
    both = sorted({key for each in shifted.keys_of(query) for key in plain.keys_of(each)})
    frames, times = list[Image.Image](), list[int]()

    def add(
        placed: NDArray[np.int64], keys: Iterable[int], text: str, time: int, window: tuple[int, int] | None
    ) -> None:
        placed = placed if placed.shape == shifted.placed.shape else padded(placed)
        frames.append(_frame(parts, placed, query, set(keys), text, token, window))
        times.append(time)

    add(in_place, [], "a map of tokens, and one of them", HOLD, None)
    add(in_place, [], f"block 1, W-MSA: {len(plain.tokens)} windows", HOLD, plain.window)
    add(in_place, first, "it attends to the tokens of its window", HOLD, plain.window)
    steps = max(_shift(shifted))
    for step in range(steps + 1):  # the grid is rolled by one token after another
        rows, columns = (round(each * step / steps) for each in _shift(shifted))
        rolled = np.roll(in_place, (-rows, -columns), (0, 1))
        add(rolled, [], "block 2, SW-MSA: the grid is rolled", HOLD if step == steps else STEP * 2, shifted.window)
    add(shifted.placed, shifted.keys_of(query), "the mask keeps apart what is not adjacent", HOLD, shifted.window)
    add(in_place, shifted.keys_of(query), "rolled back: the keys of block 2", HOLD, None)
    add(in_place, both, "what they have seen in block 1: beyond its window", 2 * HOLD, None)
    text = (
        "A token (red) and its keys (yellow): in the first block those of its window; in the second one, whose grid is "
        "rolled and masked, those of the shifted window; through both, tokens of several windows."
    )
    return Drawing("blocks", "A pair of blocks", text, _gif(frames, times), "gif")


def _shift(layout: Layout) -> tuple[int, int]:
    """By how many rows and columns the grid is rolled: the place of the token that comes first."""
    first = int(layout.tokens[0, 0])
    return first // layout.grid[1], first % layout.grid[1]


def _query(plain: Layout, shifted: Layout) -> int:
    """The token whose keys in the shifted windows come from most windows; of several the one nearest to the middle."""
    owner = {int(token): number for number, tokens in enumerate(plain.tokens) for token in tokens}
    rows, columns = plain.grid

    def rank(token: int) -> tuple[int, float]:
        away = abs(token // columns - rows / 2) + abs(token % columns - columns / 2)
        return len({owner[key] for key in shifted.keys_of(token)}), -away

    return max(range(rows * columns), key=rank)


def _frame(
    parts: Pixels,
    placed: NDArray[np.int64],
    query: int,
    keys: set[int],
    text: str,
    token: tuple[int, int],
    window: tuple[int, int] | None,
) -> Image.Image:
    """The tokens as they are placed, with keys and windows, above a line of text."""
    pixels = joined(parts, placed)
    if keys:
        is_key = np.isin(placed, list(keys)) & (placed != PADDING)
        shade = np.where(is_key, 1.0, 0.45).repeat(token[0], 0).repeat(token[1], 1)[..., None]
        pixels = (pixels * shade).astype(np.uint8)
    height, width = pixels.shape[:2]
    frame = Image.new("RGB", (width, height + BAR), "white")
    frame.paste(Image.fromarray(pixels), (0, 0))
    draw = ImageDraw.Draw(frame)
    if window is not None:
        for row in range(0, height + 1, window[0] * token[0]):
            draw.line([(0, min(row, height - 1)), (width, min(row, height - 1))], "white", 2)
        for column in range(0, width + 1, window[1] * token[1]):
            draw.line([(min(column, width - 1), 0), (min(column, width - 1), height)], "white", 2)
    for row, column in np.argwhere(np.isin(placed, list(keys))):
        _box(draw, row, column, token, KEY, 1)
    for row, column in np.argwhere(placed == query):
        _box(draw, row, column, token, QUERY, 3)
    draw.text((6, height + 5), text, fill=(40, 50, 60), font=ImageFont.load_default(11))
    return frame


def _box(
    draw: ImageDraw.ImageDraw, row: int, column: int, token: tuple[int, int], color: tuple[int, ...], width: int
) -> None:
    left, top = column * token[1], row * token[0]
    draw.rectangle([left, top, left + token[1] - 1, top + token[0] - 1], outline=color, width=width)


def _gif(frames: list[Image.Image], times: list[int]) -> bytes:
    """A GIF that repeats; all frames with the colours of one palette, so that nothing flickers."""
    width, height = frames[0].size
    palette = Image.new("RGB", (width, height * 3), QUERY)
    palette.paste(KEY, (0, 0, width, height // 2))
    palette.paste(frames[0], (0, height))
    palette.paste(frames[-1], (0, height * 2))
    colors = palette.quantize(COLORS_OF_GIF)
    indexed = [frame.quantize(palette=colors, dither=Image.Dither.NONE) for frame in frames]
    buffer = io.BytesIO()
    indexed[0].save(buffer, "GIF", save_all=True, append_images=indexed[1:], duration=times, loop=0, optimize=False)
    return buffer.getvalue()
