"""Masks drawn over images: a light fill and an outline, in a colour for each class.

Shapes: (H, W) image size, K classes.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import cv2
import numpy as np
from numpy.typing import NDArray

from swinft.data.masks.rle import IGNORED

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Image = NDArray[np.uint8]
Planes = NDArray[np.uint8]
# Okabe and Ito's colours, which people with any colour vision tell apart.
COLORS = ((230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167))
FILL = 0.35  # of the colour, inside a mask
VEIL, GREY = 0.7, 128  # how much of the grey covers pixels that do not count
DASH = 5  # pixels
SHOWN = 12  # classes in a legend


def color_of(k: int) -> tuple[int, int, int]:
    """The colour of a class, RGB in 0–255."""
    return COLORS[k % len(COLORS)]


def hex_color(k: int) -> str:
    """The same as text, `#e69f00`."""
    return "#" + bytes(color_of(k)).hex()


def filled_masks(image: Image, planes: Planes) -> Image:
    """An image (H, W, 3) with a light fill and an outline of each of its masks (H, W, K); what is ignored is grey."""
    found = image.astype(np.float32)
    is_ignored = (planes == IGNORED).any(2)
    found[is_ignored] = (1 - VEIL) * found[is_ignored] + VEIL * GREY
    for k in range(planes.shape[2]):
        is_inside = _inside(planes[..., k])
        found[is_inside] = (1 - FILL) * found[is_inside] + FILL * np.array(color_of(k), np.float32)
    return outlined(found.round().astype(np.uint8), planes)


def outlined(image: Image, planes: Planes, is_dashed: bool = False) -> Image:
    """An image (H, W, 3) with the outlines of masks (H, W, K), as wide as suits its size; dashed ones with white."""
    found, width = image.copy(), max(1, round(max(image.shape[:2]) / 200))
    kernel = np.ones((2 * width + 1, 2 * width + 1), np.uint8)
    down, across = (np.arange(side) for side in image.shape[:2])
    is_white = ((down[:, None] + across) // (DASH * width)) % 2 == 0
    for k in range(planes.shape[2]):
        mask = _inside(planes[..., k]).astype(np.uint8)
        # What is outside of the image is no border of a mask.
        edge = mask.astype(bool) & ~cv2.erode(mask, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=1).astype(bool)
        found[edge] = color_of(k)
        if is_dashed:
            found[edge & is_white] = 255
    return found


def _inside(plane: Planes) -> NDArray[np.bool_]:
    """The pixels that are in a mask (H, W)."""
    found: NDArray[np.bool_] = (plane > 0) & (plane != IGNORED)
    return found


def add_legend(figure: "Figure", names: Sequence[str]) -> None:
    """The names of the classes in their colours, below a figure; none for one class."""
    from matplotlib.patches import Patch

    if len(names) > 1:
        handles = [Patch(color=hex_color(k), label=name) for k, name in enumerate(names[:SHOWN])]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=8)
