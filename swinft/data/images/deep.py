"""Converts images to RGB without losing levels: uint16 or float32, by the image rules `keep` and `range`."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from swinft.data.images.depth import WHITE, Pixels
from swinft.data.images.rules import KEY, ImageRules
from swinft.data.images.to_rgb import (
    IN_PLANES,
    MAX_BITS,
    Layout,
    Opener,
    SampleStats,
    both_bytes,
    eight_bits,
    white_bits,
)


def kept(
    image: Image.Image, layout: Layout, rules: ImageRules, significant: int | None, reopen: Opener
) -> tuple[Pixels, SampleStats]:
    """Converts a loaded image to RGB.

    Args:
        image: The loaded image.
        layout: Its layout, read before loading.
        rules: With `keep`.
        significant: Significant bits declared by the file, or None.
        reopen: Opens the image again, to decode it a second time.

    Returns:
        (H, W, 3) in the type that `rules.keep` names, and its statistics.

    Raises:
        ValueError: The range of the samples is not known, some are not finite, or the image declares transparency.
    """
    if layout.planar_problem:
        raise ValueError(IN_PLANES)
    if layout.has_alpha and rules.transparency == "blend":
        raise ValueError(
            f"it declares transparency, which is blended in 8 bits only; set {KEY}.transparency to ignore, or remove "
            f"{KEY}.keep"
        )
    if layout.is_stretched and rules.range:
        raise ValueError(f"its samples may have been scaled while they were read, so that {KEY}.range would not fit")
    return scaled(_samples(image, layout, reopen), rules, layout.bits, significant, layout.is_inverted)


def _samples(image: Image.Image, layout: Layout, reopen: Opener) -> NDArray[Any]:
    """The samples as they are in the file, (H, W) or (H, W, 3)."""
    if image.mode == "F":
        return np.asarray(image)
    if image.mode.startswith("I"):
        deep = np.asarray(image)
        is_wrapped = deep.dtype == np.int32 and layout.bits == 32  # Pillow has no unsigned ones of this size
        return deep.view(np.uint32) if is_wrapped else deep
    rgb = eight_bits(image, layout)[0]
    return both_bytes(rgb, layout, reopen) if layout.bits > 8 else rgb


def scaled(
    samples: NDArray[Any], rules: ImageRules, bits: int, significant: int | None = None, is_inverted: bool = False
) -> tuple[Pixels, SampleStats]:
    """Scales samples from their range to the type that `rules.keep` names.

    Args:
        samples: (H, W), (H, W, 1) or (H, W, 3) of any real type.
        rules: With `keep`.
        bits: Bits of the largest possible sample.
        significant: Significant bits declared by the file, or None.
        is_inverted: The smallest sample is white.

    Returns:
        RGB (H, W, 3), and its statistics.

    Raises:
        ValueError: The range of the samples is not known, or some are not finite.
    """
    if rules.fill_nan is not None and samples.dtype.kind == "f":
        samples = np.where(np.isnan(samples), samples.dtype.type(rules.fill_nan), samples)
    if samples.dtype.kind == "f" and (wrong := int(np.count_nonzero(~np.isfinite(samples)))):
        only_nan = rules.fill_nan is None and not np.isinf(samples).any()
        fix = "set data.loading.image_rules.fill_nan to the number that stands for them, or " if only_nan else ""
        raise ValueError(
            f"{wrong:,} of its {samples.size:,} samples are NaN or infinite; {fix}replace them in the file"
        )
    low, high, found = _range(samples, rules, bits, significant)
    unit = samples.astype(np.result_type(samples.dtype, np.float32))
    if rules.scale == "log":
        # Samples of 0 and less have no logarithm: they are cut to black, as all that are below the range.
        unit, low, high = np.log(np.maximum(unit, unit.dtype.type(low / 2))), math.log(low), math.log(high)
    unit -= unit.dtype.type(low)
    unit /= unit.dtype.type(high - low)
    is_cut = (unit < 0) | (unit > 1)
    altered = float((is_cut.any(axis=2) if is_cut.ndim == 3 else is_cut).mean())
    np.clip(unit, 0, 1, out=unit)
    if is_inverted:
        unit = 1 - unit
    kept = unit.astype(np.float32) if rules.keep == "float32" else np.rint(unit * WHITE["uint16"]).astype(np.uint16)
    grey = kept[:, :, None] if kept.ndim == 2 else kept
    rgb: Pixels = np.repeat(grey, 3, axis=2) if grey.shape[2] == 1 else np.ascontiguousarray(grey)
    return rgb, SampleStats(found.bits, found.used_bits, altered)


def _range(
    samples: NDArray[Any], rules: ImageRules, bits: int, significant: int | None
) -> tuple[float, float, SampleStats]:
    """The samples that become black and white, and what bits say about it."""
    if rules.range:
        return *rules.range, SampleStats(bits)
    what = "floating-point numbers" if samples.dtype.kind == "f" else ""
    what = what or ("signed" if samples.dtype.kind == "i" and samples.min() < 0 else "")
    what = what or ("of 8 bits, which have no more levels to keep" if bits <= 8 else "")
    if what or bits > MAX_BITS:
        raise ValueError(
            f"its samples are {what or f'of {bits} bits'}: {KEY}.keep takes the range from the file for 9 to 16 bits "
            f"only. Set {KEY}.range to the samples that become black and white in all files"
        )
    white, largest = white_bits(samples, bits, rules.bits, significant)
    return 0.0, float(2**white - 1), SampleStats(white, largest.bit_length())
