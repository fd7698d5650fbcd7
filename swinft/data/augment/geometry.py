"""Augmentation parameters of a row for `augment_on: device`: an affine map, and brightness and contrast.

They equal what `pipelines.apply` and `crops.random_crop` draw on the CPU for the same (seed, epoch, row). No pixel is
needed to draw them.

A map goes from output to image coordinates. In both, x and y run from −1 at the left and upper edge to 1 at the right
and lower edge.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import albumentations as A
import numpy as np
from numpy.typing import NDArray

from swinft.data.augment.crops import ANTIALIASED_FROM, RandomCrop, Resize
from swinft.data.augment.pipelines import PRESETS, Image, apply, eval_pipeline, set_seed

DevicePreset = Literal["none", "light", "medium", "crop"]
UNCHANGED = np.array([1, 0], dtype=np.float32)
ONCE = np.ones(2, dtype=np.int64)
# Brightness is drawn as a fraction of the image's mean, which is 1 here: the result is the fraction.
ONE = np.ones((1, 1, 3), dtype=np.uint8)


class AugmentParams(NamedTuple):
    """Random augmentation parameters of a row.

    Args:
        matrix: The affine map, float32 (2, 3).
        colour: Factor of every value, and the fraction of the image's mean that is added then, float32 (2,).
        samples: Numbers of samples along y and x that are averaged for each output pixel, int64 (2,): more than one
            where the image is shrunk much.
    """

    matrix: NDArray[np.float32]
    colour: NDArray[np.float32] = UNCHANGED
    samples: NDArray[np.int64] = ONCE


@dataclass(frozen=True)
class CropGeometry:
    """The preset `crop`: images are stored unchanged, and a random part of each is sampled.

    Args:
        crop: The preset.
    """

    crop: RandomCrop

    @property
    def is_black_outside(self) -> bool:
        """Whether the outside of an image is black; otherwise it is mirrored."""
        return self.crop.resize == "pad"

    def stored_shapes(self, shapes: NDArray[np.int32]) -> NDArray[np.int32]:
        """Height and width at which images are stored, in pixels, (N, 2)."""
        return shapes

    def stored(self, image: Image) -> Image:
        """The stored form of an image, uint8 (H, W, 3)."""
        return image

    def draw(self, shape: tuple[int, int], seed: int, epoch: int, row: int) -> AugmentParams:
        """The parameters for an image of `shape`, its height and width in pixels."""
        box, is_flipped = self.crop.draw(*shape, seed, epoch, row)
        top, left, height, width = (length / side for length, side in zip(box, (*shape, *shape), strict=True))
        x_slope = -width if is_flipped else width
        matrix = [[x_slope, 0, 2 * left + width - 1], [0, height, 2 * top + height - 1]]
        factors = (box.height / self.crop.image_size[0], box.width / self.crop.image_size[1])
        # As on the CPU: if one side needs antialiasing, both get it.
        samples = [math.ceil(factor) for factor in factors] if max(factors) > ANTIALIASED_FROM else ONCE
        return AugmentParams(np.array(matrix, dtype=np.float32), samples=np.asarray(samples, dtype=np.int64))


@dataclass(frozen=True)
class ResizeGeometry:
    """The presets that resize first: images are stored as evaluation sees them.

    Args:
        preset: Name of the preset.
        image_size: Height and width in pixels.
        resize: The resize rule.
    """

    preset: Literal["none", "light", "medium"]
    image_size: tuple[int, int]
    resize: Resize
    pipeline: A.Compose = field(init=False, repr=False)
    resizing: A.Compose = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pipeline", A.Compose(PRESETS[self.preset](self.image_size)))
        object.__setattr__(self, "resizing", eval_pipeline(self.image_size, self.resize))

    @property
    def is_black_outside(self) -> bool:
        """As for `CropGeometry`."""
        return False

    def stored_shapes(self, shapes: NDArray[np.int32]) -> NDArray[np.int32]:
        """As for `CropGeometry`: all at one size."""
        return np.tile(np.array(self.image_size, dtype=np.int32), (len(shapes), 1))

    def stored(self, image: Image) -> Image:
        """The image resized by the rule."""
        return apply(self.resizing, image, 0, 0, 0)  # draws nothing

    def draw(self, shape: tuple[int, int], seed: int, epoch: int, row: int) -> AugmentParams:
        """The parameters for a resized image; its original shape does not matter."""
        set_seed(self.pipeline, seed, epoch, row)
        self.pipeline.py_random.random()  # Compose draws first whether it runs
        forward, colour = np.eye(3), UNCHANGED
        for transform in self.pipeline.transforms:
            assert isinstance(transform, A.BasicTransform)  # no preset here nests another Compose
            if not transform.should_apply():
                continue
            given = {**transform.get_params(), "shape": (*self.image_size, 3)}
            params = transform.get_params_dependent_on_data(given, {"image": ONE})
            if isinstance(transform, A.RandomBrightnessContrast):
                colour = np.array([params["alpha"], params["beta"]], dtype=np.float32)
            else:
                forward = self._pixel_map(transform, params) @ forward
        edges = self._edges()
        matrix = edges @ np.linalg.inv(forward) @ np.linalg.inv(edges)
        return AugmentParams(matrix[:2].astype(np.float32), colour)

    def _pixel_map(self, transform: Any, params: dict[str, Any]) -> NDArray[np.float64]:
        """A transform's map (3, 3) from input to output pixels, with pixel centres at whole numbers."""
        if isinstance(transform, A.Affine):
            return np.asarray(params["matrix"], dtype=np.float64)
        assert isinstance(transform, A.HorizontalFlip)  # these presets have no other
        return np.array([[-1, 0, self.image_size[1] - 1], [0, 1, 0], [0, 0, 1]], dtype=np.float64)

    def _edges(self) -> NDArray[np.float64]:
        """From pixel index to −1…1 between the edges of the image, (3, 3)."""
        height, width = self.image_size
        return np.array([[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]])


Geometry = CropGeometry | ResizeGeometry


def make_geometry(preset: DevicePreset, image_size: tuple[int, int], resize: Resize) -> Geometry:
    """The geometry of a preset that a device can compute.

    Args:
        preset: Name of the preset.
        image_size: Output height and width in pixels.
        resize: As in `pipelines.eval_pipeline`.
    """
    return (
        CropGeometry(RandomCrop(image_size, resize)) if preset == "crop" else ResizeGeometry(preset, image_size, resize)
    )
