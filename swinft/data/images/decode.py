"""Decodes image bytes to RGB pixels: one decoder for checks, training and prediction.

Conversions: EXIF orientation is applied, and no other tag is used. Grey, 1-bit, palette and CMYK images become RGB.
Samples of more than 8 bits are scaled to 8, and transparency is blended over white (`to_rgb`). Of an animation, the
first frame is used. Colour profiles are not applied. Floating-point samples, signed samples and integers beyond 16
bits are errors. `ImageRules` changes some of these for all steps; with `keep` no levels are lost (`deep`).
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile

from swinft.data.images.arrays import is_array, read_array, read_header
from swinft.data.images.deep import kept, scaled
from swinft.data.images.depth import Pixels
from swinft.data.images.dicom import dicom_info, dicom_pixels, is_dicom
from swinft.data.images.file_format import (
    FORMATS,
    describe_unreadable,
    is_truncated_jpeg,
    png_chunks,
    png_significant_bits,
    strip_metadata,
)
from swinft.data.images.info import ImageInfo, guarded
from swinft.data.images.matrix import is_matrix, matrix_shape, read_matrix
from swinft.data.images.rules import KEY, RULES, ImageRules
from swinft.data.images.to_rgb import Layout, layout_of, to_rgb
from swinft.data.sources.files import FILES
from swinft.data.sources.source import ImageError, Source, read_image

ORIENTATION = 0x0112  # EXIF tag
SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
# What turns pixels (H, W, 3) upright, by orientation.
TRANSPOSES: dict[int, Callable[[Pixels], Pixels]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: pixels[::-1].swapaxes(0, 1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: pixels[:, ::-1].swapaxes(0, 1),
}
MAY_HOLD_EXIF = {b"eXIf", b"tEXt", b"zTXt", b"iTXt"}  # chunks of a PNG
ARRAY = "numpy array (or one in HDF5, of another type than uint8)"
CONVERSION = 2  # raise it when the conversions above change, so that older caches are not used


@dataclass(frozen=True)
class _Opened:
    """An image whose header is read, and whose pixels are not decoded yet."""

    image: ImageFile.ImageFile
    layout: Layout
    content: bytes
    orientation: int
    frame: int = 0


def decode(path: str | Path, rules: ImageRules = RULES, source: Source = FILES) -> Pixels:
    """Decodes an image.

    Args:
        path: A JPEG, PNG, WebP, GIF, TIFF, BMP, AVIF, JPEG 2000, PPM, DICOM, .npy or parquet file, or a reference to
            one in `source`.
        rules: Which images can be used, and how.
        source: Where its bytes come from.

    Returns:
        RGB (H, W, 3), uint8 or what the rule `keep` names; read-only: only transforms that write in place would need a
        copy.

    Raises:
        ImageError: The file is missing, damaged, not an image, outside the rules, or its samples have no known white.
    """
    return _decoded(path, read_image(path, source), None, rules)[0]


def decode_reduced(
    path: str | Path, at_least: tuple[int, int], rules: ImageRules = RULES, source: Source = FILES
) -> tuple[Pixels, tuple[int, int]]:
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
    content = read_image(path, source)
    if is_dicom(path, content):
        return dicom_info(path, content, rules)
    if is_array(content) or is_matrix(content):
        return _array_info(path, content, rules)
    return _info(path, _open(path, content, rules), rules)


def load(
    path: str | Path, content: bytes, at_least: tuple[int, int] | None, rules: ImageRules = RULES, frame: int = 0
) -> tuple[Pixels, tuple[int, int], ImageInfo]:
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
) -> tuple[Pixels, ImageInfo]:
    if is_dicom(path, content):
        return dicom_pixels(path, content, rules, frame)
    if is_array(content) or is_matrix(content):
        return _array(path, content, rules)
    opened = _verified(path, _open(path, content, rules, frame), rules)
    info = _info(path, opened, rules)
    return guarded(path, lambda: _pixels(path, opened, info, at_least, rules))


def _open(path: str | Path, content: bytes, rules: ImageRules, frame: int = 0) -> _Opened:
    """Reads the header and checks the size, before memory is allocated for pixels."""
    if is_truncated_jpeg(content):
        raise ImageError(f"{path} is a JPEG whose end is nothing but zeros. Restore it or remove its row.")
    try:
        image = Image.open(io.BytesIO(content), formats=FORMATS)
        if frame:
            image.seek(frame)
    except Image.DecompressionBombError as error:
        raise ImageError(f"{path} has {rules.area_limit}") from error
    except Exception as error:
        if (
            pixels_alone := strip_metadata(content)
        ) is not None:  # text or a colour profile may be what is wrong with it
            return _open(path, pixels_alone, rules, frame)
        raise ImageError(f"{path} {describe_unreadable(content, error)}.") from error
    rules.check_size(path, image.width, image.height)
    for name, kind in {"window": "DICOM", "columns": "parquet"}.items():
        if getattr(rules, name) is not None and image.format != "PPM":  # a PPM is a part, by the rule already
            raise ImageError(f"{path} is a {image.format}, and {KEY}.{name} is for {kind} files: remove it.")
    if rules.animated == "error" and getattr(image, "n_frames", 1) > 1:
        raise ImageError(
            f"{path} has more than one frame. Save one, or set data.loading.image_rules.animated to first."
        )
    layout = guarded(path, lambda: layout_of(image))  # before EXIF, which may load the pixels
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
        guarded(path, Image.open(io.BytesIO(content)).verify)
    return opened if content is opened.content else _open(path, content, rules, opened.frame)


def _pixels(
    path: str | Path, opened: _Opened, info: ImageInfo, at_least: tuple[int, int] | None, rules: ImageRules
) -> tuple[Pixels, ImageInfo]:
    """RGB of an opened image, (H, W, 3), possibly reduced; and its completed information."""
    image, orientation = opened.image, opened.orientation
    if at_least is not None and image.format in ("JPEG", "MPO"):
        is_sideways = rules.apply_exif and orientation in SIDEWAYS
        image.draft(None, at_least if is_sideways else at_least[::-1])
    image.load()
    significant = png_significant_bits(opened.content) if opened.layout.bits > 8 else None
    pixels: Pixels
    if rules.keep:
        pixels, found = kept(image, opened.layout, rules, significant, lambda: _reopened(path, opened, rules))
    else:
        pixels, found = to_rgb(
            image,
            opened.layout,
            rules.bits,
            rules.transparency,
            rules.background,
            significant,
            lambda: _reopened(path, opened, rules),
        )
    if image.format == "TIFF":  # Pillow always applies the orientation of a TIFF
        orientation = 1 if rules.apply_exif else {6: 8, 8: 6}.get(orientation, orientation)
    elif not rules.apply_exif:
        orientation = 1
    if orientation in TRANSPOSES:
        pixels = np.ascontiguousarray(TRANSPOSES[orientation](pixels))
    pixels.flags.writeable = False
    return pixels, replace(info, bits=found.bits, used_bits=found.used_bits, altered=found.altered)


def _reopened(path: str | Path, opened: _Opened, rules: ImageRules) -> ImageFile.ImageFile:
    """The image as it was before its pixels were loaded."""
    return _open(path, opened.content, rules, opened.frame).image


def _array(path: str | Path, content: bytes, rules: ImageRules) -> tuple[Pixels, ImageInfo]:
    """Pixels and information of an array; those of a part have been scaled before."""
    info = _array_info(path, content, rules)
    if is_matrix(content):
        samples, altered = guarded(path, lambda: read_matrix(content, rules)), None
    else:
        samples, altered = guarded(path, lambda: read_array(content))
    if altered is not None:
        return samples, replace(info, altered=altered)
    pixels, found = guarded(path, lambda: scaled(samples, rules, info.bits))
    pixels.flags.writeable = False
    return pixels, replace(info, bits=found.bits, used_bits=found.used_bits, altered=found.altered)


def _array_info(path: str | Path, content: bytes, rules: ImageRules) -> ImageInfo:
    if rules.keep is None:
        raise ImageError(
            f"{path} is a {'parquet file' if is_matrix(content) else ARRAY}, which is read where "
            f"data.loading.image_rules.keep is uint16 or float32: set it, or convert the array to PNG."
        )
    if is_matrix(content):
        height, width = guarded(path, lambda: matrix_shape(content, rules))
        rules.check_size(path, width, height)
        return ImageInfo(width, height, "float", "PARQUET", 1, False, 32)
    height, width, dtype = guarded(path, lambda: read_header(content))
    rules.check_size(path, width, height)
    return ImageInfo(width, height, str(dtype), "NPY", 1, False, 8 * dtype.itemsize - (dtype.kind == "i"))


def _info(path: str | Path, opened: _Opened, rules: ImageRules) -> ImageInfo:
    image = opened.image
    width, height = image.size
    is_sideways = opened.orientation in SIDEWAYS
    # Pillow reports a TIFF's size after its orientation is applied.
    if is_sideways and rules.apply_exif == (image.format != "TIFF"):
        width, height = height, width
    frames = guarded(path, lambda: getattr(image, "n_frames", 1))
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
