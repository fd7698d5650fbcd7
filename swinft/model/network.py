"""The network: a backbone, a network for metadata where there is any, and a head.

Shapes: B batch, N training rows, F metadata features, E encoded ones, K outputs.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from swinft.errors import InputError
from swinft.model.backbones.timm_backbone import Backbone
from swinft.model.heads import Head
from swinft.model.heads.contract import marked
from swinft.model.metadata import MetadataNetwork


class ImageModel(nn.Module):
    """Backbone and head, with a small network for metadata beside the image where there is any.

    Args:
        backbone: Images to embeddings.
        head: Built for the width of the embedding, and of the metadata network's output where there is one.
        num_outputs: K.
        num_metadata: F, 0 for none.
        metadata_hidden: Width of the metadata network.
        category_sizes: As of `MetadataNetwork`.
    """

    def __init__(
        self,
        backbone: Backbone,
        head: Callable[[int, int], Head],
        num_outputs: int,
        num_metadata: int,
        metadata_hidden: int,
        category_sizes: Sequence[int] = (),
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.metadata = MetadataNetwork(num_metadata, category_sizes, metadata_hidden) if num_metadata else None
        self.head = head(backbone.num_features + (metadata_hidden if num_metadata else 0), num_outputs)
        self.image_format: torch.memory_format | None = None  # set with that of the weights; None for as they come
        self.is_initialized = False  # whether it has seen the training rows, or has weights that have
        self.register_load_state_dict_post_hook(_mark_initialized)  # type: ignore[no-untyped-call]

    @property
    def learns_from_rows(self) -> bool:
        """Whether something is set from the training rows before training: units, weights of classes, metadata."""
        return self.metadata is not None or self.head.learns_from_targets

    def initialize(self, targets: Tensor, features: Tensor | None = None) -> None:
        """Sets what is learnt from the training rows at once, before training.

        Args:
            targets: int64 (N,) for classification, else float (N, K).
            features: float (N, F) where there is metadata.

        Raises:
            InputError: The head refuses a target.
        """
        device = next(self.head.parameters(), torch.empty(0)).device
        self.head.initialize(targets.to(device))
        if self.metadata is not None and features is not None:
            self.metadata.initialize(features.cpu())
        self.is_initialized = True

    def encode_metadata(self, features: Tensor | None) -> Tensor | None:
        """Metadata (B, F) to the form in which rows can be mixed, (B, E); None where there is none."""
        return None if self.metadata is None or features is None else self.metadata.encode(features)

    def logits(self, image: Tensor, metadata: Tensor | None) -> Tensor:
        """Pixels (B, 3, H, W) and encoded metadata (B, E) to logits."""
        if self.image_format is not None:
            image = image.contiguous(memory_format=self.image_format)
        embedding = self.backbone(image)
        if self.metadata is not None:
            if metadata is None:
                raise InputError("the network is made for metadata, and the batch has no `features`.")
            embedding = torch.cat([embedding, self.metadata.embed(metadata).to(embedding.dtype)], dim=1)
        logits: Tensor = self.head(embedding)
        return logits

    def forward(self, image: Tensor, features: Tensor | None = None) -> Tensor:
        """Pixels (B, 3, H, W), uint8 or float in 0–255, and metadata (B, F) to logits."""
        return self.logits(image, self.encode_metadata(features))

    def predict(self, image: Tensor, features: Tensor | None = None) -> Tensor:
        """The same to predictions (B, K) in the competition's units, NaN for a row with a NaN among its logits."""
        logits = self(image, features)
        return marked(self.head.decode(logits), logits)


def _mark_initialized(module: nn.Module, _: Any) -> None:
    module.is_initialized = True  # type: ignore[assignment]
