"""Rules for images: which can be used, how unusual ones are converted, and how many levels of them are kept."""

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from swinft.data.images.depth import Pixels, as_unit
from swinft.data.images.to_rgb import MAX_BITS, Transparency
from swinft.data.sources.source import ImageError
from swinft.errors import InputError
from swinft.ranges import COUNT, FINITE

MAX_MEGAPIXELS = 89  # above it, Pillow warns of a decompression bomb
KEY = "data.loading.image_rules"
FROM_FILE = "file"
Keep = Literal["uint16", "float32"]


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
        keep: Null scales samples to 8 bits. `uint16` and `float32` keep their levels: pixels are cached in this type,
            augmented as float32 in 0–1, and the network sees them in 0–255 as any others, with fractions. For PNG and
            TIFF of more than 8 bits, and arrays in HDF5 and .npy files; transparency must be `ignore` where files
            declare it. In bf16 the network's first layer rounds to 8 significant bits: let `range` be narrow, or train
            in 32-true or 16-mixed.
        range: With `keep`, the samples that become black and white, in the units of the files; those beyond are cut to
            them, which `check` notes. Floating-point, signed, 8-bit and 32-bit samples need it. Null for 0 to white as
            `bits` says.
        window: For DICOM files: the center and width of the samples that go from black to white, [40, 80], in the units
            of the modality (Hounsfield units in CT); three of them for red, green and blue; or `file` for what each
            file declares. Null for black at 0 and white as the file's bits say, or as `range`.
        scale: With `range`: `log` for equal steps of the logarithm; null for equal steps.
        fill_nan: With `range`: the number that stands for missing samples (NaN); null makes them an error.
        columns: Of parquet files, the columns that are the image, as patterns: [LL_*]; null for all columns of numbers.

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
    keep: Keep | None = None
    range: tuple[float, float] | None = None
    window: Literal["file"] | tuple[float, float] | list[tuple[float, float]] | None = None
    scale: Literal["log"] | None = None
    fill_nan: float | None = None
    columns: list[str] | None = None

    def __post_init__(self) -> None:
        has_background = tuple(self.background) != (255, 255, 255)
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
                self.transparency == "blend" or not has_background
            ),
            f"animated is {self.animated!r}; it must be first or error": self.animated in ("first", "error"),
            f"keep is {self.keep!r}; it must be uint16, float32 or null": self.keep in (None, *get_args(Keep)),
            f"background is {list(self.background)}, which does nothing as keep is {self.keep}; remove it": (
                self.keep is None or self.transparency == "ignore" or not has_background
            ),
        }
        wrong = [f"{KEY}.{text}." for text, is_right in allowed.items() if not is_right] or self._range_problems()
        wrong = wrong or self._sample_problems()
        if wrong:
            raise InputError("\n  ".join(["the image rules are wrong:", *wrong]), wrong)
        if self.range is not None:
            object.__setattr__(self, "range", (float(self.range[0]), float(self.range[1])))

    def _range_problems(self) -> list[str]:
        """Problems of `range`, and of its combination with other rules; one sentence each."""
        given: Any = self.range
        if given is None and self.window is not None:
            return []
        if given is None:
            needed = f"{KEY}.range is null; with keep: float32, write the samples that become black and white: [0, 1]."
            return [needed] if self.keep == "float32" else []
        is_pair = isinstance(given, list | tuple) and len(given) == 2
        numbers = is_pair and all(isinstance(side, int | float) and not isinstance(side, bool) for side in given)
        if not numbers or not _is_wide(*given):
            return [f"{KEY}.range is {given!r}; write two finite numbers, the smaller first: [0, 4095]."]
        wrong = {
            f"{KEY}.range is for samples that are kept: set keep to uint16 or float32, or remove it.": not self.keep,
            f"{KEY}.bits and range both say what becomes white; remove one.": self.bits != "auto",
        }
        return [text for text, is_so in wrong.items() if is_so]

    def _sample_problems(self) -> list[str]:
        """Problems of the rules for windows, logarithms, missing samples and columns; one sentence each."""
        log_range = self.range is not None and self.range[0] > 0
        fills: Any = self.fill_nan
        patterns: Any = self.columns
        wrong = {
            f"{KEY}.window is {self.window!r}; write [center, width], three of these, or file, with widths above 0.": (
                self.window is not None and self.window != FROM_FILE and not self.windows
            ),
            f"{KEY}.window and range both say what becomes white; remove one.": bool(self.window and self.range),
            f"{KEY}.window and bits both say what becomes white; remove one.": bool(
                self.window and self.bits != "auto"
            ),
            f"{KEY}.scale is {self.scale!r}; it must be log or null.": self.scale not in (None, "log"),
            f"{KEY}.scale is log, which needs a range above 0: [0.01, 100].": self.scale == "log" and not log_range,
            f"{KEY}.fill_nan is {fills!r}; it must be a finite number or null.": fills is not None
            and (isinstance(fills, bool) or not isinstance(fills, int | float) or fills not in FINITE),
            f"{KEY}.fill_nan is for samples that are kept: set keep and range, or remove it.": (
                fills is not None and self.range is None
            ),
            f"{KEY}.columns is {patterns!r}; write patterns of columns, like ['LL_*'].": patterns is not None
            and (isinstance(patterns, str) or not patterns or not all(isinstance(each, str) for each in patterns)),
        }
        return [text for text, is_so in wrong.items() if is_so]

    @property
    def windows(self) -> list[tuple[float, float]]:
        """The windows, one or three, as centers and widths; empty if there are none, or they are wrong."""
        given: Any = self.window
        if not isinstance(given, list | tuple) or not given:
            return []
        pairs = [given] if len(given) == 2 and not isinstance(given[0], list | tuple) else list(given)
        are_numbers = all(
            isinstance(pair, list | tuple)
            and len(pair) == 2
            and all(isinstance(each, int | float) and not isinstance(each, bool) and each in FINITE for each in pair)
            and pair[1] > 0
            for pair in pairs
        )
        return (
            [(float(center), float(width)) for center, width in pairs] if are_numbers and len(pairs) in (1, 3) else []
        )

    @property
    def identity(self) -> dict[str, Any]:
        """The rules for cache keys; those that are not set are left out, as caches may be older than they."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the decoded pixels."""
        return np.dtype(self.keep or np.uint8)

    def for_transforms(self, pixels: Pixels) -> Pixels:
        """Decoded pixels as transforms take them: uint8, or float32 in 0–1."""
        return as_unit(pixels) if self.keep else pixels

    def check_size(self, path: object, width: int, height: int) -> None:
        """Checks an image's size, before memory is allocated for its pixels.

        Raises:
            ImageError: It is too large, too small or too long.
        """
        size = f"{path} has {width} × {height} pixels"
        short, long = sorted((width, height))
        if short * long > self.max_megapixels * 1e6:
            raise ImageError(f"{size}, {self.area_limit}")
        if short < self.min_side:
            raise ImageError(f"{size}: a side is shorter than {KEY}.min_side, {self.min_side}.")
        if long > self.max_aspect * short:
            raise ImageError(f"{size}: longer than {KEY}.max_aspect, {self.max_aspect:g}, times its width.")

    @property
    def area_limit(self) -> str:
        """The end of the error for images that are too large."""
        return f"more than {self.max_megapixels:g} megapixels. Shrink it, or raise {KEY}.max_megapixels."


def _is_wide(low: float, high: float) -> bool:
    """Whether a range is one in float32, in which samples are scaled."""
    if not max(abs(low), abs(high)) < 1e38:  # also false for NaN
        return False
    return bool(np.float32(low) < np.float32(high))


RULES = ImageRules()
