"""Pixels become training pixels: presets, a user's own pipeline, and the evaluation pipeline.

Images stay uint8 (H, W, 3) throughout: normalising on the CPU would cost more than everything else together, and the
network does it on the device.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import albumentations as A
import cv2
import numpy as np
from albumentations.core.composition import TransformType
from numpy.typing import NDArray

from swinft.data.augment.crops import CropTransform, RandomCrop, Resize
from swinft.errors import InputError

Preset = Literal["none", "light", "medium", "heavy", "crop"]
Image = NDArray[np.uint8]
Pipeline = A.Compose | RandomCrop


def eval_pipeline(image_size: tuple[int, int], resize: Resize) -> A.Compose:
    """Resizing alone: what validation and prediction see.

    Args:
        image_size: Height and width in pixels.
        resize: `squash` ignores the aspect ratio, `crop` keeps it and cuts what sticks out, `pad` keeps it and fills
            the rest with black.
    """
    return A.Compose(_resize(image_size, resize))


def train_pipeline(augment: Preset | Sequence[TransformType], image_size: tuple[int, int], resize: Resize) -> Pipeline:
    """The pipeline of the training rows.

    `light` flips left and right; `medium` also shifts, scales, turns and changes brightness and contrast; `heavy`
    crops, changes colours, blurs and cuts holes besides; `crop` takes a random part and flips it, at several times the
    speed of the others; `none` resizes only.

    Args:
        augment: A preset, or albumentations transforms that see the decoded image and end at `image_size`.
        image_size: Height and width in pixels.
        resize: As in `eval_pipeline`; what is drawn surrounds what evaluation shows. A list resizes by itself.
    """
    if not isinstance(augment, str):
        return A.Compose(list(augment))
    if augment == "crop":
        return RandomCrop(image_size, resize)
    # A crop of what is decoded keeps detail that a crop of what was resized would have lost.
    first = [CropTransform(image_size, resize, HEAVY_SCALE)] if augment == "heavy" else _resize(image_size, resize)
    return A.Compose([*first, *PRESETS[augment](image_size)])


def apply(pipeline: Pipeline, image: Image, seed: int, epoch: int, row: int) -> Image:
    """Runs a pipeline on one image.

    What is drawn depends on (seed, epoch, row) alone: not on the worker, nor on what was drawn before.

    Args:
        pipeline: From `train_pipeline` or `eval_pipeline`.
        image: RGB, uint8 (H, W, 3).
        seed: Of the run.
        epoch: From 0.
        row: Position in the table.
    """
    if isinstance(pipeline, RandomCrop):
        return pipeline(image, seed, epoch, row)
    set_seed(pipeline, seed, epoch, row)
    result: Image = pipeline(image=image)["image"]
    return result


def set_seed(pipeline: A.Compose, seed: int, epoch: int, row: int) -> None:
    """Makes what a pipeline draws next depend on (seed, epoch, row) alone."""
    numbers = np.random.default_rng([seed, epoch, row])
    # One generator shared by all transforms of a call: a seed given to Compose would make them draw the same numbers.
    pipeline.set_random_state(numbers, random.Random(int(numbers.integers(2**63))))


def check_image(image: Any, image_size: tuple[int, int], key: str = "augment") -> None:
    """Refuses what a batch cannot hold; `key` is the setting whose transforms made it.

    Raises:
        InputError: The image is not uint8 (H, W, 3) at `image_size`.
    """
    expected = (*image_size, 3)
    if not isinstance(image, np.ndarray):
        raise InputError(f"data.{key} ends in a tensor; remove A.ToTensorV2, batches are made from uint8 arrays.")
    if image.dtype != np.uint8:
        raise InputError(
            f"data.{key} ends in {image.dtype}, not uint8; remove A.Normalize and A.ToFloat, the task normalises on "
            f"the device with the backbone's own mean and deviation."
        )
    if image.shape != expected:
        raise InputError(
            f"data.{key} ends in shape {image.shape}, not {expected}; end it with "
            f"A.Resize(height={image_size[0]}, width={image_size[1]}) or a crop of that size."
        )


def _resize(image_size: tuple[int, int], rule: Resize) -> list[TransformType]:
    height, width = image_size
    area: Any = {"area_for_downscale": "image"}  # averages all pixels when shrinking; sampling some would alias
    if rule == "squash":
        return [A.Resize(height, width, **area)]
    if rule == "crop":
        return [A.SmallestMaxSize(max_size_hw=image_size, **area), A.CenterCrop(height, width)]
    return [A.LongestMaxSize(max_size_hw=image_size, **area), A.PadIfNeeded(height, width)]


def _light(image_size: tuple[int, int]) -> list[TransformType]:
    return [A.HorizontalFlip(p=0.5)]


HEAVY_SCALE = (0.5, 1.0)  # share of what evaluation shows
MIRROR = cv2.BORDER_REFLECT_101  # black borders would tell the network what was done


def _medium(image_size: tuple[int, int]) -> list[TransformType]:
    return [
        *_light(image_size),
        A.Affine(scale=(0.9, 1.1), translate_percent=(-0.06, 0.06), rotate=(-15, 15), border_mode=MIRROR, p=0.7),
        A.RandomBrightnessContrast(brightness_limit=0.15, contrast_limit=0.15, brightness_by_max=False, p=0.5),
    ]


def _heavy(image_size: tuple[int, int]) -> list[TransformType]:
    return [
        *_medium(image_size),
        A.HueSaturationValue(hue_shift_limit=10, sat_shift_limit=20, val_shift_limit=0, p=0.5),
        A.OneOf([A.GaussianBlur(sigma_limit=(0.3, 1.5)), A.ImageCompression(quality_range=(50, 95))], p=0.3),
        A.CoarseDropout(num_holes_range=(1, 3), hole_height_range=(0.05, 0.2), hole_width_range=(0.05, 0.2), p=0.4),
    ]


# After the image has its size; `crop` is none of them.
PRESETS: dict[str, Callable[[tuple[int, int]], list[TransformType]]] = {
    "none": lambda image_size: [],
    "light": _light,
    "medium": _medium,
    "heavy": _heavy,
}


def every_transform(transforms: Sequence[TransformType]) -> Iterator[TransformType]:
    """All transforms of a list, those inside of others included."""
    for transform in transforms:
        yield transform
        yield from every_transform(getattr(transform, "transforms", []))


def mistyped(key: str, transforms: str | Sequence[TransformType]) -> list[str]:
    """Arguments that a transform of a setting lacks, one sentence each; albumentations only warns, and goes on."""
    if isinstance(transforms, str):  # a preset
        return []
    return [
        f"data.{key}: {type(transform).__name__} has no argument '{name}'."
        for transform in every_transform(transforms)
        for name in getattr(transform, "invalid_args", [])
    ]


class Preprocessing:
    """The user's transforms that training and evaluation apply alike, before anything else.

    Args:
        transforms: Of albumentations; each must do the same whatever is drawn.
    """

    def __init__(self, transforms: Sequence[TransformType]) -> None:
        self.pipeline = A.Compose(list(transforms))

    def __call__(self, image: Image) -> Image:
        """An image (H, W, 3) to another one, of any size."""
        result: Image = self.pipeline(image=image)["image"]
        return result
