"""Decodes image bytes to RGB pixels: one decoder for checks, training and prediction.

Conversions: EXIF orientation is applied, and no other tag is used. Grey, 1-bit, palette and CMYK images become RGB.
Samples of more than 8 bits are scaled to 8, and transparency is blended over white (`to_rgb`). Of an animation, the
first frame is used. Colour profiles are not applied. Floating-point samples, signed samples and integers beyond 16
bits are errors. `ImageRules` changes some of these for all steps.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from swinft.data.images.file_format import (
    FORMATS,
    describe_unreadable,
    is_truncated_jpeg,
    png_chunks,
    png_significant_bits,
    strip_metadata,
)
from swinft.data.images.to_rgb import MAX_BITS, Layout, Transparency, layout_of, to_rgb
from swinft.data.sources.files import FILES
from swinft.data.sources.source import ImageError, Source, read_image
from swinft.errors import InputError
from swinft.ranges import COUNT

MAX_MEGAPIXELS = 89  # above it, Pillow warns of a decompression bomb
ORIENTATION = 0x0112  # EXIF tag
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
TRANSPOSES = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
MAY_HOLD_EXIF = {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}  # chunks of a PNG
CONVERSION = 2  # raise it when the conversions above change, so that older caches are not used


@dataclass(frozen=True)
class ImageRules:
    """Which images can be used, and how the unusual ones are converted.

    Args:
        max_megapixels: Largest area, at most 89; 64 megapixels are 192 MB in every loader process.
        min_side: Shortest side in pixels; placeholders of one pixel stand for images that are not there.
        max_aspect: Longest side over shortest.
        apply_exif: Rotate and flip images by their EXIF orientation; false if boxes or labels ignore it.
        bits: Number of bits that the samples use: 2^bits − 1 becomes white; 12 for 12 bits in 16-bit files. `auto` uses
            the file's metadata, else all bits of its samples. Samples with fewer bits are not affected.
        transparency: `blend` blends transparent pixels with the background; `ignore` drops the alpha channel, for
            example where a fourth band is near infrared.
        background: RGB in 0–255 behind transparent pixels.
        animated: Use the `first` frame of an animation or a stack of pages, or report an `error`.

    Raises:
        InputError: A value is outside its range.
    """

    max_megapixels: float = 64.0
    min_side: int = 4
    max_aspect: float = 100.0
    apply_exif: bool = True
    bits: int | Literal["auto"] = "auto"
    transparency: Transparency = "blend"
    background: tuple[int, int, int] = (255, 255, 255)
    animated: Literal["first", "error"] = "first"

    def __post_init__(self) -> None:
        allowed = {
            f"max_megapixels is {self.max_megapixels}; it must be above 0 and at most {MAX_MEGAPIXELS}": (
                0 < self.max_megapixels <= MAX_MEGAPIXELS
            ),
            f"min_side is {self.min_side}; it must be at least 1": self.min_side >= 1,
            f"max_aspect is {self.max_aspect}; it must be a finite number from 1": self.max_aspect in COUNT,
            f"background is {list(self.background)}; it must be three whole numbers in 0–255": (
                len(self.background) == 3 and all(0 <= value <= 255 for value in self.background)
            ),
            f"bits is {self.bits!r}; it must be auto or a whole number in 1–{MAX_BITS}": (
                self.bits == "auto" or (isinstance(self.bits, int) and 1 <= self.bits <= MAX_BITS)
            ),
            f"transparency is {self.transparency!r}; it must be blend or ignore": (
                self.transparency in get_args(Transparency)
            ),
            f"background is {list(self.background)}, which does nothing as transparency is ignore; remove it": (
                self.transparency == "blend" or tuple(self.background) == (255, 255, 255)
            ),
            f"animated is {self.animated!r}; it must be first or error": self.animated in ("first", "error"),
        }
        wrong = [f"data.loading.image_rules.{text}." for text, is_right in allowed.items() if not is_right]
        if wrong:
            raise InputError("\n  ".join(["the image rules are wrong:", *wrong]))


RULES = ImageRules()
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
        faded: Fraction of pixels that are not fully opaque, in 0–1; 0 if they were not decoded.
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
    faded: float = 0.0


@dataclass(frozen=True)
class _Opened:
    """An image whose header is read, and whose pixels are not decoded yet."""

    image: ImageFile.ImageFile
    layout: Layout
    content: bytes
    orientation: int
    frame: int = 0


def decode(path: str | Path, rules: ImageRules = RULES, source: Source = FILES) -> NDArray[np.uint8]:
    """Decodes an image.

    Args:
        path: A JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF, JPEG 2000 or PPM file, or a reference to one in `source`.
        rules: Which images can be used, and how.
        source: Where its bytes come from.

    Returns:
        RGB, uint8 (H, W, 3), read-only: only transforms that write in place would need a copy.

    Raises:
        ImageError: The file is missing, damaged, not an image, outside the rules, or its samples have no known white.
    """
    return _decoded(path, read_image(path, source), None, rules)[0]


def decode_reduced(
    path: str | Path, at_least: tuple[int, int], rules: ImageRules = RULES, source: Source = FILES
) -> tuple[NDArray[np.uint8], tuple[int, int]]:
    """Decodes an image that will be shrunk: a large JPEG at 1/2, 1/4 or 1/8 of its size, which is faster.

    Args:
        path: As for `decode`.
        at_least: Minimum height and width in pixels; the smallest sufficient scale is used.
        rules: As for `decode`.
        source: As for `decode`.

    Returns:
        As `decode`; and the image's full height and width.

    Raises:
        ImageError: As for `decode`.
    """
    pixels, info = _decoded(path, read_image(path, source), at_least, rules)
    return pixels, (info.height, info.width)


def probe(path: str | Path, rules: ImageRules = RULES, source: Source = FILES) -> ImageInfo:
    """Reads an image's header.

    Raises:
        ImageError: The file is missing, not an image, or outside the rules.
    """
    return _info(path, _open(path, read_image(path, source), rules), rules)


def load(
    path: str | Path, content: bytes, at_least: tuple[int, int] | None, rules: ImageRules = RULES, frame: int = 0
) -> tuple[NDArray[np.uint8], tuple[int, int], ImageInfo]:
    """Decodes the bytes from `read_image`: `decode_reduced` and `probe` in one.

    Args:
        path: Named in errors.
        content: All bytes of the file.
        at_least: As for `decode_reduced`; None for full size.
        rules: As for `decode`.
        frame: Which one of a stack.

    Returns:
        As `decode_reduced`; and the image's information.

    Raises:
        ImageError: As for `decode`.
    """
    pixels, info = _decoded(path, content, at_least, rules, frame)
    return pixels, (info.height, info.width), info


def _decoded(
    path: str | Path, content: bytes, at_least: tuple[int, int] | None, rules: ImageRules, frame: int = 0
) -> tuple[NDArray[np.uint8], ImageInfo]:
    opened = _verified(path, _open(path, content, rules, frame), rules)
    info = _info(path, opened, rules)
    return _guarded(path, lambda: _pixels(path, opened, info, at_least, rules))


def _guarded(path: str | Path, work: Callable[[], Result]) -> Result:
    """Runs a decoder; on damaged data, decoders raise many types of errors."""
    try:
        return work()
    except (MemoryError, ImageError):
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ImageError(f"{path} is damaged or cannot be used: {reason}. Restore it or remove its row.") from error


def _open(path: str | Path, content: bytes, rules: ImageRules, frame: int = 0) -> _Opened:
    """Reads the header and checks the size, before memory is allocated for pixels."""
    limit = (
        f"more than {rules.max_megapixels:g} megapixels. Shrink it, or raise data.loading.image_rules.max_megapixels."
    )
    if is_truncated_jpeg(content):
        raise ImageError(f"{path} is a JPEG whose end is nothing but zeros. Restore it or remove its row.")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if frame:
            image.seek(frame)
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path} has {limit}") from error
    except Exception as error:
        if (
            pixels_alone := strip_metadata(content)
        ) is not None:  # text or a colour profile may be what is wrong with it
            return _open(path, pixels_alone, rules, frame)
        raise ImageError(f"{path} {describe_unreadable(content, error)}.") from error
    size = f"{path} has {image.width} × {image.height} pixels"
    short, long = sorted(image.size)
    if short * long > rules.max_megapixels * 1e6:
        raise ImageError(f"{size}, {limit}")
    if short < rules.min_side:
        raise ImageError(f"{size}: a side is shorter than data.loading.image_rules.min_side, {rules.min_side}.")
    if long > rules.max_aspect * short:
        raise ImageError(
            f"{size}: longer than data.loading.image_rules.max_aspect, {rules.max_aspect:g}, times its width."
        )
    if rules.animated == "error" and getattr(image, "n_frames", 1) > 1:
        raise ImageError(
            f"{path} has more than one frame. Save one, or set data.loading.image_rules.animated to first."
        )
    layout = _guarded(path, lambda: layout_of(image))  # before EXIF, which may load the pixels
    return _Opened(image, layout, content, _orientation(image, content), frame)


def _orientation(image: ImageFile.ImageFile, content: bytes) -> int:
    """EXIF orientation, 1–8; 1 if EXIF is broken, which affects no pixel."""
    if image.format == "PNG" and not any(name in MAY_HOLD_EXIF for name, _ in png_chunks(content)):
        return 1  # Pillow would decode the pixels to search after them
    try:
        found = image.getexif().get(ORIENTATION, 1)
        return next((number for number in TRANSPOSES if found == number), 1)
    except MemoryError:
        raise
    except Exception:
        return 1


def _verified(path: str | Path, opened: _Opened, rules: ImageRules) -> _Opened:
    """Checks the checksums of a PNG, which decoding ignores."""
    if opened.image.format != "PNG":
        return opened
    content = opened.content
    try:
        # Without this, a PNG with a wrong checksum decodes to a wrong image without an error.
        Image.open(io.BytesIO(content)).verify()
    except Exception:
        content = strip_metadata(content) or content  # wrong checksums of metadata do not matter
        _guarded(path, Image.open(io.BytesIO(content)).verify)
    return opened if content is opened.content else _open(path, content, rules, opened.frame)


def _pixels(
    path: str | Path, opened: _Opened, info: ImageInfo, at_least: tuple[int, int] | None, rules: ImageRules
) -> tuple[NDArray[np.uint8], ImageInfo]:
    """RGB of an opened image, uint8 (H, W, 3), possibly reduced; and its completed information."""
    image, orientation = opened.image, opened.orientation
    if at_least is not None and image.format in ("JPEG", "MPO"):
        is_sideways = rules.apply_exif and orientation in SIDEWAYS
        image.draft(None, at_least if is_sideways else at_least[::-1])
    image.load()
    pixels, found = to_rgb(
        image,
        opened.layout,
        rules.bits,
        rules.transparency,
        rules.background,
        png_significant_bits(opened.content) if opened.layout.bits > 8 else None,
        lambda: _open(path, opened.content, rules, opened.frame).image,
    )
    if image.format == "TIFF":  # Pillow always applies the orientation of a TIFF
        orientation = 1 if rules.apply_exif else {6: 8, 8: 6}.get(orientation, orientation)
    elif not rules.apply_exif:
        orientation = 1
    if orientation in TRANSPOSES:
        pixels = np.asarray(Image.fromarray(pixels).transpose(TRANSPOSES[orientation]))
    pixels.flags.writeable = False
    return pixels, replace(info, bits=found.bits, used_bits=found.used_bits, faded=found.faded)


def _info(path: str | Path, opened: _Opened, rules: ImageRules) -> ImageInfo:
    image = opened.image
    width, height = image.size
    is_sideways = opened.orientation in SIDEWAYS
    # Pillow reports a TIFF's size after its orientation is applied.
    if is_sideways and rules.apply_exif == (image.format != "TIFF"):
        width, height = height, width
    frames = _guarded(path, lambda: getattr(image, "n_frames", 1))
    return ImageInfo(
        width,
        height,
        image.mode,
        str(image.format),
        frames,
        opened.orientation != 1,
        opened.layout.bits,
        opened.layout.dropped_bands,
    )
