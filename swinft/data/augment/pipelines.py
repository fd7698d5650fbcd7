"""Augmentation presets, custom pipelines, and the evaluation pipeline.

Images stay uint8 (H, W, 3): normalising on the CPU would cost more than everything else together, so the network
normalises on the device. Images whose levels are kept (`image_rules.keep`) are float32 in 0–1 here.
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
from swinft.data.augment.policies import AugMix, RandAugment, TrivialAugment
from swinft.data.images.depth import Pixels
from swinft.errors import InputError

Preset = Literal["none", "light", "medium", "heavy", "crop", "randaugment", "trivialaugment", "augmix"]
Image = Pixels
Masks = NDArray[np.uint8]
Pipeline = A.Compose | RandomCrop
EIGHT_BITS = np.dtype(np.uint8)
OVERSHOOT = 0.3  # of white: what cubic interpolation may exceed it by; normalising exceeds it by more


def eval_pipeline(image_size: tuple[int, int], resize: Resize) -> A.Compose:
    """The pipeline of validation and prediction: it only resizes.

    Args:
        image_size: Height and width in pixels.
        resize: `squash` ignores the aspect ratio, `crop` keeps it and crops the centre, `pad` keeps it and pads with
            black.
    """
    return A.Compose(_resize(image_size, resize))


def train_pipeline(
    augment: Preset | Sequence[TransformType], image_size: tuple[int, int], resize: Resize, keeps_levels: bool = False
) -> Pipeline:
    """The pipeline of the training rows.

    `light` flips horizontally; `medium` also shifts, scales, rotates and changes brightness and contrast; `heavy` also
    crops, changes colours, blurs and drops out boxes; `crop` is a random resized crop with a flip, several times as
    fast as the others; `randaugment`, `trivialaugment` and `augmix` flip and apply the policy of that name, with
    torchvision's defaults; `none` resizes only.

    Args:
        augment: A preset, or albumentations transforms that see the decoded image and end at `image_size`.
        image_size: Height and width in pixels.
        resize: As in `eval_pipeline`; presets augment what evaluation sees. A list of transforms resizes by itself.
        keeps_levels: Images are float32 in 0–1: no preset computes on 8 bits. `heavy` changes colours with other
            transforms, and does not compress; the policies neither equalise nor posterise.
    """
    if not isinstance(augment, str):
        return A.Compose(list(augment))
    if augment == "crop":
        return RandomCrop(image_size, resize)
    # Crop before resizing: cropping a resized image would lose detail.
    first = [CropTransform(image_size, resize, HEAVY_SCALE)] if augment == "heavy" else _resize(image_size, resize)
    make = _heavy_on_floats if augment == "heavy" and keeps_levels else PRESETS[augment]
    return A.Compose([*first, *make(image_size)])


def apply(pipeline: Pipeline, image: Image, seed: int, epoch: int, row: int) -> Image:
    """Runs a pipeline on one image, as a pure function of the image and (seed, epoch, row).

    Args:
        pipeline: From `train_pipeline` or `eval_pipeline`.
        image: RGB, uint8 (H, W, 3), or float32 in 0–1.
        seed: Seed of the run.
        epoch: From 0.
        row: Position in the table.
    """
    if isinstance(pipeline, RandomCrop):
        return pipeline(image, seed, epoch, row)
    set_seed(pipeline, seed, epoch, row)
    result: Image = pipeline(image=image)["image"]
    return result


def apply_to_both(
    pipeline: Pipeline, image: Image, masks: Masks | None, seed: int, epoch: int, row: int
) -> tuple[Image, Masks | None]:
    """Runs a pipeline on an image and its masks (H, W, K), if there are any; both have the same geometry after it."""
    if masks is None:
        return apply(pipeline, image, seed, epoch, row), None
    if isinstance(pipeline, RandomCrop):
        return pipeline(image, seed, epoch, row), pipeline.masks(masks, seed, epoch, row)
    set_seed(pipeline, seed, epoch, row)
    return _both(pipeline, image, masks)


def _both(pipeline: A.Compose, image: Image, masks: Masks) -> tuple[Image, Masks]:
    found = pipeline(image=image, mask=masks)
    changed: Masks = found["mask"]
    return found["image"], changed.reshape(*changed.shape[:2], masks.shape[2])


def set_seed(pipeline: A.Compose, seed: int, epoch: int, row: int) -> None:
    """Seeds a pipeline from (seed, epoch, row)."""
    numbers = np.random.default_rng([seed, epoch, row])
    # One generator for all transforms of a call: with `Compose(seed=…)` they would all draw the same numbers.
    pipeline.set_random_state(numbers, random.Random(int(numbers.integers(2**63))))


def check_image(
    image: Any, image_size: tuple[int, int], key: str = "augment", dtype: np.dtype[Any] = EIGHT_BITS
) -> None:
    """Checks the output of the transforms in setting `key`.

    Args:
        image: The output.
        image_size: Height and width that it must have.
        key: The setting.
        dtype: Type that it must have: uint8, or float32 for values in 0–1.

    Raises:
        InputError: The image is not of `dtype`, of shape (H, W, 3), at `image_size`, or in 0–1.
    """
    expected = (*image_size, 3)
    if not isinstance(image, np.ndarray):
        raise InputError(f"data.{key} ends in a tensor; remove A.ToTensorV2, batches are made from uint8 arrays.")
    if image.dtype != dtype:
        raise InputError(
            f"data.{key} ends in {image.dtype}, not {dtype}; remove A.Normalize and A.ToFloat, the task normalises on "
            f"the device with the backbone's own mean and deviation."
        )
    if image.shape != expected:
        raise InputError(
            f"data.{key} ends in shape {image.shape}, not {expected}; end it with "
            f"A.Resize(height={image_size[0]}, width={image_size[1]}) or a crop of that size."
        )
    if dtype == np.float32 and not (image.min() > -OVERSHOOT and image.max() < 1 + OVERSHOOT):  # also true for NaN
        raise InputError(
            f"data.{key} ends in values from {image.min():g} to {image.max():g}; with data.loading.image_rules.keep "
            f"they must be in 0–1: remove A.Normalize and A.FromFloat."
        )


def _resize(image_size: tuple[int, int], rule: Resize) -> list[TransformType]:
    height, width = image_size
    area: Any = {"area_for_downscale": "image"}  # averages all pixels when shrinking, against aliasing
    area |= {"mask_interpolation": cv2.INTER_NEAREST_EXACT}  # of pixel centres, as the image is resized
    if rule == "squash":
        return [A.Resize(height, width, **area)]
    if rule == "crop":
        return [A.SmallestMaxSize(max_size_hw=image_size, **area), A.CenterCrop(height, width)]
    return [A.LongestMaxSize(max_size_hw=image_size, **area), A.PadIfNeeded(height, width)]


def _light(image_size: tuple[int, int]) -> list[TransformType]:
    return [A.HorizontalFlip(p=0.5)]


HEAVY_SCALE = (0.5, 1.0)  # fraction of the area that evaluation sees
MIRROR = cv2.BORDER_REFLECT_101  # black borders would reveal the transform to the network


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
        _holes(),
    ]


def _heavy_on_floats(image_size: tuple[int, int]) -> list[TransformType]:
    """`heavy` without transforms that albumentations computes in uint8."""
    unchanged = (1.0, 1.0)
    return [
        *_medium(image_size),
        # The same turn of the hue: 10 of 180.
        A.ColorJitter(unchanged, unchanged, saturation=(0.85, 1.15), hue=(-10 / 180, 10 / 180), p=0.5),
        A.GaussianBlur(sigma_limit=(0.3, 1.5), p=0.15),
        _holes(),
    ]


def _holes() -> TransformType:
    return A.CoarseDropout(num_holes_range=(1, 3), hole_height_range=(0.05, 0.2), hole_width_range=(0.05, 0.2), p=0.4)


# Transforms after resizing; the preset `crop` has none.
PRESETS: dict[str, Callable[[tuple[int, int]], list[TransformType]]] = {
    "none": lambda image_size: [],
    "light": _light,
    "medium": _medium,
    "heavy": _heavy,
    "randaugment": lambda image_size: [*_light(image_size), RandAugment()],
    "trivialaugment": lambda image_size: [*_light(image_size), TrivialAugment()],
    "augmix": lambda image_size: [*_light(image_size), AugMix()],
}


def every_transform(transforms: Sequence[TransformType]) -> Iterator[TransformType]:
    """All transforms of a list, nested ones included."""
    for transform in transforms:
        yield transform
        yield from every_transform(getattr(transform, "transforms", []))


def mistyped(key: str, transforms: str | Sequence[TransformType]) -> list[str]:
    """Unknown arguments of a setting's transforms, one sentence each; albumentations itself only warns."""
    if isinstance(transforms, str):  # a preset
        return []
    return [
        f"data.{key}: {type(transform).__name__} has no argument '{name}'."
        for transform in every_transform(transforms)
        for name in getattr(transform, "invalid_args", [])
    ]


class Preprocessing:
    """Custom transforms that training and evaluation both apply first.

    Args:
        transforms: Deterministic albumentations transforms.
    """

    def __init__(self, transforms: Sequence[TransformType]) -> None:
        self.pipeline = A.Compose(list(transforms))

    def __call__(self, image: Image) -> Image:
        """Transforms an image (H, W, 3); the size may change."""
        result: Image = self.pipeline(image=image)["image"]
        return result

    def both(self, image: Image, masks: Masks | None) -> tuple[Image, Masks | None]:
        """The same of an image and its masks (H, W, K), if there are any."""
        return (self(image), None) if masks is None else _both(self.pipeline, image, masks)
