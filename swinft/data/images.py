"""The one way an image file becomes pixels: checks, training and prediction all see the same picture.

What is converted, and how: EXIF orientation is applied; 16-bit grey is divided by 257; grey, 1-bit, palette and CMYK
become RGB; transparency is laid over white; of an animation the first frame is taken; of 16-bit colour Pillow keeps the
upper byte; colour profiles are not applied. Floating-point pixels and integers beyond 16 bits are errors. `ImageRules`
changes some of it, for all of them alike.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps

from swinft.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF")  # decoders are attack surface: no others are started
MOST_MEGAPIXELS = 89  # from here on Pillow's own guard against bombs speaks up
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
class ImageRules:
    """Which images can be used, and how the unusual ones are converted.

    Args:
        max_megapixels: Largest area, at most 89; 64 megapixels are 192 MB in every loader process.
        min_side: Shortest side in pixels; placeholders of one pixel stand for pictures that are not there.
        max_aspect: Longest side over shortest.
        apply_exif: Turn pictures as their EXIF orientation says; false where boxes or labels ignore it.
        background: RGB in 0–255 that transparency is laid over.
        animated: Take the `first` frame of an animation or a stack of pages, or call it an `error`.

    Raises:
        InputError: A value is outside its range.
    """

    max_megapixels: float = 64.0
    min_side: int = 4
    max_aspect: float = 100.0
    apply_exif: bool = True
    background: tuple[int, int, int] = (255, 255, 255)
    animated: Literal["first", "error"] = "first"

    def __post_init__(self) -> None:
        allowed = {
            f"max_megapixels is {self.max_megapixels}; it must be above 0 and at most {MOST_MEGAPIXELS}": (
                0 < self.max_megapixels <= MOST_MEGAPIXELS
            ),
            f"min_side is {self.min_side}; it must be at least 1": self.min_side >= 1,
            f"max_aspect is {self.max_aspect}; it must be at least 1": self.max_aspect >= 1,
            f"background is {list(self.background)}; it must be three whole numbers in 0–255": (
                len(self.background) == 3 and all(0 <= value <= 255 for value in self.background)
            ),
        }
        wrong = [f"data.image_rules.{text}." for text, is_right in allowed.items() if not is_right]
        if wrong:
            raise InputError("\n  ".join(["the image rules are wrong:", *wrong]))


RULES = ImageRules()


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


def decode(path: str | Path, rules: ImageRules = RULES) -> NDArray[np.uint8]:
    """Decodes an image file.

    Args:
        path: A JPEG, PNG, WebP, GIF, TIFF, BMP or AVIF file.
        rules: Which images can be used, and how.

    Returns:
        RGB, uint8 (H, W, 3), read-only: a copy that only a transform which writes in place would need costs time.

    Raises:
        ImageError: The file is missing, damaged, no image, outside the rules, or of floating-point numbers.
    """
    return _pixels(path, _verified(path, read(path), rules), rules)[0]


def decode_reduced(
    path: str | Path, at_least: tuple[int, int], rules: ImageRules = RULES
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Decodes an image file that is going to be shrunk: a large JPEG at 1/2, 1/4 or 1/8 of its size.

    Its decoder then leaves out work instead of the caller throwing pixels away.

    Args:
        path: As for `decode`.
        at_least: Height and width that are enough, in pixels; the smallest scale that gives both is taken.
        rules: As for `decode`.

    Returns:
        As `decode` does; and the image's full height and width.

    Raises:
        ImageError: As for `decode`.
    """
    return _pixels(path, _verified(path, read(path), rules), rules, at_least)


def probe(path: str | Path, rules: ImageRules = RULES) -> ImageInfo:
    """Reads what an image's header says.

    Raises:
        ImageError: The file is missing, no image, or outside the rules.
    """
    return _info(path, _open(path, read(path), rules), rules)


def load(
    path: str | Path, content: bytes, at_least: tuple[int, int] | None, rules: ImageRules = RULES
) -> tuple[NDArray[np.uint8], ImageInfo]:
    """Decodes what `read` has read of a file, and says what its header says: `decode_reduced` and `probe` in one.

    Args:
        path: Named in errors.
        content: All bytes of the file.
        at_least: As for `decode_reduced`; None for every pixel.
        rules: As for `decode`.

    Raises:
        ImageError: As for `decode`.
    """
    image = _verified(path, content, rules)
    info = _info(path, image, rules)
    return _pixels(path, image, rules, at_least)[0], info


def read(path: str | Path) -> bytes:
    """All bytes of an image file: the one place that opens any.

    Raises:
        ImageError: It is missing or cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(f"{path} cannot be read: {error.strerror}. Restore the file or remove its row.") from error


def _open(path: str | Path, content: bytes, rules: ImageRules) -> Image.Image:
    """The image with its header read and its size checked, before any memory is taken for pixels."""
    limit = f"more than {rules.max_megapixels:g} megapixels. Shrink it, or raise data.image_rules.max_megapixels."
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path} has {limit}") from error
    except Exception as error:
        raise ImageError(f"{path} {_describe(content)}.") from error
    size = f"{path} has {image.width} × {image.height} pixels"
    short, long = sorted(image.size)
    if short * long > rules.max_megapixels * 1e6:
        raise ImageError(f"{size}, {limit}")
    if short < rules.min_side:
        raise ImageError(f"{size}: a side is shorter than data.image_rules.min_side, {rules.min_side}.")
    if long > rules.max_aspect * short:
        raise ImageError(f"{size}: longer than data.image_rules.max_aspect, {rules.max_aspect:g}, times its width.")
    if rules.animated == "error" and getattr(image, "n_frames", 1) > 1:
        raise ImageError(f"{path} has more than one frame. Save one, or set data.image_rules.animated to first.")
    return image


def _verified(path: str | Path, content: bytes, rules: ImageRules) -> Image.Image:
    """The image as from `_open`, its checksums compared where the format has some that decoding ignores."""
    image = _open(path, content, rules)
    if image.format != "PNG":
        return image
    try:
        image.verify()  # a PNG with a wrong checksum decodes to a wrong picture without an error
    except MemoryError:
        raise
    except Exception as error:
        raise _damaged(path, error) from error
    return _open(path, content, rules)  # one that was verified cannot be loaded


def _pixels(
    path: str | Path, image: Image.Image, rules: ImageRules, at_least: tuple[int, int] | None = None
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """RGB of an opened image, uint8 (H, W, 3), perhaps reduced; and its full height and width."""
    try:
        full = None if at_least is None else _reduce(image, at_least, rules)
        image.load()
        if rules.apply_exif:
            ImageOps.exif_transpose(image, in_place=True)
        pixels = _to_rgb(image, rules.background)
        pixels.flags.writeable = False
        return pixels, full or (image.height, image.width)
    except (MemoryError, ImageError):
        raise
    except Exception as error:  # decoders fail in a dozen types on damaged data
        raise _damaged(path, error) from error


def _reduce(image: Image.Image, at_least: tuple[int, int], rules: ImageRules) -> tuple[int, int] | None:
    """Makes a JPEG load at a smaller scale; returns its full height and width, None for other formats."""
    if image.format not in ("JPEG", "MPO"):
        return None
    is_sideways = rules.apply_exif and image.getexif().get(ORIENTATION) in SIDEWAYS
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
        return "is HEIC or video; convert it to JPEG"
    if content[128:132] == b"DICM":
        return "is DICOM; convert it to PNG"
    return f"is no image that can be read ({', '.join(FORMATS)}); restore the file or remove its row"


def _info(path: str | Path, image: Image.Image, rules: ImageRules) -> ImageInfo:
    width, height = image.size
    try:
        orientation = image.getexif().get(ORIENTATION, 1)  # decodes a PNG, whose EXIF may come after the pixels
        frames = getattr(image, "n_frames", 1)
    except Exception as error:
        raise _damaged(path, error) from error
    # Pillow turns a TIFF's size by itself.
    if rules.apply_exif and orientation in SIDEWAYS and image.format != "TIFF":
        width, height = height, width
    return ImageInfo(width, height, image.mode, str(image.format), frames, orientation not in (0, 1))


def _damaged(path: str | Path, error: Exception) -> ImageError:
    return ImageError(f"{path} is damaged or cannot be used: {error}. Restore it or remove its row.")


def _to_rgb(image: Image.Image, background: tuple[int, int, int]) -> NDArray[np.uint8]:
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
        image = Image.alpha_composite(Image.new("RGBA", image.size, (*background, 255)), image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))  # converting RGB to RGB would copy it
