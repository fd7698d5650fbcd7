"""Progressive image sizes: the first epochs are trained on smaller images, on one network.

Shapes: B batch, H and W pixels.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from swinft.errors import InputError
from swinft.model.backbones.input_size import scaled_windows
from swinft.ranges import COUNT, SIDE, check_ranges

KEY = "model.optim.sizes"
Size = tuple[int, int]


@dataclass(frozen=True)
class SizeStage:
    """Some epochs at a smaller image size.

    Args:
        size: Side, or height and width, in pixels; at most `data.image_size`, to which images are loaded and from which
            they are shrunk on the device.
        epochs: How many epochs, virtual ones where `data.loading.virtual_epochs` is set.
    """

    size: int | tuple[int, int]
    epochs: int

    def __post_init__(self) -> None:
        """Checks the ranges."""
        sides = (self.size, self.size) if isinstance(self.size, int) else tuple(self.size)
        object.__setattr__(self, "size", sides[0] if len(set(sides)) == 1 else sides)
        check_ranges(KEY, {"size": sides, "epochs": self.epochs}, {"size": SIDE, "epochs": COUNT})
        if len(sides) != 2:
            raise InputError(f"{KEY}.size is {list(sides)}; give one side, or height and width, in pixels.")

    @property
    def sides(self) -> Size:
        """Height and width."""
        return (self.size, self.size) if isinstance(self.size, int) else (self.size[0], self.size[1])


class SizeSchedule:
    """The image size of every epoch, and the network at it.

    Weights are the same at every size: a network whose weights depend on it, as Swin V1's tables of relative positions
    and a ViT's table of positions do, is refused.

    Args:
        model: timm's model, or a custom one, at `last`.
        stages: The sizes of the first epochs.
        last: Height and width of the other epochs, and of validation.
        is_free: Whether neither compilation nor a faster attention has settled for one size.

    Raises:
        InputError: A size is larger than the last one, or the network does not work at it with the same weights.
    """

    def __init__(self, model: Any, stages: Sequence[SizeStage], last: Size, is_free: bool) -> None:
        self._model, self._stages, self._last = model, list(stages), last
        self._now = last
        self._windows: dict[Size, Any] = {}  # of models with windows, by image size
        for stage in self._stages:
            self._check(stage.sides, is_free)

    def size(self, epoch: int) -> Size:
        """Height and width of an epoch, counted from 0."""
        for stage in self._stages:
            epoch -= stage.epochs
            if epoch < 0:
                return stage.sides
        return self._last

    def shrink(self, images: Tensor) -> Tensor:
        """Images (…, H, W) at the size that is set; those of the last size are returned as they are."""
        return images if self._now == self._last else at_size(images, self._now)

    def set(self, epoch: int | None) -> bool:
        """Brings the network to the size of an epoch, or to the last one for None.

        Returns:
            Whether it was at another size.
        """
        size = self._last if epoch is None else self.size(epoch)
        if size == self._now:
            return False
        self._now = size
        if self._windows:
            self._model.set_input_size(img_size=size, window_size=self._windows[size])
        return True

    def _check(self, size: Size, is_free: bool) -> None:
        shown = f"{size[0]} x {size[1]} px"
        if any(side > most for side, most in zip(size, self._last, strict=True)):
            raise InputError(f"{KEY} has {shown}, more than data.image_size, which is the largest: set that to more.")
        windows = scaled_windows(self._model, self._last, size)
        if windows is not None:
            if not is_free:
                raise InputError(
                    f"{KEY} changes windows from size to size, which model.compute.fast_attention and compile cannot: "
                    "set both to false."
                )
            self._windows = {self._last: scaled_windows(self._model, self._last, self._last), **self._windows}
            self._windows[size] = windows
        reason = _reason_against(self._model, size, windows)
        if reason:
            raise InputError(
                f"{KEY} has {shown}, and the backbone does not work at it with the weights of data.image_size: "
                f"{reason} Name a backbone whose weights do not depend on the size, such as ConvNeXt, EfficientNet or "
                "Swin V2."
            )


def at_size(images: Tensor, size: Size) -> Tensor:
    """Images (…, C, H, W) at a height and width, float in the same range; unchanged where they have this size."""
    if images.shape[-2:] == torch.Size(size):
        return images
    flat = images.flatten(0, -4).float()
    found = functional.interpolate(flat, size, mode="bilinear", antialias=True, align_corners=False)
    return found.view(*images.shape[:-2], *size)


def _reason_against(model: Any, size: Size, windows: Any) -> str:
    """Why a model does not work at a size with the same weights; empty where it does."""
    tried = copy.deepcopy(model).eval().cpu()
    if windows == []:
        return "no windows divide its grids."
    if windows is not None:
        shapes = {name: each.shape for name, each in tried.named_parameters()}
        tried.set_input_size(img_size=size, window_size=windows)
        if changed := [name for name, each in tried.named_parameters() if each.shape != shapes[name]]:
            return f"'{changed[0]}' would have another shape."
    try:
        with torch.inference_mode():
            features = tried(torch.zeros(1, 3, *size))
    except (RuntimeError, AssertionError, ValueError) as error:
        return f"{' '.join(str(error).split())}."
    return "" if math.isfinite(float(features.float().sum())) else "its features are not finite."
