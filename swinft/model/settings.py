"""Settings of a task: how it computes, and its context from the data and the run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from swinft.errors import InputError
from swinft.model.attention.swin import FAST_ATTENTION, FastAttention
from swinft.model.backbones.feature_maps import padded_size
from swinft.model.backbones.timm_backbone import RGB, Channels
from swinft.model.compiling import CompilePolicy


@dataclass(frozen=True)
class ComputeConfig:
    """How a network is computed; results differ only by rounding.

    Args:
        fast_attention: Compute Swin's window attention faster, with the same result; it is compared with timm's on the
            device before it is used. Other backbones are not changed. `auto` selects the fastest by a timed trial
            (once for training, once for prediction) if the training is long; otherwise it is the same as true. False
            for timm's computation, "fused" for timm's with torch's fused function, on Swin V1 only.
        compile: Compile the backbone with `torch.compile`: faster steps on GPUs, after a minute or more at the start of
            every fold. `auto` compiles on CUDA for folds of 2,000 optimiser steps or more.
        grad_checkpointing: Recompute activations in the backward pass: less memory, about a third slower.
    """

    fast_attention: FastAttention = "auto"
    compile: CompilePolicy = False
    grad_checkpointing: bool = False

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.fast_attention not in FAST_ATTENTION:
            raise InputError(
                f"model.compute.fast_attention is {self.fast_attention!r}; it must be auto, true, false or 'fused'."
            )
        if self.compile not in (True, False, "auto"):
            raise InputError(f"model.compute.compile is {self.compile!r}; it must be true, false or 'auto'.")


@dataclass(frozen=True)
class TaskContext:
    """What a task knows of its data and run; `swinft fit` and a CSVDataModule fill it in.

    Args:
        image_size: Side, or height and width, in pixels; None for the datamodule's, or 224.
        num_metadata: F, the number of metadata features; None for the datamodule's, or 0.
        category_sizes: Number of one-hot columns of each category column; they are the last of the features.
        seed: Seed of the random numbers in a training step.
        num_images: V, the number of images of a row; None if the network gets one.
        num_channels: C of the images; None for the datamodule's, or RGB.
        are_grey: Each channel is a grey image.
        loads_weights: False if a checkpoint's weights will replace the `pretrained` ones, which are then not loaded.
        auxiliary: The auxiliary targets, as in `swinft.model.auxiliary.AuxiliaryHeads`.
        has_gaps: Whether some rows lack some targets, −1 or NaN, which are masked in the loss.
        are_maps: Whether targets are masks: the network pads images to sides that are multiples of 32.
    """

    image_size: int | tuple[int, int] | None = None
    num_metadata: int | None = None
    category_sizes: Sequence[int] = ()
    seed: int = 42
    loads_weights: bool = True
    num_images: int | None = None
    num_channels: int | None = None
    are_grey: bool = False
    auxiliary: Sequence[Mapping[str, Any]] = ()
    has_gaps: bool = False
    are_maps: bool = False

    @property
    def shown(self) -> tuple[tuple[int, int], int | None]:
        """Height and width of the images, and V."""
        return self.sides, self.num_images

    @property
    def padded_sides(self) -> tuple[int, int]:
        """Height and width of what the backbone is given."""
        return padded_size(self.sides) if self.are_maps else self.sides

    @property
    def channels(self) -> Channels:
        """Of the images."""
        return Channels(self.num_channels or RGB.count, self.are_grey)

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width.

        Raises:
            InputError: There are not two.
        """
        size = 224 if self.image_size is None else self.image_size
        sides = (size, size) if isinstance(size, int) else tuple(size)
        if len(sides) != 2:
            raise InputError(f"image_size is {size}; give one side, or height and width, in pixels.")
        return sides[0], sides[1]

    def completed(self, schema: Any, data: Any = None) -> "TaskContext":
        """A copy where unset values come from a table's schema and a datamodule's images."""
        found: dict[str, Any] = {"image_size": self.image_size or getattr(data, "image_size", None) or 224}
        images = getattr(getattr(data, "settings", None), "image", None)
        if images is not None and self.num_images is None and self.num_channels is None:
            found |= images.for_network
        if self.num_metadata is None:
            sizes = list(schema.category_sizes) if schema else list(self.category_sizes)
            found |= {"num_metadata": schema.num_features if schema else sum(sizes), "category_sizes": sizes}
        if schema is not None and not self.auxiliary:
            found |= {"auxiliary": schema.auxiliary_heads, "has_gaps": schema.has_gaps}
        found |= {"are_maps": schema.base.are_maps} if schema is not None else {}
        return replace(self, **found)
