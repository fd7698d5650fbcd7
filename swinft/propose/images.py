"""Sizes of a sample of images, from their headers."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from PIL import Image

from swinft.data.sources.named import make_source
from swinft.propose.listing import Group, spread

TRIED = 24


class Size(NamedTuple):
    """Median width and height of so many images, in pixels."""

    width: int
    height: int
    tried: int


def size_of(root: Path, groups: Sequence[Group]) -> Size | None:
    """The median size of a sample of images; None where none can be opened."""
    found = []
    for group in groups:
        source = make_source(group.container, False)
        for name in spread(group.names, TRIED):
            path = str(root / name)
            try:
                if group.container != "files":
                    source.names(os.path.dirname(path))
                    opened = Image.open(io.BytesIO(source.read(path)))
                else:
                    opened = Image.open(path)
                with opened:
                    found.append(opened.size)
            except (OSError, ValueError, LookupError, Image.DecompressionBombError):
                continue
    if not found:
        return None
    return Size(round(median(width for width, _ in found)), round(median(height for _, height in found)), len(found))
