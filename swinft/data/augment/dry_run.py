"""Runs custom transforms on the most extreme images of the data, before a run is frozen.

Shapes: N rows.
"""

import copy
from collections.abc import Mapping

import albumentations as A
import numpy as np
from albumentations.core.composition import TransformType
from numpy.typing import NDArray

from swinft.data.augment.pipelines import Image, Preprocessing, apply, check_image, every_transform, set_seed
from swinft.data.images.depth import as_unit
from swinft.data.images.resize import min_shrunk_shape
from swinft.data.loading.dataset import ImageDataset
from swinft.data.loading.mask_dataset import MaskDataset
from swinft.data.sources.source import ImageError
from swinft.errors import InputError

TRIES = 8  # per image: whether a transform fails may depend on its random parameters
RANDOM_TRIES = 6  # to tell a random transform from a deterministic one
MIN_NOISE_SIDE = 256  # pixels; equalisation changes nothing in the tiles of a smaller image


def extreme_images(shapes: NDArray[np.int32]) -> dict[int, str]:
    """Rows of the images on which transforms fail most likely, each with what is extreme about it.

    Args:
        shapes: Height and width of the images in pixels, (N, 2); 0 × 0 for unusable images.
    """
    rows = np.flatnonzero(shapes.min(axis=1) > 0)
    if not len(rows):
        return {}
    height, width = shapes[rows].astype(np.float64).T
    measures = {"smallest": height * width, "lowest": height, "narrowest": width, "tallest": width / height}
    measures |= {"widest": height / width, "largest": -height * width}
    found: dict[int, str] = {}
    for name, measure in measures.items():
        found.setdefault(int(rows[measure.argmin()]), name)
    return found


def try_transforms(dataset: ImageDataset, rows: Mapping[int, str], tries_augment: bool) -> None:
    """Runs custom transforms on images of a dataset.

    Args:
        dataset: With `tries_augment`, its pipeline is custom.
        rows: Rows, each with what is special about its image; images that cannot be decoded are skipped.
        tries_augment: Try the pipeline too, not only the preprocessing.

    Raises:
        InputError: A transform fails, or its output is not a valid image. The message names row and image.
    """
    is_first = True
    for row, what in rows.items():
        try:
            images = [image for _, image in dataset.decoded_images(row)]
        except ImageError:
            continue
        try:
            if is_first and dataset.images.rules.keep:
                _check_levels(dataset, tries_augment)
            for image in map(dataset.images.rules.for_transforms, images):
                if dataset.preprocess is not None:
                    image = _preprocessed(dataset.preprocess, image, checks_draws=is_first)
                if tries_augment:
                    _try_augment(dataset, image)
        except InputError as error:
            raise InputError(f"{error}\n  It was tried on the {what} image, id '{dataset.names.ids[row]}'.") from error
        is_first = False


def transform_notes(augment: object, resize: str, shrink: object, shrunk_for: tuple[int, int] | None) -> list[str]:
    """Notes on the input of custom transforms, and on evaluation; one sentence each.

    Args:
        augment: `data.augment`: a list, or a preset together with custom preprocessing.
        resize: `data.loading.resize`.
        shrink: `data.loading.shrink`.
        shrunk_for: Training height and width in pixels if images are shrunk for it, else None.
    """
    notes = []
    if not isinstance(augment, str):
        notes.append(
            f"evaluation does not run data.augment: it resizes ({resize}) after data.loading.preprocess, which "
            f"training and evaluation both run."
        )
    if shrunk_for is not None:
        height, width = min_shrunk_shape(shrunk_for)
        notes.append(
            f"data.loading.shrink is true: your transforms see images shrunk to cover {height} × {width} pixels; "
            f"lengths in pixels refer to these. With auto they see full-size images."
        )
    elif shrink == "auto":
        notes.append(
            "your transforms see full-size images, which are decoded again in each epoch. If none of them uses lengths "
            "in pixels, set data.loading.shrink to true: it is many times faster."
        )
    return notes


def _try_augment(dataset: ImageDataset, image: Image) -> None:
    image = dataset.tried(image) if isinstance(dataset, MaskDataset) else image
    for number in range(TRIES):
        try:
            result = apply(dataset.pipeline, image, seed=0, epoch=0, row=number)
        except Exception as error:  # transforms raise anything
            raise InputError(f"data.augment fails on an image of {_form(image)}: {error}") from error
        check_image(result, dataset.image_size, dtype=dataset.dtype)


def _form(image: Image) -> str:
    kept = " in float32 (data.loading.image_rules.keep)" if image.dtype == np.float32 else ""
    return f"shape {image.shape}{kept}"


def _preprocessed(preprocess: Preprocessing, image: Image, checks_draws: bool) -> Image:
    try:
        drawing = _drawing(preprocess, image) if checks_draws else []
        result = preprocess(image)
    except Exception as error:
        raise InputError(f"data.loading.preprocess fails on an image of {_form(image)}: {error}") from error
    if drawing:
        raise InputError(
            f"data.loading.preprocess draws at random: {', '.join(drawing)}. Evaluation would not see what training "
            f"sees. Set p to 1 and ranges to one value ([4, 4]), or move it to data.augment."
        )
    shape = result.shape[:2] if isinstance(result, np.ndarray) else ()
    check_image(result, (shape[0], shape[1]) if len(shape) == 2 else (0, 0), "loading.preprocess", image.dtype)
    return result


def _check_levels(dataset: ImageDataset, tries_augment: bool) -> None:
    """Checks that no custom transform reduces images to 8 bits, of which albumentations only says so in its code.

    Raises:
        InputError: Some do.
    """
    custom = [] if dataset.preprocess is None else [("loading.preprocess", dataset.preprocess.pipeline)]
    custom += [("augment", dataset.pipeline)] if tries_augment and isinstance(dataset.pipeline, A.Compose) else []
    noise = np.random.default_rng(0).normal(_slope(MIN_NOISE_SIDE) / 255, 0.03).clip(0, 1).astype(np.float32)
    problems = [
        f"data.{key}: {type(transform).__name__} computes on 8 bits, and data.loading.image_rules.keep is "
        f"{dataset.images.rules.keep}; remove one of the two."
        for key, pipeline in custom
        for transform in every_transform(pipeline.transforms)
        if isinstance(transform, A.BasicTransform) and _loses_levels(transform, noise)
    ]
    if problems:
        raise InputError("\n  ".join(problems))


def _loses_levels(transform: TransformType, image: Image) -> bool:
    """Whether a transform of float32 in 0–1 ever returns only levels that uint8 has too; failures are found later."""
    try:
        certain = copy.deepcopy(transform)
        certain.p = 1.0
        results = [255 * np.asarray(_alone(certain, image, seed), dtype=np.float64) for seed in range(RANDOM_TRIES)]
    except Exception:  # transforms raise anything
        return False
    return any(np.ptp(levels) > 0 and np.abs(levels - np.rint(levels)).max() < 1e-3 for levels in results)


def _slope(width: int, height: int = MIN_NOISE_SIDE) -> NDArray[np.float64]:
    """A gradient in three colours: equalisation would change nothing in uniform noise."""
    row = np.linspace(60, 190, width)[:, None] + np.array([0, 10, 20])
    return np.broadcast_to(row, (height, width, 3))


def _drawing(preprocess: Preprocessing, like: Image) -> list[str]:
    """Names of the random transforms: those with p below 1, or whose results differ between seeds."""
    height, width = (max(side, MIN_NOISE_SIDE) for side in like.shape[:2])
    image: Image = np.random.default_rng(0).normal(_slope(width, height), 8).clip(0, 255).astype(np.uint8)
    image = image if like.dtype == np.uint8 else as_unit(image)
    found = []
    for transform in preprocess.pipeline.transforms:
        results = [_alone(transform, image, seed) for seed in range(RANDOM_TRIES)]
        may_be_skipped = any(getattr(one, "p", 1) < 1 for one in every_transform([transform]))
        if may_be_skipped or any(not np.array_equal(results[0], other) for other in results[1:]):
            found.append(type(transform).__name__)
        image = results[0]
    return found


def _alone(transform: TransformType, image: Image, seed: int) -> Image:
    pipeline = A.Compose([transform])
    set_seed(pipeline, seed, 0, 0)
    result: Image = pipeline(image=image)["image"]
    return result
