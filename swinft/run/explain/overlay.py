"""Maps as pictures: in colours, and over their image.

Shapes: C channels, (H, W) pixels.
"""

import math

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

Rgb = NDArray[np.uint8]
LEAST_SIDE = 256  # pixels of the shorter side of a file: smaller images are enlarged by a whole factor
OPACITY = 0.65
STRONGEST = 0.998
POSITIVE, SIGNED = "inferno", "RdBu_r"
LINE = (255, 255, 255, 190)


def rgb_of(image: Tensor) -> Rgb:
    """An image as the network sees it, (C, H, W) in 0–255, as uint8 (H, W, 3): the mean of channels unless three."""
    pixels = image.detach().float().cpu()
    shown = pixels if len(pixels) == 3 else pixels.mean(0, keepdim=True).expand(3, -1, -1)
    found: Rgb = shown.clamp(0, 255).round().byte().permute(1, 2, 0).numpy()
    return found


def scaled(maps: NDArray[np.float32], is_signed: bool, from_least: bool = False) -> NDArray[np.float32]:
    """Maps of a row, scaled for display: in 0–1, or in −1–1 if they are signed; all 0 where nothing differs.

    Args:
        maps: (V, H, W).
        is_signed: Divide by the absolute value that one in 500 pixels exceeds.
        from_least: Subtract the least value first: attention is nowhere 0.
    """
    found = maps - maps.min() if from_least and not is_signed else maps
    # Single pixels of a signed map are many times as strong as all others, which would be invisible.
    largest = float(np.quantile(np.abs(found), STRONGEST) if is_signed else found.max(initial=0.0))
    largest = largest or float(np.abs(found).max(initial=0.0))
    return (found / largest if largest > 0 else np.zeros_like(found)).clip(-1, 1).astype(np.float32)


def colored(map: NDArray[np.float32], is_signed: bool) -> Rgb:
    """A scaled map (H, W) in colours, uint8 (H, W, 3): from dark to light; or blue for negative, red for positive."""
    colors = matplotlib.colormaps[SIGNED if is_signed else POSITIVE]
    values = colors((map + 1) / 2 if is_signed else map)[..., :3]
    found: Rgb = (255 * values).round().astype(np.uint8)
    return found


def overlaid(image: Rgb, map: NDArray[np.float32], is_signed: bool) -> Rgb:
    """The image under a scaled map, which is the more opaque the larger it is."""
    grey = image.astype(np.float32).mean(2, keepdims=True) * 0.5 + image * 0.5
    alpha = OPACITY * np.sqrt(np.abs(map))[..., None]
    found: Rgb = (grey * (1 - alpha) + colored(map, is_signed) * alpha).round().astype(np.uint8)
    return found


def enlarged(image: Rgb, cuts: tuple[list[float], list[float]] = ([], [])) -> Image.Image:
    """A picture of at least `LEAST_SIDE`, with lines where windows begin.

    Args:
        image: uint8 (H, W, 3).
        cuts: Rows and columns in pixels.
    """
    height, width = image.shape[:2]
    factor = max(1, math.ceil(LEAST_SIDE / min(height, width)))
    found = Image.fromarray(image).resize((width * factor, height * factor), Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(found, "RGBA")
    for row in cuts[0]:
        draw.line([(0, row * factor), (found.width, row * factor)], LINE, 1)
    for column in cuts[1]:
        draw.line([(column * factor, 0), (column * factor, found.height)], LINE, 1)
    return found
