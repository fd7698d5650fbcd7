"""Statistics of an image's pixels: brightness, contrast, sharpness; by which training and test images are compared."""

import cv2
import numpy as np
from numpy.typing import NDArray

from swinft.data.images.depth import WHITE, Pixels

# Of the decoded image as training sees it; in shares of white, so that 8 and 16 bits compare.
STATISTICS = (
    "mean_red",
    "mean_green",
    "mean_blue",
    "spread_red",  # standard deviation over the pixels
    "spread_green",
    "spread_blue",
    "sharpness",  # standard deviation of the Laplacian of the grey image: low where it is blurred
)


def statistics(pixels: Pixels) -> NDArray[np.float32]:
    """The statistics of an image, float32 (7,), in the order of `STATISTICS`; 0 where a pixel is not finite.

    Args:
        pixels: RGB (H, W, 3).
    """
    pixels = np.ascontiguousarray(pixels)
    means, spreads = cv2.meanStdDev(pixels)
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    _, edges = cv2.meanStdDev(cv2.Laplacian(grey, cv2.CV_32F))
    found = np.concatenate([means.ravel(), spreads.ravel(), edges.ravel()]) / WHITE[pixels.dtype.name]
    return np.asarray(np.where(np.isfinite(found), found, 0), dtype=np.float32)
