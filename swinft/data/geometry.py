"""What a preset draws for a row, as numbers: one affine map and one change of brightness and contrast.

This is how the presets that a device can compute (`device.py`) get there. They draw what `augment.apply` and
`crops.random_crop` draw for the same (seed, epoch, row); no pixel is touched while drawing.

A map goes from a pixel of the result to the picture. In both, x and y run from −1 at the left and upper edge to 1 at
the right and lower one: the same map then serves a picture at any size that it is stored at.
"""

from dataclasses import dataclass, field
from typing import Any, Literal

import albumentations as A
import numpy as np
from numpy.typing import NDArray

from swinft.data.augment import PRESETS, Image, Resize, apply, eval_pipeline, set_seed
from swinft.data.crops import RandomCrop, drawn_crop
from swinft.data.shrink import resized

DevicePreset = Literal["none", "light", "medium", "crop"]
# `matrix` (2, 3), and `colour`: the factor of every value, and how much of the image's mean is added after that.
Drawn = tuple[NDArray[np.float32], NDArray[np.float32]]
UNCHANGED = np.array([1, 0], dtype=np.float32)
# Brightness is drawn as a share of the image's mean, which is 1 here: what comes out is the share.
ONE = np.ones((1, 1, 3), dtype=np.uint8)


@dataclass(frozen=True)
class Crops:
    """The preset `crop`: pictures are stored as they are, all at one size, and a part of each is drawn.

    Args:
        crop: The preset.
    """

    crop: RandomCrop

    def stored_shape(self, shapes: NDArray[np.int32]) -> tuple[int, int]:
        """Height and width to store pictures at, in pixels: the medians, which are those of all where all are equal.

        Args:
            shapes: Of the pictures, (N, 2).
        """
        height, width = np.median(shapes, axis=0).round().astype(int).tolist()
        return height, width

    def stored(self, picture: Image, shape: tuple[int, int]) -> Image:
        """The picture (H, W, 3) at a height and width, antialiased where a side is shrunk."""
        return picture if picture.shape[:2] == shape else resized(picture, *shape)

    def draw(self, shape: tuple[int, int], seed: int, epoch: int, row: int) -> Drawn:
        """The part of a picture whose height and width are `shape`, in pixels, before it is stored."""
        box, is_flipped = drawn_crop(*shape, seed, epoch, row, self.crop.scale)
        top, left, height, width = (length / side for length, side in zip(box, (*shape, *shape), strict=True))
        x_slope = -width if is_flipped else width
        matrix = [[x_slope, 0, 2 * left + width - 1], [0, height, 2 * top + height - 1]]
        return np.array(matrix, dtype=np.float32), UNCHANGED


@dataclass(frozen=True)
class Resized:
    """The presets that resize first: pictures are stored as the network would see them without augmentation.

    Args:
        preset: Its name.
        image_size: Height and width in pixels.
        resize: The rule.
    """

    preset: Literal["none", "light", "medium"]
    image_size: tuple[int, int]
    resize: Resize
    pipeline: A.Compose = field(init=False, repr=False)
    resizing: A.Compose = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "pipeline", A.Compose(PRESETS[self.preset](self.image_size)))
        object.__setattr__(self, "resizing", eval_pipeline(self.image_size, self.resize))

    def stored_shape(self, shapes: NDArray[np.int32]) -> tuple[int, int]:
        """Height and width to store pictures at, in pixels, whatever theirs are."""
        return self.image_size

    def stored(self, picture: Image, shape: tuple[int, int]) -> Image:
        """The picture (H, W, 3) resized by the rule."""
        return apply(self.resizing, picture, 0, 0, 0)  # draws nothing

    def draw(self, shape: tuple[int, int], seed: int, epoch: int, row: int) -> Drawn:
        """What the preset does to a resized picture; the shape before that does not matter."""
        set_seed(self.pipeline, seed, epoch, row)
        self.pipeline.py_random.random()  # Compose draws whether to run at all
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
        return matrix[:2].astype(np.float32), colour

    def _pixel_map(self, transform: Any, params: dict[str, Any]) -> NDArray[np.float64]:
        """A transform's map (3, 3) from a pixel of its input to one of its result, counted from pixel centres."""
        if isinstance(transform, A.Affine):
            return np.asarray(params["matrix"], dtype=np.float64)
        assert isinstance(transform, A.HorizontalFlip)  # there is no other in these presets
        return np.array([[-1, 0, self.image_size[1] - 1], [0, 1, 0], [0, 0, 1]], dtype=np.float64)

    def _edges(self) -> NDArray[np.float64]:
        """From a pixel's number to −1…1 between the edges of the image, (3, 3)."""
        height, width = self.image_size
        return np.array([[2 / width, 0, 1 / width - 1], [0, 2 / height, 1 / height - 1], [0, 0, 1]])


Geometry = Crops | Resized


def make_geometry(preset: DevicePreset, image_size: tuple[int, int], resize: Resize) -> Geometry:
    """The geometry of a preset that a device can compute.

    Args:
        preset: Its name.
        image_size: Height and width of what comes out, in pixels.
        resize: As in `augment.eval_pipeline`; `crop` has no use for it.
    """
    return Crops(RandomCrop(image_size)) if preset == "crop" else Resized(preset, image_size, resize)
