"""Reads DICOM files: their samples become pixels by a window or a range, and a series has an order.

Samples are in the units of the modality (Hounsfield units in CT) for windows and ranges: rescaled by slope and
intercept, or by the modality's lookup table. MONOCHROME1 is inverted; colours become RGB.
"""

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from swinft.data.image_paths import natural
from swinft.data.images.deep import scaled
from swinft.data.images.depth import WHITE, Pixels
from swinft.data.images.info import ImageInfo, guarded
from swinft.data.images.rules import FROM_FILE, KEY, ImageRules
from swinft.data.images.to_rgb import MAX_BITS, scaled_to_bytes
from swinft.data.sources.files import FileSource
from swinft.data.sources.source import ImageError, Source, read_image
from swinft.errors import InputError
from swinft.extras import import_extra

SUFFIXES = (".dcm", ".dicom")
STARTS = (b"\x02\0", b"\x08\0")  # the first group of a file without a preamble
INVERTED = "MONOCHROME1"
READERS = 16  # threads that read headers: most of the time is waiting
SERIES_TAGS = ["InstanceNumber", "ImagePositionPatient", "ImageOrientationPatient"]
PARALLEL = 1e-3  # difference of two directions that are the same


def is_dicom(path: str | Path, content: bytes) -> bool:
    """Whether an image is a DICOM file; one without a preamble is known by its name only."""
    return content[128:132] == b"DICM" or (str(path).casefold().endswith(SUFFIXES) and content[:2] in STARTS)


def dicom_info(path: str | Path, content: bytes, rules: ImageRules) -> ImageInfo:
    """Information from the header.

    Raises:
        ImageError: It is damaged, holds no image, or is outside the rules.
        InputError: pydicom is not installed.
    """
    return guarded(path, lambda: _info(path, _dataset(content, stop_before_pixels=True), rules))


def dicom_pixels(path: str | Path, content: bytes, rules: ImageRules, frame: int = 0) -> tuple[Pixels, ImageInfo]:
    """RGB (H, W, 3) in the type of the rules, and information.

    Args:
        path: Named in errors.
        content: All bytes of the file.
        rules: The window, or the range.
        frame: Which one of several.

    Raises:
        ImageError: As for `dicom_info`; or no decoder for its compression is installed, or its window is not known.
        InputError: pydicom is not installed.
    """

    def read() -> tuple[Pixels, ImageInfo]:
        data = _dataset(content)
        info = _info(path, data, rules)
        pixels, found = _converted(data, _samples(data, frame), rules, frame, info)
        pixels.flags.writeable = False
        return pixels, found

    return guarded(path, read)


def series_order(files: Sequence[str], source: Source) -> list[str]:
    """The files of a series along its axis: by position if all have one, else by instance number, else by name.

    Files whose header cannot be read come last; decoding them says what is wrong.

    Args:
        files: References of the images.
        source: Where their bytes come from.
    """
    with ThreadPoolExecutor(READERS) as pool:
        headers = list(pool.map(lambda file: _header(file, source), files))
    known = [header for header in headers if header is not None]
    places = _places(known)
    numbers = [getattr(header, "InstanceNumber", None) for header in known]
    values = iter(zip(places or [0.0] * len(known), numbers if None not in numbers else [0] * len(known), strict=True))
    keys = [(0, *next(values)) if header is not None else (1, 0.0, 0) for header in headers]
    order = sorted(range(len(files)), key=lambda k: (*keys[k], natural(files[k])))
    return [files[k] for k in order]


def _header(file: str, source: Source) -> Any:
    """The attributes that order a series; None if they cannot be read."""
    try:
        stream: Any = file if isinstance(source, FileSource) else io.BytesIO(read_image(file, source))
        found = _pydicom().dcmread(stream, stop_before_pixels=True, specific_tags=SERIES_TAGS, force=True)
        return found if any(name in found for name in SERIES_TAGS) else None
    except (ImageError, InputError):
        raise
    except Exception:
        return None


def _places(headers: Sequence[Any]) -> list[float] | None:
    """Where each image lies along the normal of all; None if that is not known, or they are not parallel."""
    found = []
    for header in headers:
        position, directions = (getattr(header, name, None) for name in SERIES_TAGS[1:])
        if position is None or directions is None or len(position) != 3 or len(directions) != 6:
            return None
        found.append((np.cross(directions[:3], directions[3:]).astype(float), np.array(position, float)))
    if not found or any(np.abs(normal - found[0][0]).max() > PARALLEL for normal, _ in found):
        return None
    return [float(found[0][0] @ position) for _, position in found]


def _pydicom() -> Any:
    """The package.

    Raises:
        InputError: It is not installed.
    """
    return import_extra("pydicom", "dicom", "pydicom, which reads DICOM files,")


def _dataset(content: bytes, **options: Any) -> Any:
    """The attributes of a file.

    Raises:
        ValueError: It has no image.
    """
    pydicom = _pydicom()
    data = pydicom.dcmread(io.BytesIO(content), force=True, **options)
    if missing := [name for name in ("Rows", "Columns", "PhotometricInterpretation") if name not in data]:
        raise ValueError(f"it is a DICOM file without an image: {', '.join(missing)} missing")
    if "TransferSyntaxUID" not in data.file_meta:  # older than the preamble: nothing but this
        data.file_meta.TransferSyntaxUID = pydicom.uid.ImplicitVRLittleEndian
    return data


def _info(path: str | Path, data: Any, rules: ImageRules) -> ImageInfo:
    width, height = int(data.Columns), int(data.Rows)
    rules.check_size(path, width, height)
    frames = int(data.get("NumberOfFrames", None) or 1)
    if rules.animated == "error" and frames > 1:
        raise ImageError(
            f"{path} has more than one frame. Save one, or set data.loading.image_rules.animated to first."
        )
    bits = int(data.get("BitsStored", None) or 32) - bool(data.get("PixelRepresentation", 0))
    return ImageInfo(width, height, str(data.PhotometricInterpretation), "DICOM", frames, False, bits)


def _samples(data: Any, frame: int) -> NDArray[Any]:
    """Samples of a frame as they are stored, (H, W), or RGB (H, W, 3).

    Raises:
        ValueError: There are none, or no decoder for their compression is installed.
    """
    from pydicom.pixels import apply_color_lut, get_decoder

    if not {"PixelData", "FloatPixelData", "DoubleFloatPixelData"} & {element.keyword for element in data}:
        raise ValueError("it has no pixel data")
    syntax = data.file_meta.TransferSyntaxUID
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        raise ValueError(f"its transfer syntax '{syntax.name}' is not one of images") from None
    if not decoder.is_available:
        raise ValueError(
            f"its transfer syntax '{syntax.name}' needs a decoder that is not installed: pip install 'swinft[dicom]'"
        )
    found: NDArray[Any] = decoder.as_array(data, index=frame)[0]
    if data.PhotometricInterpretation == "PALETTE COLOR":
        found = apply_color_lut(found, data)[..., :3]
    return found


def _converted(
    data: Any, samples: NDArray[Any], rules: ImageRules, frame: int, info: ImageInfo
) -> tuple[Pixels, ImageInfo]:
    """RGB of samples, by the rules.

    Raises:
        ValueError: The samples have no known white.
    """
    is_grey, is_inverted = samples.ndim == 2, info.mode == INVERTED
    bits = 8 * samples.dtype.itemsize if info.mode == "PALETTE COLOR" else info.bits
    if rules.window is not None:
        if not is_grey:
            raise ValueError(f"it is in colour, and {KEY}.window is for grey images; remove it")
        unit = _windowed(data, samples, rules, frame)
        return _in_type(1 - unit if is_inverted else unit, rules), replace(info, bits=bits)
    if rules.keep:
        values = _in_units(data, samples, frame) if is_grey and rules.range else samples
        pixels, found = scaled(values, rules, bits, is_inverted=is_inverted)
        return pixels, replace(info, bits=found.bits, used_bits=found.used_bits, altered=found.altered)
    if samples.dtype.kind == "f" or samples.min() < 0 or bits > MAX_BITS:
        what = "floating-point numbers" if samples.dtype.kind == "f" else f"from {samples.min()} to {samples.max()}"
        raise ValueError(f"its samples are {what}, whose white is not known; set {KEY}.window, or keep and range")
    levels, stats = scaled_to_bytes(samples, bits, rules.bits, None)
    levels = 255 - levels if is_inverted else levels
    grey = np.repeat(levels[:, :, None], 3, axis=2) if is_grey else np.ascontiguousarray(levels)
    return grey, replace(info, bits=stats.bits, used_bits=stats.used_bits)


def _windowed(data: Any, samples: NDArray[Any], rules: ImageRules, frame: int) -> NDArray[np.float64]:
    """Samples in 0–1 by the windows of the rules, (H, W), or (H, W, 3) of three windows."""
    values = _in_units(data, samples, frame)
    if rules.window == FROM_FILE:
        return _by_file(data, values, frame)
    windows = rules.windows
    found = [np.clip((values - center) / width + 0.5, 0, 1) for center, width in windows]
    return found[0] if len(found) == 1 else np.stack(found, axis=-1)


def _in_units(data: Any, samples: NDArray[Any], frame: int) -> NDArray[np.float64]:
    """Samples in the units of the modality."""
    if "ModalityLUTSequence" in data:
        from pydicom.pixels import apply_modality_lut

        by_table: NDArray[np.float64] = apply_modality_lut(samples, data).astype(np.float64)
        return by_table
    of_frame = _of_frame(data, "PixelValueTransformationSequence", "RescaleSlope", frame)
    slope, intercept = of_frame.get("RescaleSlope", None), of_frame.get("RescaleIntercept", None)
    values: NDArray[np.float64] = samples.astype(np.float64)
    if slope is None or intercept is None:
        return values
    return values * float(slope) + float(intercept)


def _by_file(data: Any, values: NDArray[np.float64], frame: int) -> NDArray[np.float64]:
    """Values in 0–1 by the window, or the lookup table, that the file declares first.

    Raises:
        ValueError: It declares none.
    """
    if "VOILUTSequence" in data:
        from pydicom.pixels import apply_voi

        bits = int(data.VOILUTSequence[0].LUTDescriptor[2])
        by_table: NDArray[np.float64] = apply_voi(np.rint(values).astype(np.int64), data, index=0) / (2**bits - 1)
        return np.clip(by_table, 0, 1)
    of_frame = _of_frame(data, "FrameVOILUTSequence", "WindowCenter", frame)
    centers, widths = of_frame.get("WindowCenter", None), of_frame.get("WindowWidth", None)
    if centers is None or widths is None or not np.size(centers) or not np.size(widths):
        raise ValueError(f"it declares no window; set {KEY}.window to [center, width]")
    center, width = float(np.atleast_1d(centers)[0]), float(np.atleast_1d(widths)[0])
    function = str(of_frame.get("VOILUTFunction", None) or "LINEAR")
    if function == "SIGMOID" and width > 0:
        return np.asarray(1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -700, 700))))
    if function == "LINEAR" and width >= 1:  # the standard's definition: the width includes both ends
        above = values > center - 0.5
        return np.where(above, 1.0, 0.0) if width == 1 else np.clip((values - center + 0.5) / (width - 1) + 0.5, 0, 1)
    if function == "LINEAR_EXACT" and width > 0:
        return np.clip((values - center) / width + 0.5, 0, 1)
    raise ValueError(f"its window has the width {width:g} and the function {function}; set {KEY}.window")


def _of_frame(data: Any, group: str, name: str, frame: int) -> Any:
    """The attributes of a file, or of one of its frames, that have a name; those of the file if none has it."""
    for place in _places_of(data, frame):
        inner = place if place is data else (place.get(group, None) or [None])[0]
        if inner is not None and name in inner:
            return inner
    return data


def _places_of(data: Any, frame: int) -> Iterator[Any]:
    """Where the attributes of a frame may be: its own group, the shared one, the file."""
    of_frames = data.get("PerFrameFunctionalGroupsSequence", None) or []
    yield from of_frames[frame : frame + 1]
    yield from (data.get("SharedFunctionalGroupsSequence", None) or [])[:1]
    yield data


def _in_type(unit: NDArray[np.float64], rules: ImageRules) -> Pixels:
    """Values in 0–1, (H, W) or (H, W, 3), as RGB of the type of the rules."""
    white = WHITE[rules.dtype.name]
    levels: Pixels = (unit if white == 1 else np.rint(unit * white)).astype(rules.dtype)
    return np.repeat(levels[:, :, None], 3, axis=2) if levels.ndim == 2 else np.ascontiguousarray(levels)
