"""A user's transforms are tried on the data's own extreme images, before a run is frozen.

Shapes: N rows.
"""

from collections.abc import Mapping

import albumentations as A
import numpy as np
from albumentations.core.composition import TransformType
from numpy.typing import NDArray

from swinft.data.augment.pipelines import Image, Preprocessing, apply, check_image, every_transform, set_seed
from swinft.data.images.resize import min_shrunk_shape
from swinft.data.loading.dataset import ImageDataset
from swinft.data.sources.source import ImageError
from swinft.errors import InputError

TRIES = 8  # on each image: what is drawn decides whether some transforms fail
RANDOM_TRIES = 6  # by which a transform that draws is told from one that does not
MIN_NOISE_SIDE = 256  # pixels of a side; in tiles of a small image an equalisation has nothing to clip


def extreme_images(shapes: NDArray[np.int32]) -> dict[int, str]:
    """Rows of the images by which most transforms fail if by any, with what is extreme of each.

    Args:
        shapes: Height and width of the images in pixels, (N, 2); 0 × 0 where one cannot be used.
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
    """Runs the user's transforms on images of a dataset.

    Args:
        dataset: Its pipeline is the user's where `tries_augment`.
        rows: Which rows, and what is special about the image of each; one that cannot be decoded is passed over.
        tries_augment: Whether the pipeline is tried, or the preprocessing alone.

    Raises:
        InputError: One fails, or does not end in what a batch can hold. The message names row and image.
    """
    is_first = True
    for row, what in rows.items():
        try:
            image = dataset.decoded(row)
        except ImageError:
            continue
        try:
            if dataset.preprocess is not None:
                image = _preprocessed(dataset.preprocess, image, checks_draws=is_first)
            if tries_augment:
                _try_augment(dataset, image)
        except InputError as error:
            raise InputError(f"{error}\n  It was tried on the {what} image, id '{dataset.names.ids[row]}'.") from error
        is_first = False


def transform_notes(augment: object, resize: str, shrink: object, shrunk_for: tuple[int, int] | None) -> list[str]:
    """What a user's transforms see, and what evaluation sees of them; one sentence each.

    Args:
        augment: `data.augment`, a list or a preset beside the user's preprocessing.
        resize: `data.loading.resize`.
        shrink: `data.loading.shrink`.
        shrunk_for: Height and width of training in pixels, where images are shrunk to what it needs.
    """
    notes = []
    if not isinstance(augment, str):
        notes.append(
            f"evaluation does not run data.augment: it resizes ({resize}) after data.loading.preprocess, which is "
            f"for what both are to see."
        )
    if shrunk_for is not None:
        height, width = min_shrunk_shape(shrunk_for)
        notes.append(
            f"data.loading.shrink is true: your transforms see images shrunk to cover {height} × {width} pixels, and "
            f"lengths in pixels count on these. With auto they see every pixel."
        )
    elif shrink == "auto":
        notes.append(
            "your transforms see every pixel, so that images are decoded in each epoch. Where no length in pixels "
            "depends on it, data.loading.shrink: true is many times faster."
        )
    return notes


def _try_augment(dataset: ImageDataset, image: Image) -> None:
    for number in range(TRIES):
        try:
            result = apply(dataset.pipeline, image, seed=0, epoch=0, row=number)
        except Exception as error:  # whatever a transform does not like about its arguments or the image
            raise InputError(f"data.augment fails on an image of shape {image.shape}: {error}") from error
        check_image(result, dataset.image_size)


def _preprocessed(preprocess: Preprocessing, image: Image, checks_draws: bool) -> Image:
    try:
        drawing = _drawing(preprocess, image.shape) if checks_draws else []
        result = preprocess(image)
    except Exception as error:
        raise InputError(f"data.loading.preprocess fails on an image of shape {image.shape}: {error}") from error
    if drawing:
        raise InputError(
            f"data.loading.preprocess draws at random: {', '.join(drawing)}. Evaluation would not see what training "
            f"sees. Set p to 1 and ranges to one value ([4, 4]), or put it into data.augment."
        )
    shape = result.shape[:2] if isinstance(result, np.ndarray) else ()
    check_image(result, (shape[0], shape[1]) if len(shape) == 2 else (0, 0), "loading.preprocess")
    return result


def _drawing(preprocess: Preprocessing, shape: tuple[int, ...]) -> list[str]:
    """Names of the transforms that draw: they may be left out, or change noise differently each time."""
    size = (max(shape[0], MIN_NOISE_SIDE), max(shape[1], MIN_NOISE_SIDE), 3)
    # Uniform noise has nothing that an equalisation would change: this is a slope with some noise on it.
    slope = np.linspace(60, 190, size[1])[:, None] + np.array([0, 10, 20])
    image = np.random.default_rng(0).normal(slope, 8, size).clip(0, 255).astype(np.uint8)
    found = []
    for transform in preprocess.pipeline.transforms:
        results = [_alone(transform, image, seed) for seed in range(RANDOM_TRIES)]
        may_rest = any(getattr(one, "p", 1) < 1 for one in every_transform([transform]))
        if may_rest or any(not np.array_equal(results[0], other) for other in results[1:]):
            found.append(type(transform).__name__)
        image = results[0]
    return found


def _alone(transform: TransformType, image: Image, seed: int) -> Image:
    pipeline = A.Compose([transform])
    set_seed(pipeline, seed, 0, 0)
    result: Image = pipeline(image=image)["image"]
    return result
