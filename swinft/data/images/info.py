"""What is known of an image beside its pixels, and errors of decoders as errors that name the file."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from swinft.data.sources.source import ImageError
from swinft.errors import InputError

Result = TypeVar("Result")


@dataclass(frozen=True)
class ImageInfo:
    """Information from an image's header and pixels.

    Args:
        width: In pixels, after EXIF orientation.
        height: In pixels, after EXIF orientation.
        mode: Pillow's name of the pixel format.
        format: `JPEG`, `PNG`, …
        frames: More than 1 for animations and stacks.
        is_rotated: EXIF rotates or flips the image.
        bits: 2^bits − 1 is the largest possible sample, by the file's metadata or by the rules.
        dropped_bands: Ignored bands: the file declares them neither colour nor transparency.
        used_bits: Bits of the largest sample; 0 if that is meaningless, or the pixels were not decoded.
        altered: Fraction of pixels that the conversion changes otherwise than by scaling, in 0–1: those that are not
            fully opaque, or with the rule `keep` outside of its range; 0 if they were not decoded.
    """

    width: int
    height: int
    mode: str
    format: str
    frames: int
    is_rotated: bool
    bits: int = 8
    dropped_bands: int = 0
    used_bits: int = 0
    altered: float = 0.0


def guarded(path: str | Path, work: Callable[[], Result]) -> Result:
    """Runs a decoder; on damaged data, decoders raise many types of errors.

    Raises:
        ImageError: It fails.
        InputError: A package that it needs is not installed.
    """
    try:
        return work()
    except (MemoryError, InputError):
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ImageError(f"{path} is damaged or cannot be used: {reason}. Restore it or remove its row.") from error
