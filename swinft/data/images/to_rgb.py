"""Converts an opened image to 8-bit RGB, by the file's metadata and the image rules.

- Bit depth: a TIFF's BitsPerSample and SampleFormat, a PNG's depth and sBIT, else all bits of a sample. The rule `bits`
  overrides it if fewer bits are used. The value 2^bits − 1 becomes 255.
- Transparency: only a band that the file declares as alpha; a TIFF's fourth band without ExtraSamples is ignored.
  Transparent pixels are blended with a background, or (`ignore`) keep their stored colour.
- Signed and floating-point samples have no defined white: they are errors, unless `deep` scales them.

`SampleStats` records the used bits and the transparency, for notes.
"""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

Transparency = Literal["blend", "ignore"]
Opener = Callable[[], ImageFile.ImageFile]

MAX_BITS = 16
BITS, PHOTOMETRIC, BANDS, PLANAR, EXTRA, FORMAT = 258, 262, 277, 284, 338, 339  # TIFF tags
WHITE_IS_ZERO, SEPARATE_PLANES, SIGNED = 0, 2, 2
IS_ALPHA = {1, 2, 999}  # values of TIFF's ExtraSamples; CorelDRAW writes the last one
# Pillow returns the upper byte of 16-bit colour. Read in the other byte order, it returns the lower byte.
OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
DEEP_COLOUR = re.compile(r"^(RGB|RGBX|RGBA);16([BLN])$")
IN_PLANES = "its 16-bit samples lie in separate planes; save it as PNG"
KEEP = "save it as unsigned 8 or 16 bits, or set data.loading.image_rules.keep and range"
STRETCHED_FORMATS = ("PPM", "JPEG2000")  # Pillow has scaled their samples to the full range
UNSCALED_MODES = {"L", "LA", "RGB", "RGBA"}  # samples are unchanged from the file, unlike palette and CMYK


@dataclass(frozen=True)
class Layout:
    """Sample layout from an image's header.

    Args:
        bits: Bits of the largest possible sample.
        is_signed: Samples may be negative.
        is_inverted: 0 is white, and Pillow does not invert it.
        has_alpha: The file declares transparency.
        dropped_bands: Bands that the file declares neither colour nor transparency.
        raw: Pillow's raw mode, the layout of samples in the file.
        planar_problem: 16-bit samples in separate planes, which Pillow reads wrongly.
        is_stretched: Pillow scales samples to the full range while it reads them.
    """

    bits: int
    is_signed: bool = False
    is_inverted: bool = False
    has_alpha: bool = False
    dropped_bands: int = 0
    raw: str = ""
    planar_problem: bool = False
    is_stretched: bool = False


@dataclass(frozen=True)
class SampleStats:
    """Statistics of an image's samples.

    Args:
        bits: 2^bits − 1 was used as white.
        used_bits: Bits of the largest sample; 0 if not counted.
        altered: As in `ImageInfo`.
    """

    bits: int
    used_bits: int = 0
    altered: float = 0.0


def layout_of(image: ImageFile.ImageFile) -> Layout:
    """The layout of an image that is opened and not loaded yet."""
    args = image.tile[0].args if image.tile else ""
    raw = str(args[0] if isinstance(args, tuple) and args else args or "")
    if image.format == "TIFF":
        return _tiff_layout(image, raw)
    bits = MAX_BITS if image.mode.startswith("I") or ";16" in raw else 8
    is_ppm_stretched = image.format == "PPM" and any(tile.codec_name != "raw" for tile in image.tile)
    is_stretched = is_ppm_stretched or (image.format == "JPEG2000" and bits > 8)
    return Layout(bits, has_alpha=image.has_transparency_data, raw=raw, is_stretched=is_stretched)


def _tiff_layout(image: Any, raw: str) -> Layout:
    tags = image.tag_v2
    bits, bands, is_signed = max(8, *tags.get(BITS, (1,))), tags.get(BANDS, 1), SIGNED in tags.get(FORMAT, ())
    is_rgba = image.mode in ("RGBA", "LA", "PA")
    has_alpha = is_rgba and not IS_ALPHA.isdisjoint(tags.get(EXTRA, ()))
    return Layout(
        bits=bits - is_signed,
        is_signed=is_signed,
        is_inverted=image.mode.startswith("I") and tags.get(PHOTOMETRIC) == WHITE_IS_ZERO,
        has_alpha=has_alpha or "transparency" in image.info,
        dropped_bands=max(0, bands - len(image.getbands()) + (is_rgba and not has_alpha)),
        raw=raw,
        planar_problem=bits > 8 and bands > 1 and tags.get(PLANAR) == SEPARATE_PLANES,
    )


def to_rgb(
    image: Image.Image,
    layout: Layout,
    bits: int | Literal["auto"],
    transparency: Transparency,
    background: tuple[int, int, int],
    significant: int | None,
    reopen: Opener,
) -> tuple[NDArray[np.uint8], SampleStats]:
    """Converts a loaded image to RGB.

    Args:
        image: The loaded image.
        layout: Its layout, read before loading.
        bits: Overrides the file's bit depth, in 1–16.
        transparency: Blend it with `background`, or ignore it.
        background: RGB in 0–255.
        significant: Significant bits declared by the file, or None.
        reopen: Opens the image again, to decode it a second time.

    Returns:
        uint8 (H, W, 3), and its statistics.

    Raises:
        ValueError: The samples have no defined white, or exceed `bits`.
    """
    if image.format in STRETCHED_FORMATS:
        bits = "auto"
    if layout.planar_problem:
        raise ValueError(IN_PLANES)
    if image.mode == "F":
        raise ValueError(f"its samples are floating-point numbers of unknown range; {KEEP}")
    if image.mode.startswith("I"):
        return _deep_grey(image, layout, bits, transparency, background, significant)
    rgb, alpha = eight_bits(image, layout)
    found = SampleStats(layout.bits, _used_bits(image, layout, rgb))
    is_deep = layout.bits > 8 and (bits != "auto" or (significant or MAX_BITS) < layout.bits)
    if is_deep or (bits != "auto" and bits < 8 and image.mode in UNSCALED_MODES):
        samples = both_bytes(rgb, layout, reopen) if is_deep else rgb
        rgb, found = scaled_to_bytes(samples, layout.bits, bits, significant)
    if alpha is None:
        return rgb, found
    faded = float((alpha < 255).mean())
    rgb = rgb if transparency == "ignore" else _blend(rgb, alpha, background)
    return rgb, SampleStats(found.bits, found.used_bits, faded)


def eight_bits(image: Image.Image, layout: Layout) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """RGB and alpha with 8 bits each; of deeper samples, the upper byte.

    Raises:
        ValueError: A sample is below 0.
    """
    if layout.is_signed and np.asarray(image).max() > 127:
        raise ValueError("its samples are signed 8-bit integers, some of them negative; save them as unsigned ones")
    if layout.has_alpha:
        both = np.asarray(image.convert("RGBA"))
        return np.ascontiguousarray(both[:, :, :3]), both[:, :, 3]
    if image.mode == "RGBA":  # the fourth band is not alpha; the conversion drops it
        return np.asarray(image.convert("RGB")), None
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB")), None  # avoids a copy


def _used_bits(image: Image.Image, layout: Layout, rgb: NDArray[np.uint8]) -> int:
    """Bits of the largest sample; 0 if compression or a palette make it meaningless."""
    if image.mode not in UNSCALED_MODES or image.format in ("JPEG", "MPO", "WEBP", "AVIF", "GIF", "JPEG2000"):
        return 0
    largest = int(rgb.max())
    return largest.bit_length() + (8 if layout.bits > 8 and largest else 0)


def _deep_grey(
    image: Image.Image,
    layout: Layout,
    bits: int | Literal["auto"],
    transparency: Transparency,
    background: tuple[int, int, int],
    significant: int | None,
) -> tuple[NDArray[np.uint8], SampleStats]:
    deep = np.asarray(image)
    low, high = int(deep.min()), int(deep.max())
    if low < 0 and layout.is_signed:
        raise ValueError(f"its samples are signed, from {low} to {high}; {KEEP}")
    if low < 0 or high >= 2**MAX_BITS:
        raise ValueError(f"its samples have more than 16 bits (up to {high}); {KEEP}")
    grey, found = scaled_to_bytes(deep, min(layout.bits, MAX_BITS), bits, significant)
    rgb = np.repeat((255 - grey if layout.is_inverted else grey)[:, :, None], 3, axis=2)
    key = image.info.get("transparency")
    if not isinstance(key, int):
        return rgb, found
    alpha = np.where(deep == key, 0, 255).astype(np.uint8)
    rgb = rgb if transparency == "ignore" else _blend(rgb, alpha, background)
    return rgb, SampleStats(found.bits, found.used_bits, float((alpha < 255).mean()))


def scaled_to_bytes(
    samples: NDArray[Any], max_bits: int, bits: int | Literal["auto"], significant: int | None
) -> tuple[NDArray[np.uint8], SampleStats]:
    """Scales samples from 0 to 8 bits, as `bits` of `to_rgb` says.

    Files that declare fewer significant bits may have scaled them to the full range.
    """
    white, largest = white_bits(samples, max_bits, bits, significant)
    scaled: NDArray[np.uint8] = _table(white)[samples]
    return scaled, SampleStats(white, largest.bit_length())


def white_bits(
    samples: NDArray[Any], max_bits: int, bits: int | Literal["auto"], significant: int | None
) -> tuple[int, int]:
    """Bits of white in samples from 0, and the largest sample; arguments as of `to_rgb`.

    Raises:
        ValueError: A sample is larger than white.
    """
    largest = int(samples.max())
    white = max_bits if bits == "auto" else min(bits, max_bits)
    if bits == "auto" and significant and significant < max_bits and largest < 2**significant:
        is_full_range = not (samples & (2 ** (max_bits - significant) - 1)).any()
        white = max_bits if is_full_range else significant
    if largest >= 2**white:
        raise ValueError(
            f"its largest sample is {largest}, and data.loading.image_rules.bits is {bits}, which ends at "
            f"{2**white - 1}; raise it, or set it to auto"
        )
    return white, largest


@lru_cache(maxsize=4)
def _table(bits: int) -> NDArray[np.uint8]:
    """Lookup table from samples of so many bits to 8 bits."""
    white = 2**bits - 1
    table: NDArray[np.uint8] = ((np.arange(2**bits, dtype=np.int64) * 255 + white // 2) // white).astype(np.uint8)
    return table


def both_bytes(upper: NDArray[np.uint8], layout: Layout, reopen: Opener) -> NDArray[np.uint16]:
    """16-bit colour (H, W, 3), from two decodes: Pillow returns one byte of each sample at a time.

    Raises:
        ValueError: 16-bit samples of this layout are not supported.
    """
    found = DEEP_COLOUR.match(layout.raw)
    if found is None:
        raise ValueError(
            f"data.loading.image_rules.bits and keep do not support 16-bit samples in the layout {layout.raw}; save it "
            f"as RGB"
        )
    image = reopen()
    other = f"{found[1]};16{OTHER_BYTE[found[2]]}"
    image.tile = [
        tile._replace(args=(other, *tile.args[1:]) if isinstance(tile.args, tuple) else other) for tile in image.tile
    ]
    lower = np.asarray(image)[:, :, :3]
    both: NDArray[np.uint16] = (upper.astype(np.uint16) << 8) | lower
    return both


def _blend(rgb: NDArray[np.uint8], alpha: NDArray[np.uint8], background: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Blends an image with a background colour."""
    image = Image.fromarray(np.dstack([rgb, alpha]))
    under = Image.new("RGBA", image.size, (*background, 255))
    return np.asarray(Image.alpha_composite(under, image).convert("RGB"))
