"""Explains files that cannot be decoded: their format by content, the reason, and the fix.

Also reads chunks of PNG files, and strips broken metadata that prevents a good image from being opened.
"""

import io
import re
import struct
from collections.abc import Iterator

from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import ImageFileDirectory_v2

# Decoders are attack surface: no others are used. JPEG2000 and PPM are for satellite images and old benchmarks.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM")

# First bytes of files that are not supported images, and the fix.
KNOWN_CONTENT = {
    b"version https://git-lfs": "is a git-lfs pointer; run `git lfs pull`",
    b"<!doctype": "is a web page; download it again, signed in",
    b"<html": "is a web page; download it again, signed in",
    b"<?xml": "is XML or SVG; convert it to PNG",
    b"<svg": "is an SVG; convert it to PNG",
    b"PK\x03\x04": "is a zip archive; unpack it",
    b"\x1f\x8b": "is gzip-compressed; unpack it",
    b"7z\xbc\xaf\x27\x1c": "is a 7z archive; unpack it",
    b"Rar!": "is a RAR archive; unpack it",
    b"%PDF": "is a PDF; convert it to PNG",
    b"\x89HDF": "is an HDF5 file; convert its arrays to PNG",
    b"SIMPLE  =": "is a FITS file; convert it to PNG",
    b"8BPS": "is a Photoshop file; convert it to PNG",
    b"v/1\x01": "is OpenEXR; convert it to PNG",
    b"\xff\x0a": "is JPEG XL; convert it to PNG or JPEG",
    b"\0\0\0\x0cJXL ": "is JPEG XL; convert it to PNG or JPEG",
    b"\0\0\1\0": "is an icon; convert it to PNG",
    b"%!PS": "is PostScript, not an image; convert it to PNG",
}

PNG_START = b"\x89PNG\r\n\x1a\n"
JPEG_START, JPEG_END, ZEROS = b"\xff\xd8\xff", b"\xff\xd9", b"\0" * 16
# The chunks that determine pixels; text, colour profiles and times do not.
PNG_PIXELS = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"acTL", b"fcTL", b"fdAT"}
AVIF_EXIF = re.compile(rb"(infe.{8})Exif", re.DOTALL)  # an item entry: version, flags, id, protection, type
SAMPLE_KINDS = {1: "unsigned", 2: "signed", 3: "floating-point", 5: "complex", 6: "complex"}  # TIFF's SampleFormat


def describe_unreadable(content: bytes, error: Exception) -> str:
    """Format of an unreadable file, the reason and the fix: the end of a sentence that starts with its path.

    Args:
        content: All bytes of the file.
        error: The error from Pillow.
    """
    if not content:
        return "is empty; restore the file or remove its row"
    start = content[:64].lstrip().lower()
    for known, what in KNOWN_CONTENT.items():
        if content.startswith(known) or start.startswith(known.lower()):
            return what
    for name in FORMATS:
        if (reason := _pillow_error(name, content)) is not None:
            detail = _tiff(content) if name == "TIFF" else ""
            to = "an 8-bit PNG" + " (or .npy, for data.loading.image_rules.keep)" * (name == "TIFF")
            return f"is a {name}{detail} that Pillow cannot read ({reason}); convert it to {to} or restore it"
    if content[4:8] == b"ftyp":
        return "is HEIC or video; convert it to JPEG"
    words = f"is not a readable image ({', '.join(FORMATS)}); restore the file or remove its row"
    return words if isinstance(error, UnidentifiedImageError) else f"{words} ({error})"


def _pillow_error(name: str, content: bytes) -> str | None:
    """Why Pillow's reader of a format rejects a file that starts like that format; None if it starts differently.

    `Image.open` hides these reasons.
    """
    factory, accept = Image.OPEN[name]
    begins = accept is None or accept(content[:16])
    if begins is not True:
        return begins if isinstance(begins, str) else None
    try:
        factory(io.BytesIO(content), "")
    except Exception as error:
        return str(error) or type(error).__name__
    return "it is damaged"  # it opens; the failure came later


def _tiff(content: bytes) -> str:
    """Bands and samples of a TIFF in words, from its first directory."""
    try:
        tags = ImageFileDirectory_v2(content[:8])
        file = io.BytesIO(content)
        file.seek(tags.next)
        tags.load(file)
        bits, kinds = tags.get(258, (1,)), tags.get(339, (1,))
        bands = tags.get(277, len(bits))
        return f" of {bands} band{'s' * (bands > 1)} of {max(bits)}-bit {SAMPLE_KINDS.get(kinds[0], 'unknown')} samples"
    except Exception:  # a damaged directory
        return ""


def is_truncated_jpeg(content: bytes) -> bool:
    """Whether a JPEG ends in zeros instead of its end marker, as after an incomplete download or copy.

    Decoders read such zeros as pixels. Zeros after the end marker are padding; a file that just stops fails anyway.
    """
    if not content.endswith(ZEROS) or not content.startswith(JPEG_START):
        return False
    position = 2
    while (
        content[position : position + 1] == b"\xff" and content[position + 1 : position + 2] != b"\xda"
    ):  # to the scan
        position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return content.find(JPEG_END, position) < 0


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Names and bytes of a PNG's chunks, up to the first incomplete one."""
    start = len(PNG_START)
    while start + 12 <= len(content):
        length, name = struct.unpack_from(">I4s", content, start)
        yield name, content[start : start + 12 + length]
        start += 12 + length


def strip_metadata(content: bytes) -> bytes | None:
    """A PNG or AVIF without its metadata; None for other formats, or if there is no metadata."""
    if content[4:8] == b"ftyp":
        other = AVIF_EXIF.sub(rb"\1none", content)  # decoders skip items of unknown types
        return None if other == content else other
    if not content.startswith(PNG_START):
        return None
    pixels = PNG_START + b"".join(chunk for name, chunk in png_chunks(content) if name in PNG_PIXELS)
    return pixels if len(pixels) < len(content) else None


def png_significant_bits(content: bytes) -> int | None:
    """Significant bits of a PNG's samples (chunk sBIT); None if not given."""
    if not content.startswith(PNG_START):
        return None
    for name, chunk in png_chunks(content):
        if name == b"sBIT":
            return max(chunk[8:-4], default=None)
        if name == b"IDAT":
            return None
    return None
