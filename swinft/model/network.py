"""The network: backbone, optional pooling, optional metadata network, and head.

Shapes: B batch, N training rows, F metadata features, E encoded ones, K outputs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from swinft.errors import InputError
from swinft.model.backbones.timm_backbone import Backbone
from swinft.model.backbones.unpooled import pooled_width
from swinft.model.heads import Head
from swinft.model.heads.contract import with_nan_rows
from swinft.model.metadata import MetadataNetwork
from swinft.model.pooling import pooling_from


class ImageModel(nn.Module):
    """Backbone and head, with an optional pooling and an optional small network for metadata.

    Args:
        backbone: Images to embeddings.
        head: Builds the head from the embedding's width (with the metadata network's output) and K.
        num_outputs: K.
        num_metadata: F, or 0.
        metadata_hidden: Width of the metadata network.
        category_sizes: As in `MetadataNetwork`.
        pooling: As in `pooling_from`.
        image_size: Height and width in pixels at which a custom pooling is tested.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: Callable[[int, int], Head],
        num_outputs: int,
        num_metadata: int,
        metadata_hidden: int,
        category_sizes: Sequence[int] = (),
        pooling: Any = "avg",
        image_size: tuple[int, int] = (224, 224),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pooling = None if pooling == "avg" else pooling_from(pooling, int(backbone.model.num_features))
        # Some backbones widen the features after pooling: with another pooling, the width is found by a forward pass.
        own, pool = backbone.num_features, self.pooling
        self.width = own if pool is None else pooled_width(backbone.model, pool, image_size)
        self.metadata = MetadataNetwork(num_metadata, category_sizes, metadata_hidden) if num_metadata else None
        self.head = head(self.width + (metadata_hidden if num_metadata else 0), num_outputs)
        self.image_format: torch.memory_format | None = None  # set with that of the weights
        self.is_initialized = False  # by `initialize`, or by loading weights
        self.register_load_state_dict_post_hook(_mark_initialized)  # type: ignore[no-untyped-call]

    @property
    def learns_from_rows(self) -> bool:
        """Whether `initialize` must set statistics of the training rows: target units, class weights, metadata."""
        return self.metadata is not None or self.head.learns_from_targets

    def initialize(self, targets: Tensor, features: Tensor | None = None) -> None:
        """Computes the statistics of all training rows that head and metadata network need, before training.

        Args:
            targets: int64 (N,) for classification, else float (N, K).
            features: float (N, F) if there is metadata.

        Raises:
            InputError: The head rejects a target.
        """
        device = next(self.head.parameters(), torch.empty(0)).device
        self.head.initialize(targets.to(device))
        if self.metadata is not None and features is not None:
            self.metadata.initialize(features.cpu())
        self.is_initialized = True

    def check_initialized(self) -> None:
        """Checks that `initialize` was called if it is needed.

        Raises:
            InputError: It was not.
        """
        if self.learns_from_rows and not self.is_initialized:
            raise InputError(
                f"{type(self.head).__name__} or metadata must see the training rows before training, and there is "
                f"no datamodule with `training_targets`. Call task.initialize(targets, features) first, with the "
                f"targets and, if there is any, the metadata of all training rows."
            )

    def encode_metadata(self, features: Tensor | None) -> Tensor | None:
        """Metadata (B, F) to encoded metadata (B, E), in which rows can be mixed; None without metadata."""
        return None if self.metadata is None or features is None else self.metadata.encode(features)

    def logits(self, image: Tensor, metadata: Tensor | None) -> Tensor:
        """Pixels (B, 3, H, W) and encoded metadata (B, E) to logits."""
        if self.image_format is not None:
            image = image.contiguous(memory_format=self.image_format)
        embedding = self.backbone(image) if self.pooling is None else self.backbone(image, self.pooling)
        if torch._C._get_tracing_state() is None:  # in a trace, shapes are not numbers
            self._check_width(embedding, image.shape[0])  # len() would make it a constant in torch.export
        if self.metadata is not None:
            if metadata is None:
                raise InputError("the network takes metadata, and the batch has no `features`.")
            embedding = torch.cat([embedding, self.metadata.embed(metadata).to(embedding.dtype)], dim=1)
        logits: Tensor = self.head(embedding)
        return logits

    def _check_width(self, embedding: Any, size: int) -> None:
        """Checks that the embedding is (B, D): a custom backbone may return another width than its `num_features`."""
        shape = tuple(getattr(embedding, "shape", ()))
        if shape != (size, self.width):
            given = f"features {shape}" if shape else f"a {type(embedding).__name__}"
            name = type(getattr(self.backbone, "model", self.backbone)).__name__
            raise InputError(
                f"the backbone {name} returns {given} for {size} images, and its num_features is "
                f"{self.width}: it must return (B, num_features)."
            )

    def forward(self, image: Tensor, features: Tensor | None = None) -> Tensor:
        """Pixels (B, 3, H, W), uint8 or float in 0–255, and metadata (B, F) to logits."""
        return self.logits(image, self.encode_metadata(features))

    def predict(self, image: Tensor, features: Tensor | None = None) -> Tensor:
        """Images and metadata to predictions (B, K) in the competition's units; NaN in rows with a NaN logit."""
        logits = self(image, features)
        return with_nan_rows(self.head.decode(logits), logits)


def _mark_initialized(module: nn.Module, _: Any) -> None:
    module.is_initialized = True  # type: ignore[assignment]


def constant_buffers(task: nn.Module) -> list[str]:
    """Names of buffers that are equal on all ranks, which DDP need not broadcast.

    DDP broadcasts buffers before every forward pass: for a Swin and its averaged copy, several MB of position indices.
    Running statistics of BatchNorm differ by rank, and those of rank 0 must be broadcast.
    """
    names = [name for name, _ in task.named_buffers()]
    own = [name for name in names if ".backbone." in name and not name.rpartition(".")[2].startswith("running_")]
    return [*own, *(name for name in names if name == "averaged.updates")]
