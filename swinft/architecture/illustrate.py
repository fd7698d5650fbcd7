"""The drawings of a network: chosen from its own stages, blocks and merging layers."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from swinft.architecture.animation import animation
from swinft.architecture.describe import Architecture, Part
from swinft.architecture.drawings import Drawing, biases, mask, merging, patches, shown_image, windows
from swinft.architecture.layout import bias_tables, layout_of, merged_by
from swinft.data.images.decode import decode
from swinft.data.sources.source import ImageError
from swinft.errors import InputError

TILE = Path(__file__).with_name("tile.jpg")  # Blue Marble Next Generation, NASA Earth Observatory


def has_shifted_windows(found: Architecture) -> bool:
    """Whether there is something to draw."""
    return any(_is_shifted(part) for part in found.parts)


def _is_shifted(part: Part) -> bool:
    return part.attention is not None and part.attention.widest is not None and any(part.attention.widest.shift)


def read_image(file: str | None) -> Any:
    """An image file, or the tile that comes with swinft.

    Raises:
        InputError: The file is no image.
    """
    try:
        return decode(file or TILE)
    except ImageError as error:
        raise InputError(f"--image: {error}") from error


def drawings(found: Architecture, network: nn.Module, image: Any, is_random: bool) -> list[Drawing]:
    """All drawings of a network with shifted windows.

    Args:
        found: Its architecture.
        network: The network, on the CPU.
        image: Pixels (H, W, 3).
        is_random: Whether its weights are random.
    """
    shown = shown_image(image, found.image_size)
    stages = [part for part in found.parts if part.attention is not None and part.attention.windows]
    first = stages[0]
    shifted_stages = [part for part in stages if _is_shifted(part)]
    few = min(shifted_stages, key=lambda part: part.attention.widest.count)  # type: ignore[union-attr]
    assert first.grid is not None
    assert first.attention is not None
    assert few.grid is not None
    assert few.channels is not None
    patch = found.image_size[0] // first.grid[0], found.image_size[1] // first.grid[1]
    made = [patches(shown, first.grid, first.attention.windows[0].window, patch)]
    blocks = _blocks(network, few)
    plain, shifted = (layout_of(block, few.grid, few.channels) for block in blocks[:2])
    made += [windows(_fitted(shown, few.grid), plain, shifted), animation(_fitted(shown, few.grid), plain, shifted)]
    made.append(mask(layout_of(_blocks(network, first)[1], first.grid, first.channels or 1)))
    if (merger := _merging(network, stages)) is not None:
        module, before, after = merger
        assert before.grid is not None
        assert before.channels is not None
        sources = merged_by(module, before.grid, before.channels)
        made.append(merging(shown, before.grid, sources, (before.channels, after.channels or 0)))
    block = blocks[0]
    if (tables := bias_tables(block.attn)) is not None:
        made.append(biases(tables, f"{few.name}, block 1", is_random))
    return made


def _fitted(image: NDArray[np.uint8], grid: tuple[int, int]) -> NDArray[np.uint8]:
    """An image without the rest of its sides that the grid does not divide."""
    return image[: image.shape[0] // grid[0] * grid[0], : image.shape[1] // grid[1] * grid[1]]


def _blocks(network: nn.Module, part: Part) -> list[Any]:
    """The blocks of a stage: what holds an attention, and says what its windows are."""
    stage = network.get_submodule(part.modules[-1])
    return [each for each in stage.modules() if hasattr(each, "attn") and hasattr(each, "shift_size")]


def _merging(network: nn.Module, stages: list[Part]) -> tuple[nn.Module, Part, Part] | None:
    """The first layer that merges 2 × 2 tokens, with the stages before and after it."""
    for before, after in pairwise(stages):
        for module in network.get_submodule(after.modules[0]).modules():
            width = getattr(getattr(module, "reduction", None), "in_features", None)
            if width == 4 * (before.channels or 0):
                return module, before, after
    return None
