"""How the libraries behind images are set in processes of swinft's own: its commands, its folds, its loader processes.

A program that imports swinft keeps its own settings; pixels are the same either way.
"""

import cv2
from PIL import ImageFile


def tune_decoders() -> None:
    """Sets this process's decoders for many small images, one after the other."""
    # A pool of OpenCV threads loses time on images of this size, and a forked worker that inherits one can hang.
    cv2.setNumThreads(0)
    # Pillow reads files and hands out pixels in blocks of 64 KB, and joins them by copying; in one piece is 5 % faster.
    ImageFile.MAXBLOCK = 4_000_000
