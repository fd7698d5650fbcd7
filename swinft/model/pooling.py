"""Poolings, which replace the backbone's own: the features of all positions to one vector per image.

Shapes: B batch, N positions of the grid, C channels of the backbone, D features.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from swinft.class_spec import InitArgsMixin, init_args_of, load_class
from swinft.errors import InputError, suggest
from swinft.ranges import check_whole, is_whole

Layer = TypeVar("Layer", bound=nn.Module)
# The setting `model.pooling`.
PoolingName = Literal["avg", "max", "gem", "avgmax", "avg+max", "attention", "gated_attention", "cls", "stages"]


class Pooling(InitArgsMixin, nn.Module):
    """Pools the features of an image's positions.

    A subclass defines `forward`, and sets `num_features` if its output has another width than C. Layers of the backbone
    after its own pooling, such as ConvNeXt's norm, are still applied, to each block of C features. So with a timm
    backbone `num_features` must be a multiple of C.

    Args:
        in_features: C, given by the backbone.
    """

    NUM_SUPPLIED = 1

    reads: ClassVar[Literal["positions", "class_token", "stages"]] = "positions"
    """What `forward` gets: the positions of the final features; the class token, as a single position; or the positions
    of the final features and, in further calls, those of the stages in `stages`."""

    timm_name: ClassVar[str] = ""
    """The `global_pool` of timm that computes the same; empty if there is none."""

    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.in_features = in_features
        self.num_features = in_features

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """Features of every position to features (B, `num_features`).

        Args:
            tokens: (B, N, C), the positions row by row from the top left, without class and register tokens. N is
                `grid[0] · grid[1]`.
            grid: Rows and columns of the positions.
        """
        raise NotImplementedError


class MaxPooling(Pooling):
    """The largest value of each channel."""

    timm_name = "max"

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, N, C) to (B, C)."""
        return tokens.amax(1)


class GeMPooling(Pooling):
    """Generalised mean (arXiv 1711.02512) with a learnt exponent, initially 3; 1 would be the mean of clamped values.

    Args:
        in_features: C, given by the backbone.
        least: Smaller values, including negative ones, are clamped to it.
    """

    def __init__(self, in_features: int, least: float = 1e-6) -> None:
        super().__init__(in_features)
        self.least = least
        self.exponent = nn.Parameter(torch.tensor([3.0]))

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, N, C) to (B, C), in float32: powers overflow in 16 bit."""
        with torch.autocast(tokens.device.type, enabled=False):
            powers = tokens.float().clamp(min=self.least).pow(self.exponent.float())
            pooled: Tensor = powers.mean(1).pow(1 / self.exponent.float())
            return pooled


class HalfMaxPooling(Pooling):
    """Half the sum of the mean and the largest value of each channel, as timm's `avgmax`."""

    timm_name = "avgmax"

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, N, C) to (B, C)."""
        return (tokens.mean(1) + tokens.amax(1)) / 2


class AverageAndMaxPooling(Pooling):
    """Mean and largest value of each channel, side by side, as timm's `catavgmax`."""

    timm_name = "catavgmax"

    def __init__(self, in_features: int) -> None:
        super().__init__(in_features)
        self.num_features = 2 * in_features

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, N, C) to (B, 2 C)."""
        return torch.cat([tokens.mean(1), tokens.amax(1)], 1)


class AttentionPooling(Pooling):
    """A weighted mean whose weights are learnt from the positions' features; at the start all weights are equal."""

    def __init__(self, in_features: int) -> None:
        super().__init__(in_features)
        self.score = nn.Linear(in_features, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, N, C) to (B, C)."""
        weights: Tensor = self.score(tokens).float().softmax(1).to(tokens.dtype)
        return (weights * tokens).sum(1)


class GatedAttentionPooling(Pooling):
    """A weighted mean; the weights come from a gated layer (arXiv 1802.04712), and are equal at the start.

    Args:
        in_features: C, given by the backbone.
        hidden: Width of the layer.
    """

    def __init__(self, in_features: int, hidden: int = 128) -> None:
        super().__init__(in_features)
        check_whole("GatedAttentionPooling", "hidden", hidden)
        self.value = nn.Linear(in_features, hidden)
        self.gate = nn.Linear(in_features, hidden)
        self.score = nn.Linear(hidden, 1)
        nn.init.zeros_(self.score.weight)
        nn.init.zeros_(self.score.bias)

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, N, C) to (B, C)."""
        hidden = self.value(tokens).tanh() * self.gate(tokens).sigmoid()
        weights: Tensor = self.score(hidden).float().softmax(1).to(tokens.dtype)
        return (weights * tokens).sum(1)


class ClassTokenPooling(Pooling):
    """The class token of a vision transformer, also if its own pooling is another."""

    reads = "class_token"
    timm_name = "token"

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, 1, C) to (B, C)."""
        return tokens[:, 0]


class StagesPooling(Pooling):
    """Pooled features of several stages of the backbone, concatenated.

    The final features come first, with the backbone's layers after its own pooling. The pooled features of earlier
    stages are standardised over their channels, since stages differ in scale. In a vision transformer without stages,
    each block counts as one.

    Args:
        in_features: C, given by the backbone.
        stages: Number of stages, 2 or more: the final features and the stages before the last; or a list of the stages
            besides the final features, from 0, or from the end with −1 for the last.
        pool: `avg` for the mean of each channel, `max` for its largest value.
    """

    reads = "stages"

    def __init__(self, in_features: int, stages: int | list[int] = 2, pool: Literal["avg", "max"] = "avg") -> None:
        super().__init__(in_features)
        if isinstance(stages, Sequence):
            if not stages or not all(map(is_whole, stages)) or len(set(stages)) < len(stages):
                raise InputError(f"StagesPooling: stages is {stages}; a list must hold whole numbers, each once.")
        else:
            check_whole("StagesPooling", "stages", stages, 2)
        if pool not in ("avg", "max"):
            raise InputError(f"StagesPooling: pool is '{pool}'; it must be avg or max.")
        self.stages, self.pool = stages, pool

    def forward(self, tokens: Tensor, grid: tuple[int, int]) -> Tensor:
        """(B, N, any C) to (B, C)."""
        return tokens.mean(1) if self.pool == "avg" else tokens.amax(1)


NAMED: dict[str, type[Pooling]] = {
    "max": MaxPooling,
    "gem": GeMPooling,
    "avgmax": HalfMaxPooling,
    "avg+max": AverageAndMaxPooling,
    "attention": AttentionPooling,
    "gated_attention": GatedAttentionPooling,
    "cls": ClassTokenPooling,
    "stages": StagesPooling,
}


def pooling_from(given: Any, in_features: int) -> Pooling | None:
    """The pooling of a network.

    Args:
        given: A name, a function that builds a pooling, or a spec of `to_spec`.
        in_features: C.

    Returns:
        None for `avg`: the backbone's own.

    Raises:
        InputError: It is none of these, or the function does not return a pooling.
    """
    if given == "avg":
        return None
    return built_layer(given, "model.pooling", Pooling, ("avg", *NAMED), NAMED, in_features=in_features)


def built_layer(
    given: Any, key: str, base: type[Layer], names: Sequence[str], named: Mapping[str, type[Layer]], **sizes: int
) -> Layer:
    """The layer of a setting that takes a name, a function or class that builds one, or a spec.

    Args:
        given: The value.
        key: The key, for messages.
        base: The required base class.
        names: The allowed names.
        named: The class of each.
        **sizes: The arguments that swinft supplies, in their order.

    Raises:
        InputError: It is none of these, or builds something else.
    """
    cls = base.__name__
    if isinstance(given, str):
        if given not in named:
            raise InputError(
                f"{key} is '{given}'; it must be {', '.join(names)}, or a class derived from swinft.{cls}."
                f"{suggest(given, names)}"
            )
        return named[given](*sizes.values())
    if isinstance(given, dict) and "class_path" in given:
        found = load_class(str(given["class_path"]), base, f"the {cls.lower()}")
        return found(*sizes.values(), **init_args_of(given))
    make = given if callable(given) and not isinstance(given, nn.Module) else None
    made = make(*sizes.values()) if make else given
    width = getattr(made, "num_features", None)
    if make is None or not isinstance(made, base) or not isinstance(width, int) or width < 1:
        raise InputError(
            f"{key} makes {type(made).__name__} with num_features {width!r}; it must be a name, or a class derived "
            f"from swinft.{cls} that calls super().__init__({', '.join(sizes)})."
        )
    return made
