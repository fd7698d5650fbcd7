"""The network: backbone, optional pooling, fusion of several images, optional metadata network, and head.

Shapes: B batch, V images of a row, C channels, N training rows, F metadata features, E encoded ones, K outputs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from swinft.class_spec import errors_of, to_spec
from swinft.errors import InputError
from swinft.model.auxiliary import LOGITS, AuxiliaryHeads, known_rows
from swinft.model.backbones.feature_maps import FeatureMaps, padded
from swinft.model.backbones.timm_backbone import Backbone
from swinft.model.backbones.unpooled import pooled_width
from swinft.model.fusion import fusion_from, poolings
from swinft.model.heads import Head
from swinft.model.heads.contract import built_head, with_nan_rows
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
        pooling: As in `pooling_from`; or with a fusion as in `fusion_from`: `swinft.PoolingConfig` has both.
        image_size: Height and width in pixels at which a custom pooling is tested.
        num_images: V if rows have several images, or None.
        auxiliary: The auxiliary targets, as in `AuxiliaryHeads`.
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
        num_images: int | None = None,
        auxiliary: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__()
        self.backbone, self.num_images = backbone, num_images
        pooling, fusion = poolings(pooling)
        self.pooling = None if pooling == "avg" else pooling_from(pooling, int(backbone.model.num_features))
        # Some backbones widen the features after pooling: with another pooling, the width is found by a forward pass.
        own, pool = backbone.num_features, self.pooling
        self.width = own if pool is None else pooled_width(backbone.model, pool, image_size, backbone.num_channels)
        self.fusion = fusion_from(fusion, self.width, num_images)
        self.metadata = MetadataNetwork(num_metadata, category_sizes, metadata_hidden) if num_metadata else None
        width = self.width if self.fusion is None else self.fusion.num_features
        in_features = width + (metadata_hidden if num_metadata else 0)
        self.head = built_head(head, in_features, num_outputs)
        self.maps = self._feature_maps(image_size) if self.head.reads == "maps" else None
        self.auxiliary = AuxiliaryHeads(in_features, auxiliary) if auxiliary else None
        self.image_format: torch.memory_format | None = None  # set with that of the weights
        self.is_initialized = False  # by `initialize`, or by loading weights
        self.register_load_state_dict_post_hook(_mark_initialized)  # type: ignore[no-untyped-call]

    def _feature_maps(self, image_size: tuple[int, int]) -> FeatureMaps:
        """The reader of the backbone's maps, for a head that decodes them.

        Raises:
            InputError: The backbone has no such maps, or a setting is for vectors.
        """
        wrong = {"model.pooling": self.pooling or self.fusion, "data.columns' metadata": self.metadata}
        if name := next((name for name, given in wrong.items() if given is not None), None):
            raise InputError(
                f"{type(self.head).__name__} decodes the maps of the backbone's stages, and {name} is for one vector "
                f"per image: remove it."
            )
        maps = FeatureMaps(self.backbone.model, image_size, self.backbone.num_channels)
        self.head.connect(maps.channels)
        return maps

    def image_shape(self, size: tuple[int, int]) -> tuple[int, ...]:
        """Of what it sees of a row at a height and width: (C, H, W), or (V, C, H, W) of several images."""
        several = () if self.num_images is None else (self.num_images,)
        return (*several, self.backbone.num_channels, *size)

    @property
    def inputs(self) -> list[str]:
        """Names of what it takes: `image`, and `features` and `image_mask` where there are any."""
        is_there = {"image": True, "features": self.metadata is not None, "image_mask": self.fusion is not None}
        return [name for name, there in is_there.items() if there]

    @property
    def pooling_spec(self) -> Any:
        """Its pooling, and its fusion where there is one, as plain values."""
        positions = to_spec(self.pooling) or "avg"
        return positions if self.fusion is None else {"positions": positions, "images": to_spec(self.fusion)}

    @property
    def learns_from_rows(self) -> bool:
        """Whether `initialize` must set statistics of the training rows: target units, class weights, metadata."""
        heads = [self.head, *(self.auxiliary or ())]
        return self.metadata is not None or any(head.learns_from_targets for head in heads)

    def initialize(self, targets: Tensor, features: Tensor | None = None, *auxiliary: Tensor) -> None:
        """Computes the statistics of all training rows that head and metadata network need, before training.

        Args:
            targets: int64 (N,) for classification, else float (N, K).
            features: float (N, F) if there is metadata.
            auxiliary: The targets of each auxiliary target.

        Raises:
            InputError: A head rejects a target.
        """
        device = next(self.head.parameters(), torch.empty(0)).device
        with errors_of(f"{type(self.head).__name__}.initialize fails"):
            self.head.initialize(known_rows(targets).to(device))
        if self.auxiliary is not None and auxiliary:
            self.auxiliary.initialize(auxiliary)
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

    def encode_metadata(self, features: Tensor | None = None) -> Tensor | None:
        """Metadata (B, F) to encoded metadata (B, E), in which rows can be mixed; None without metadata."""
        return None if self.metadata is None or features is None else self.metadata.encode(features)

    def logits(self, image: Tensor, metadata: Tensor | None, image_mask: Tensor | None = None) -> Tensor:
        """Pixels (B, C, H, W) or (B, V, C, H, W), encoded metadata (B, E) and which images are there to logits."""
        return self._read_out(self.embed(image, metadata, image_mask), image)

    def _read_out(self, embedding: Any, image: Tensor) -> Tensor:
        """The head's logits; those of maps without the pixels that the image was padded with."""
        logits: Tensor = self.head(embedding)
        return logits if self.maps is None else logits[..., : image.shape[-2], : image.shape[-1]]

    def all_logits(self, image: Tensor, more: Mapping[str, Tensor | None]) -> tuple[Tensor, dict[str, Tensor]]:
        """The same, and the logits of each auxiliary target by the key `LOGITS`.

        Args:
            image: Pixels.
            more: What else belongs to the rows: `metadata` and `image_mask`, if any.
        """
        embedding = self.embed(image, more.get("metadata"), more.get("image_mask"))
        logits = self._read_out(embedding, image)
        return logits, {LOGITS.format(k): head(embedding) for k, head in enumerate(self.auxiliary or ())}

    def embed(self, image: Tensor, metadata: Tensor | None, image_mask: Tensor | None = None) -> Any:
        """Pixels, encoded metadata and which images are there to the features that the heads get: (B, D), or maps.

        Raises:
            InputError: The network takes metadata, and there are no features.
        """
        if self.maps is not None:
            return self.backbone(self._laid_out(padded(image, self.maps.stride)), self.maps)
        embedding = self.pooled(image, image_mask)
        if self.metadata is not None:
            if metadata is None:
                raise InputError("the network takes metadata, and the batch has no `features`.")
            embedding = torch.cat([embedding, self.metadata.embed(metadata).to(embedding.dtype)], dim=1)
        return embedding

    def pooled(self, image: Tensor, image_mask: Tensor | None = None) -> Tensor:
        """Pixels, and which of several images are there, to pooled features of the rows (B, D), without metadata.

        Raises:
            InputError: The backbone returns another shape than it says, or the rows have another number of images.
        """
        return self._embedding(image) if self.fusion is None else self._fused(image, image_mask)

    def _laid_out(self, image: Tensor) -> Tensor:
        return image if self.image_format is None else image.contiguous(memory_format=self.image_format)

    def _embedding(self, image: Tensor) -> Tensor:
        """Pixels (B, C, H, W) to features (B, D)."""
        image = self._laid_out(image)
        embedding: Tensor = self.backbone(image) if self.pooling is None else self.backbone(image, self.pooling)
        if torch._C._get_tracing_state() is None:  # while a trace is made shapes are no numbers
            self._check_width(embedding, image.shape[0])  # len would make a constant of it in torch.export
        return embedding

    def _fused(self, image: Tensor, mask: Tensor | None) -> Tensor:
        """Pixels (B, V, C, H, W) and which are there, bool (B, V) or None for all, to features of the rows (B, D)."""
        assert self.fusion is not None
        is_exported = torch._C._get_tracing_state() is not None or torch.compiler.is_exporting()
        if not is_exported and (image.ndim != 5 or image.shape[1] != self.num_images):
            raise InputError(
                f"the network is made for {self.num_images} images of a row, (B, V, C, H, W), and the batch's `image` "
                f"is {tuple(image.shape)}."
            )
        flat = image.flatten(0, 1)
        there = torch.ones_like(image[:, :, 0, 0, 0], dtype=torch.bool) if mask is None else mask > 0
        # Images that are not there would be part of the statistics of BatchNorm, and cost their time. What is compiled
        # to predict wants the same number of images each time.
        is_fixed = is_exported or (not self.training and self.backbone._compiled_call_impl is not None)
        # The CPU waits for a GPU to count them: once, not at each use of the mask.
        index = None if is_fixed or mask is None else there.flatten().nonzero().squeeze(1)
        if index is None or len(index) == len(flat):
            features = self._embedding(flat)
        else:
            found = self._embedding(flat.index_select(0, index))
            features = found.new_zeros(len(flat), found.shape[1]).index_copy(0, index, found)
        features = features.reshape(image.shape[0], image.shape[1], self.width)
        features = torch.where(there[..., None], features, features.new_zeros(()))
        fused: Tensor = self.fusion(features, there)
        return fused

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

    def forward(self, image: Tensor, features: Tensor | None = None, image_mask: Tensor | None = None) -> Tensor:
        """Pixels, uint8 or float in 0–255, and metadata (B, F) to logits.

        Args:
            image: (B, C, H, W); if rows have several images (B, V, C, H, W).
            features: Metadata (B, F), if any.
            image_mask: Which of several images exist, bool (B, V); None for all.
        """
        return self.logits(image, self.encode_metadata(features), image_mask)

    def predict(self, image: Tensor, features: Tensor | None = None, image_mask: Tensor | None = None) -> Tensor:
        """The same to predictions (B, K), or (B, K, H, W), in the competition's units; NaN in rows with a NaN logit."""
        logits = self(image, features, image_mask)
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
