"""Corruptions of images, each with five severities, as pure functions of pixels and random numbers.

Kinds and severities follow Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and
Perturbations (ICLR 2019), where they have them. Lengths are in pixels of an image whose shorter side has 224, and are
scaled with the image. Shapes: H and W pixels, C channels; values are float32 from 0 to 255.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]
Random = np.random.Generator
REFERENCE = 224  # side of the images that lengths are for


class Corruption(NamedTuple):
    """One kind of corruption.

    Args:
        apply: From pixels (H, W, C), a level and random numbers to pixels; values may be out of range.
        levels: The level of each severity from 1.
        unit: What a level is.
    """

    apply: Callable[[Pixels, float, Random], Any]
    levels: Sequence[float]
    unit: str


def corrupted(pixels: Pixels, name: str, severity: int, random: Random) -> Pixels:
    """An image with a corruption, in 0–255; severity 0 is the image itself.

    Args:
        pixels: (H, W, C).
        name: Name of the corruption.
        severity: From 0 to 5.
        random: Random numbers; with equal ones, severities differ in nothing but their level.
    """
    if severity == 0:
        return pixels
    kind = CORRUPTIONS[name]
    changed = kind.apply(pixels, kind.levels[severity - 1], random)
    found: Pixels = np.clip(changed, 0, 255).astype(np.float32).reshape(pixels.shape)
    return found


def band_noise(shape: tuple[int, int, int], low: float, high: float, strength: float, random: Random) -> Pixels:
    """White noise of a band of frequencies, with a given deviation whatever the band is.

    Args:
        shape: (H, W, C).
        low: Lowest frequency in units of π, in every direction the same.
        high: Highest one, not included; 1 includes all above.
        strength: Standard deviation over all pixels.
        random: Random numbers.

    Returns:
        The noise, with mean 0 unless the band has frequency 0.
    """
    rows, columns = np.fft.fftfreq(shape[0])[:, None], np.fft.fftfreq(shape[1])[None]
    radius = 2 * np.hypot(rows, columns)
    is_in = (radius >= low) & ((radius < high) | (high >= 1))
    spectrum = np.fft.fft2(random.standard_normal(shape), axes=(0, 1)) * is_in[..., None]
    noise = np.fft.ifft2(spectrum, axes=(0, 1)).real
    deviation = float(np.sqrt(np.mean(noise**2)))
    return (noise * (strength / deviation if deviation else 0.0)).astype(np.float32)


def _scale(pixels: Pixels) -> float:
    return float(min(pixels.shape[:2]) / REFERENCE)


def _gaussian_noise(pixels: Pixels, level: float, random: Random) -> Any:
    return pixels + 255 * level * random.standard_normal(pixels.shape)


def _shot_noise(pixels: Pixels, level: float, random: Random) -> Any:
    return random.poisson(pixels / 255 * level) / level * 255


def _impulse_noise(pixels: Pixels, level: float, random: Random) -> Any:
    drawn = random.random(pixels.shape)
    return np.where(drawn < level / 2, 0, np.where(drawn < level, 255, pixels))


def _speckle_noise(pixels: Pixels, level: float, random: Random) -> Any:
    return pixels * (1 + level * random.standard_normal(pixels.shape))


def _gaussian_blur(pixels: Pixels, level: float, random: Random) -> Any:
    return cv2.GaussianBlur(pixels, (0, 0), level * _scale(pixels), borderType=cv2.BORDER_REFLECT_101)


def _defocus_blur(pixels: Pixels, level: float, random: Random) -> Any:
    radius = level * _scale(pixels)
    half = math.ceil(radius)
    places = np.arange(-half, half + 1)
    # The share of a pixel that the disk covers, linear in the distance of its edge.
    disk = np.clip(radius + 0.5 - np.hypot(places[:, None], places[None]), 0, 1)
    return cv2.filter2D(pixels, -1, disk / disk.sum(), borderType=cv2.BORDER_REFLECT_101)


def _motion_blur(pixels: Pixels, level: float, random: Random) -> Any:
    length, angle = level * _scale(pixels), random.uniform(0, math.pi)
    steps = np.linspace(-length / 2, length / 2, max(2, math.ceil(2 * length)))
    return np.mean([_moved(pixels, step * math.cos(angle), step * math.sin(angle)) for step in steps], axis=0)


def _zoom_blur(pixels: Pixels, level: float, random: Random) -> Any:
    return np.mean([_turned(pixels, 0, factor) for factor in np.linspace(1, level, 8)], axis=0)


def _brightness(pixels: Pixels, level: float, random: Random) -> Any:
    return pixels + 255 * level


def _darkness(pixels: Pixels, level: float, random: Random) -> Any:
    return pixels * level


def _contrast(pixels: Pixels, level: float, random: Random) -> Any:
    mean = pixels.mean((0, 1), keepdims=True)
    return mean + level * (pixels - mean)


def _saturation(pixels: Pixels, level: float, random: Random) -> Any:
    grey = pixels.mean(2, keepdims=True)
    return grey + level * (pixels - grey)


def _fog(pixels: Pixels, level: float, random: Random) -> Any:
    height, width = pixels.shape[:2]
    fog = np.zeros((height, width), np.float32)
    for octave in range(1, 6):
        coarse = random.random((2**octave + 1, 2**octave + 1)).astype(np.float32)
        fog += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) / 2**octave
    fog = (fog - fog.min()) / max(1e-6, float(np.ptp(fog)))
    return (1 - level) * pixels + level * 255 * (0.5 + 0.5 * fog[..., None])


def _elastic(pixels: Pixels, level: float, random: Random) -> Any:
    height, width = pixels.shape[:2]
    smooth = max(1.0, 12 * _scale(pixels))
    shifts = []
    for _ in range(2):
        drawn = cv2.GaussianBlur(random.uniform(-1, 1, (height, width)).astype(np.float32), (0, 0), smooth)
        shifts.append(drawn / max(1e-6, float(np.abs(drawn).max())) * level * _scale(pixels))
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return _sampled(pixels, columns + shifts[0], rows + shifts[1])


def _pixelate(pixels: Pixels, level: float, random: Random) -> Any:
    height, width = pixels.shape[:2]
    small, size = (max(1, round(width * level)), max(1, round(height * level))), (width, height)
    parts = []
    for channel in range(pixels.shape[2]):  # OpenCV resizes four at most
        reduced = cv2.resize(pixels[..., channel], small, interpolation=cv2.INTER_AREA)
        parts.append(cv2.resize(reduced, size, interpolation=cv2.INTER_NEAREST))
    return np.stack(parts, axis=2)


def _jpeg(pixels: Pixels, level: float, random: Random) -> Any:
    levels = np.clip(np.rint(pixels), 0, 255).astype(np.uint8)
    parts = (
        [levels] if levels.shape[2] == 3 else [levels[..., number : number + 1] for number in range(levels.shape[2])]
    )
    found = []
    for part in parts:
        shown = part[..., ::-1] if part.shape[2] == 3 else part  # OpenCV's order of colours
        encoded = cv2.imencode(".jpg", np.ascontiguousarray(shown), [cv2.IMWRITE_JPEG_QUALITY, int(level)])[1]
        decoded: Any = cv2.imdecode(encoded, cv2.IMREAD_UNCHANGED)
        decoded = decoded.reshape(part.shape)
        found.append(decoded[..., ::-1] if part.shape[2] == 3 else decoded)
    return np.concatenate(found, axis=2).astype(np.float32)


def _rotation(pixels: Pixels, level: float, random: Random) -> Any:
    return _turned(pixels, level if random.random() < 0.5 else -level, 1.0)


def _shift(pixels: Pixels, level: float, random: Random) -> Any:
    angle = random.uniform(0, 2 * math.pi)
    return _moved(pixels, level * _scale(pixels) * math.cos(angle), level * _scale(pixels) * math.sin(angle))


def _occlusion(pixels: Pixels, level: float, random: Random) -> Any:
    height, width = pixels.shape[:2]
    tall, wide = (max(1, round(side * math.sqrt(level))) for side in (height, width))
    top, left = int(random.integers(0, height - tall + 1)), int(random.integers(0, width - wide + 1))
    changed = pixels.copy()
    changed[top : top + tall, left : left + wide] = 127.5
    return changed


def _turned(pixels: Pixels, degrees: float, factor: float) -> Any:
    height, width = pixels.shape[:2]
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, float(factor))
    return _warped(pixels, matrix)


def _moved(pixels: Pixels, right: float, down: float) -> Any:
    return _warped(pixels, np.array([[1, 0, right], [0, 1, down]], np.float64))


def _warped(pixels: Pixels, matrix: NDArray[Any]) -> Any:
    size = (pixels.shape[1], pixels.shape[0])
    warped = cv2.warpAffine(pixels, matrix, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
    return warped.reshape(pixels.shape)


def _sampled(pixels: Pixels, columns: Pixels, rows: Pixels) -> Any:
    return cv2.remap(pixels, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian_noise": Corruption(_gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38), "deviation, as a share of the range"),
    "shot_noise": Corruption(_shot_noise, (60, 25, 12, 5, 3), "photons of a white pixel"),
    "impulse_noise": Corruption(_impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27), "share of values that are 0 or 255"),
    "speckle_noise": Corruption(_speckle_noise, (0.15, 0.2, 0.35, 0.45, 0.6), "deviation, as a share of the value"),
    "gaussian_blur": Corruption(_gaussian_blur, (1, 2, 3, 4, 6), "deviation in pixels of 224"),
    "defocus_blur": Corruption(_defocus_blur, (3, 4, 6, 8, 10), "radius in pixels of 224"),
    "motion_blur": Corruption(_motion_blur, (5, 10, 15, 20, 25), "length in pixels of 224, in a random direction"),
    "zoom_blur": Corruption(_zoom_blur, (1.06, 1.11, 1.16, 1.21, 1.26), "largest of eight zooms that are averaged"),
    "brightness": Corruption(_brightness, (0.1, 0.2, 0.3, 0.4, 0.5), "added, as a share of the range"),
    "darkness": Corruption(_darkness, (0.8, 0.6, 0.45, 0.3, 0.2), "factor"),
    "contrast": Corruption(_contrast, (0.4, 0.3, 0.2, 0.1, 0.05), "factor about the mean of each channel"),
    "saturation": Corruption(_saturation, (0.7, 0.5, 0.3, 0.1, 0), "factor about grey"),
    "fog": Corruption(_fog, (0.2, 0.35, 0.5, 0.6, 0.7), "share of fog"),
    "elastic": Corruption(_elastic, (2, 3, 4, 6, 8), "largest displacement in pixels of 224"),
    "pixelate": Corruption(_pixelate, (0.6, 0.5, 0.4, 0.3, 0.25), "factor of the size"),
    "jpeg": Corruption(_jpeg, (25, 18, 15, 10, 7), "quality"),
    "rotation": Corruption(_rotation, (5, 10, 15, 20, 30), "degrees, in a random direction"),
    "shift": Corruption(_shift, (4, 8, 12, 18, 24), "pixels of 224, in a random direction"),
    "occlusion": Corruption(_occlusion, (0.05, 0.1, 0.2, 0.3, 0.4), "share of the image, a grey square"),
}
