"""Features of a row's images become one vector: what a network does where a row has several.

Shapes: B batch, V images of a row, D features.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from swinft.class_spec import InitArgsMixin
from swinft.errors import InputError, suggest
from swinft.model.pooling import Pooling, PoolingName, built_layer

FusionName = Literal["mean", "max", "attention", "gru", "concat"]


class Fusion(InitArgsMixin, nn.Module):
    """Fuses the features of a row's images.

    A subclass gives `forward`, and sets `num_features` where it gives another width.

    Args:
        in_features: D, given by the backbone and its pooling.
        num_images: V, given by `data.image`.
    """

    NUM_SUPPLIED = 2

    def __init__(self, in_features: int, num_images: int) -> None:
        super().__init__()
        self.in_features, self.num_images = in_features, num_images
        self.num_features = in_features

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """Features of every image to features (B, `num_features`) of the rows.

        Args:
            features: (B, V, D), in the order of the images; zeros where there is none.
            mask: Which images are there, bool (B, V); of each row at least one.
        """
        raise NotImplementedError


class MeanFusion(Fusion):
    """The mean of the images that are there."""

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """(B, V, D) to (B, D)."""
        count = mask.sum(1, keepdim=True).to(features.dtype)
        return (features * mask[..., None].to(features.dtype)).sum(1) / count


class MaxFusion(Fusion):
    """The largest value of each feature."""

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """(B, V, D) to (B, D)."""
        return features.masked_fill(~mask[..., None], torch.finfo(features.dtype).min).amax(1)


class AttentionFusion(Fusion):
    """A mean with weights that are learnt from the features, by gated attention (arXiv 1802.04712).

    At the start all images weigh the same.

    Args:
        in_features: D, given by the backbone and its pooling.
        num_images: V, given by `data.image`.
        hidden: Width of the two layers that are multiplied.
    """

    def __init__(self, in_features: int, num_images: int, hidden: int = 128) -> None:
        super().__init__(in_features, num_images)
        self.value, self.gate = nn.Linear(in_features, hidden), nn.Linear(in_features, hidden)
        self.score = nn.Linear(hidden, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """(B, V, D) to (B, D)."""
        scores: Tensor = self.score(self.value(features).tanh() * self.gate(features).sigmoid())
        weights = scores.float().masked_fill(~mask[..., None], torch.finfo(torch.float32).min).softmax(1)
        return (weights.to(features.dtype) * features).sum(1)


class GRUFusion(Fusion):
    """What two GRUs hold at the end, one that reads the images in their order and one that reads them backwards.

    Images that are not there are left out of the order. Half of the features come from each.

    Args:
        in_features: D, given by the backbone and its pooling.
        num_images: V, given by `data.image`.
        hidden: Width of what both give together; None for D.
    """

    def __init__(self, in_features: int, num_images: int, hidden: int | None = None) -> None:
        super().__init__(in_features, num_images)
        half = max(1, (hidden or in_features) // 2)
        self.onwards, self.backwards = (nn.GRU(in_features, half, batch_first=True) for _ in range(2))
        self.num_features = 2 * half

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """(B, V, D) to (B, hidden)."""
        places = torch.arange(mask.shape[1], device=mask.device)
        found = []
        for gru, order in ((self.onwards, places), (self.backwards, places.flip(0))):
            first = torch.where(mask, order, mask.shape[1]).argsort(1)  # those that are there, in the order
            states: Tensor = gru(features.gather(1, first[..., None].expand_as(features)))[0]
            last = (mask.sum(1) - 1)[:, None, None].expand(-1, 1, states.shape[2])
            found.append(states.gather(1, last).squeeze(1))
        return torch.cat(found, 1)


class ConcatFusion(Fusion):
    """The features of all images side by side; zeros for those that are not there."""

    def __init__(self, in_features: int, num_images: int) -> None:
        super().__init__(in_features, num_images)
        self.num_features = in_features * num_images

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        """(B, V, D) to (B, V · D)."""
        return (features * mask[..., None].to(features.dtype)).flatten(1)


NAMED: dict[str, type[Fusion]] = {
    "mean": MeanFusion,
    "max": MaxFusion,
    "attention": AttentionFusion,
    "gru": GRUFusion,
    "concat": ConcatFusion,
}


@dataclass(frozen=True)
class PoolingConfig:
    """How features become one vector of a row where it has several images.

    Args:
        positions: Of an image's positions, as `model.pooling` says it where it is a word.
        images: Of a row's images: `mean`, `max`; `attention` for weights that are learnt (gated MIL); `gru` where their
            order matters; `concat` for side by side; or a class derived from swinft.Fusion.
    """

    positions: PoolingName | Callable[[int], Pooling] = "avg"
    images: FusionName | Callable[[int, int], Fusion] = "mean"


def poolings(given: Any) -> tuple[Any, Any]:
    """Of the setting `model.pooling`: that of positions, and that of images.

    Raises:
        InputError: The mapping has another key than `positions` and `images`.
    """
    if isinstance(given, PoolingConfig):
        return given.positions, given.images
    if isinstance(given, Mapping) and "class_path" not in given:
        if unknown := [str(name) for name in given if name not in ("positions", "images")]:
            raise InputError(f"model.pooling has no '{unknown[0]}'.{suggest(unknown[0], ['positions', 'images'])}")
        return given.get("positions", "avg"), given.get("images", "mean")
    return given, "mean"


def fusion_from(given: Any, in_features: int, num_images: int | None) -> Fusion | None:
    """The fusion of a network.

    Args:
        given: A name, what makes a fusion, or the spec of one.
        in_features: D.
        num_images: V; None where a row has one image.

    Returns:
        None where a row has one image.

    Raises:
        InputError: It is something else, makes something else, or a row has one image and something is asked for.
    """
    if num_images is None:
        if given != "mean":
            raise InputError(
                f"model.pooling.images is {given!r}, and a row has one image: remove it, or name several in data.image."
            )
        return None
    sizes = {"in_features": in_features, "num_images": num_images}
    return built_layer(given, "model.pooling.images", Fusion, list(NAMED), NAMED, **sizes)
