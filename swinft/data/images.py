"""The one way an image file becomes pixels: checks, training and prediction all see the same picture.

What is converted, and how: EXIF orientation is applied; 16-bit grey is divided by 257; grey, 1-bit, palette and CMYK
become RGB; transparency is laid over white; of an animation the first frame is taken; of 16-bit colour Pillow keeps the
upper byte; colour profiles are not applied. Floating-point pixels and integers beyond 16 bits are errors.
"""

import hashlib
import io
import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from swinft.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")  # decoders are attack surface: no others are started
MAX_PIXELS = 64_000_000  # more is a scan or a bomb, and 192 MB in every worker
ORIENTATION = 0x0112  # EXIF tag
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
CONVERSION = 1  # raised whenever the rules above change, so that pixels kept from before are not used

# Pillow reads files and hands out pixels in blocks of 64 KB, which are joined by copying; in one piece is 5 % faster.
ImageFile.MAXBLOCK = 4_000_000

# First bytes of what is no image, and what to do about it.
KNOWN_CONTENT = {
    b"version https://git-lfs": "is a git-lfs pointer; run `git lfs pull`",
    b"<!doctype": "is a web page; download it again, signed in",
    b"<html": "is a web page; download it again, signed in",
    b"<?xml": "is XML or SVG; convert it to PNG",
    b"<svg": "is an SVG; convert it to PNG",
    b"PK\x03\x04": "is a zip archive; unpack it",
    b"\x1f\x8b": "is gzip-compressed; unpack it",
    b"%PDF": "is a PDF; convert it to PNG",
    b"\x93NUMPY": "is a numpy array; convert it to PNG",
}


class ImageError(InputError):
    """A file is no image that can be decoded; the message names it and says what it is."""


@dataclass(frozen=True)
class ImageInfo:
    """What an image's header says.

    Args:
        width: In pixels, after EXIF orientation.
        height: In pixels, after EXIF orientation.
        mode: Pillow's name of the pixel format.
        format: `JPEG`, `PNG`, …
        frames: More than 1 for animations and stacks.
        is_rotated: EXIF says that the picture must be turned or flipped.
    """

    width: int
    height: int
    mode: str
    format: str
    frames: int
    is_rotated: bool


@dataclass(frozen=True)
class Scan:
    """What a look at many image files found.

    Args:
        infos: Header of each file, None where it cannot be decoded.
        errors: What is wrong with which file, by its position.
        digests: SHA-256 of each file's decoded pixels: equal for the same picture, whatever the files' names and
            metadata. Empty where only headers were read.
    """

    infos: list[ImageInfo | None]
    errors: dict[int, str]
    digests: list[str]

    def summary(self) -> dict[str, object]:
        """Sizes, formats and pixel modes, counted."""
        good = [info for info in self.infos if info is not None]
        sizes = sorted({(info.width * info.height, f"{info.width}×{info.height}") for info in good})
        return {
            "files": len(self.infos),
            "unreadable": len(self.errors),
            "smallest": sizes[0][1] if sizes else "",
            "largest": sizes[-1][1] if sizes else "",
            "sizes": len(sizes),
            "formats": dict(Counter(info.format for info in good).most_common()),
            "modes": dict(Counter(info.mode for info in good).most_common()),
            "rotated by EXIF": sum(info.is_rotated for info in good),
            "animated, first frame used": sum(info.frames > 1 for info in good),
        }


def decode(path: str | Path) -> NDArray[np.uint8]:
    """Decodes an image file.

    Args:
        path: A JPEG, PNG, WebP, GIF, TIFF or BMP file.

    Returns:
        RGB, uint8 (H, W, 3), read-only: a copy that only a transform which writes in place would need costs time.

    Raises:
        ImageError: The file is missing, damaged, no image, larger than 64 megapixels, or of floating-point numbers.
    """
    return _decode(path, _read(path))[0]


def decode_reduced(path: str | Path, at_least: tuple[int, int]) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Decodes an image file that is going to be shrunk: a large JPEG at 1/2, 1/4 or 1/8 of its size.

    Its decoder then leaves out work instead of the caller throwing pixels away.

    Args:
        path: As for `decode`.
        at_least: Height and width that are enough, in pixels; the smallest scale that gives both is taken.

    Returns:
        As `decode` does; and the image's full height and width.

    Raises:
        ImageError: As for `decode`.
    """
    return _decode(path, _read(path), at_least)


def probe(path: str | Path) -> ImageInfo:
    """Reads what an image's header says.

    Raises:
        ImageError: The file is missing, no image, or larger than 64 megapixels.
    """
    return _info(path, _read(path))


def scan(paths: Sequence[str | Path], decode_pixels: bool = True, workers: int | None = None) -> Scan:
    """Looks at many image files in threads; Pillow decodes without the interpreter's lock.

    Args:
        paths: The files.
        decode_pixels: Decode everything, or read the headers only.
        workers: Number of threads; None for one per core.
    """

    def look(path: str | Path) -> tuple[ImageInfo | str, str]:
        try:
            content = _read(path)
            digest = _digest(_decode(path, content)[0]) if decode_pixels else ""
            return _info(path, content), digest
        except ImageError as error:
            return str(error), ""

    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        found = list(pool.map(look, paths))
    infos = [info if isinstance(info, ImageInfo) else None for info, _ in found]
    errors = {index: error for index, (error, _) in enumerate(found) if isinstance(error, str)}
    return Scan(infos, errors, [digest for _, digest in found])


def _digest(pixels: NDArray[np.uint8]) -> str:
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def _read(path: str | Path) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}. Restore the file or remove its row.") from error


def _open(path: str | Path, content: bytes) -> Image.Image:
    """The image with its header read and its size checked, before any memory is taken for pixels."""
    limit = f"more than {MAX_PIXELS // 10**6} megapixels. Shrink it first."
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path} has {limit}") from error
    except Exception as error:
        raise ImageError(f"{path} {_describe(content)}.") from error
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(f"{path} has {image.width} × {image.height} pixels, {limit}")
    return image


def _decode(
    path: str | Path, content: bytes, at_least: tuple[int, int] | None = None
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    image = _open(path, content)
    try:
        if image.format == "PNG":  # a PNG with a wrong checksum decodes to a wrong picture without an error
            image.verify()
            image = _open(path, content)
        full = None if at_least is None else _reduce(image, at_least)
        image.load()
        ImageOps.exif_transpose(image, in_place=True)
        pixels = _to_rgb(image)
        pixels.flags.writeable = False
        return pixels, full or (image.height, image.width)
    except (MemoryError, ImageError):
        raise
    except Exception as error:  # decoders fail in a dozen types on damaged data
        raise _damaged(path, error) from error


def _reduce(image: Image.Image, at_least: tuple[int, int]) -> tuple[int, int] | None:
    """Makes a JPEG load at a smaller scale; returns its full height and width, None for other formats."""
    if image.format not in ("JPEG", "MPO"):
        return None
    is_sideways = image.getexif().get(ORIENTATION) in SIDEWAYS
    full = image.size if is_sideways else image.size[::-1]
    image.draft(None, at_least if is_sideways else at_least[::-1])
    return full


def _describe(content: bytes) -> str:
    if not content:
        return "is empty; restore the file or remove its row"
    start = content[:64].lstrip().lower()
    for known, what in KNOWN_CONTENT.items():
        if start.startswith(known.lower()):
            return what
    if content[4:8] == b"ftyp":
        return "is HEIC, AVIF or video; convert it to JPEG"
    if content[128:132] == b"DICM":
        return "is DICOM; convert it to PNG"
    return f"is no image that can be read ({', '.join(FORMATS)}); restore the file or remove its row"


def _info(path: str | Path, content: bytes) -> ImageInfo:
    image = _open(path, content)
    width, height = image.size
    try:
        orientation = image.getexif().get(ORIENTATION, 1)  # decodes a PNG, whose EXIF may come after the pixels
        frames = getattr(image, "n_frames", 1)
    except Exception as error:
        raise _damaged(path, error) from error
    if orientation in SIDEWAYS and image.format != "TIFF":  # Pillow turns a TIFF's size by itself
        width, height = height, width
    return ImageInfo(width, height, image.mode, str(image.format), frames, orientation not in (0, 1))


def _damaged(path: str | Path, error: Exception) -> ImageError:
    return ImageError(f"{path} is damaged or cannot be used: {error}. Restore it or remove its row.")


def _to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose range nothing tells; save it as 8 or 16 bits")
    if image.mode.startswith("I"):
        deep = np.asarray(image).astype(np.int64)
        if deep.min() < 0 or deep.max() > 65535:
            raise ValueError("its pixels have more than 16 bits; save it as 8 or 16 bits")
        grey = ((deep + 128) // 257).astype(np.uint8)  # 65535 becomes 255; Pillow's own conversion would clip to white
        return np.repeat(grey[:, :, None], 3, axis=2)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))  # converting RGB to RGB would copy it
