"""The architecture of a network as plain values: its parts, what they hold and cost, and how far they see."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import nn

from swinft.architecture.attention import Attention, attention_of
from swinft.architecture.field import Field
from swinft.architecture.stages import Span, blocks_of, parameters_of, span_of, spans
from swinft.architecture.trace import Trace, trace


@dataclass(frozen=True)
class Part:
    """A part of a network: the stem, a stage, or the head.

    Args:
        name: `stem`, `stage 1`, …, `head`.
        modules: Names of the modules whose output is its feature map.
        grid: Rows and columns of its feature map.
        channels: Channels of it.
        blocks: Number of its blocks.
        parameters: Number of its parameters.
        macs: Pairs of a multiplication and an addition for one row.
        attention: Its attention, if it has one.
        field: The part of the image that reaches the middle of its feature map; None if not known.
    """

    name: str
    modules: tuple[str, ...]
    grid: tuple[int, int] | None
    channels: int | None
    blocks: int
    parameters: int
    macs: int
    attention: Attention | None = None
    field: Field | None = None

    @property
    def tokens(self) -> int | None:
        """Positions of its grid."""
        return None if self.grid is None else self.grid[0] * self.grid[1]

    @property
    def attention_share(self) -> float | None:
        """Share of its MACs that is attention, with the projections."""
        return None if self.attention is None or not self.macs else self.attention.macs / self.macs


@dataclass(frozen=True)
class Architecture:
    """What a network consists of.

    Args:
        name: The backbone's name, or the run's folder.
        image_size: Height and width in pixels.
        images: Images of a row.
        parts: Its parts, in their order.
        macs_by_torch: MACs of a row as torch's `FlopCounterMode` counts them, to compare with the sum of the parts.
        classifier: Parameters and MACs of the last layer, or of a run's head: what depends on the number of outputs.
        notes: What else is to be known, as sentences.
    """

    name: str
    image_size: tuple[int, int]
    images: int
    parts: tuple[Part, ...]
    macs_by_torch: int
    classifier: tuple[int, int] = (0, 0)
    notes: tuple[str, ...] = ()

    @property
    def parameters(self) -> int:
        """All parameters."""
        return sum(part.parameters for part in self.parts)

    @property
    def macs(self) -> int:
        """All pairs of a multiplication and an addition, for one row."""
        return sum(part.macs for part in self.parts)

    @property
    def body(self) -> tuple[int, int]:
        """Parameters and MACs without the classifier."""
        return self.parameters - self.classifier[0], self.macs - self.classifier[1]

    @property
    def attention_share(self) -> float:
        """Share of all MACs that is attention, with the projections."""
        return sum(part.attention.macs for part in self.parts if part.attention) / max(1, self.macs)

    @property
    def product_share(self) -> float:
        """Share of all MACs in products of activations, the part of attention that grows with the number of keys."""
        return sum(part.attention.products for part in self.parts if part.attention) / max(1, self.macs)

    def as_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "name": self.name,
            "image_size": list(self.image_size),
            "images": self.images,
            "parameters": self.parameters,
            "macs": self.macs,
            "parameters_without_classifier": self.body[0],
            "macs_without_classifier": self.body[1],
            "macs_by_torch": self.macs_by_torch,
            "attention_share": self.attention_share,
            "product_share": self.product_share,
            "parts": [_part_json(part) for part in self.parts],
            "notes": list(self.notes),
        }


def _part_json(part: Part) -> dict[str, Any]:
    plain = {name: getattr(part, name) for name in ("name", "channels", "blocks", "parameters", "macs", "tokens")}
    plain |= {"grid": None if part.grid is None else list(part.grid), "modules": list(part.modules)}
    plain |= {"receptive_field": None if part.field is None else asdict(part.field)}
    return {**plain, "attention": None if part.attention is None else _attention_json(part)}


def _attention_json(part: Part) -> dict[str, Any]:
    attention = part.attention
    assert attention is not None
    names = ("reach", "heads", "keys", "blocks", "products", "macs", "per_block", "if_global", "ratio")
    windows = [
        {
            "window": list(each.window),
            "shift": list(each.shift),
            "count": each.count,
            "padded": list(each.padded),
            "padding": each.padding,
            "masked": each.masked,
            "opposite_edges_attend": each.wraps,
        }
        for each in attention.windows
    ]
    return {**{name: getattr(attention, name) for name in names}, "share": part.attention_share, "windows": windows}


@dataclass(frozen=True)
class Traced:
    """A network with a trace of it.

    Args:
        name: What it is called.
        network: The network.
        model: The timm model in it, or a custom one.
        prefix: Name of the model in the network, with a dot; empty if it is the network.
        size: Height and width of its images.
        images: Images of a row.
        channels: Channels of an image.
        trace: The trace of one row.
        notes: What else is to be known of how it was made.
    """

    name: str
    network: nn.Module
    model: Any
    prefix: str
    size: tuple[int, int]
    images: int
    channels: int
    trace: Trace
    notes: tuple[str, ...] = ()

    @property
    def classifiers(self) -> list[str]:
        """Names of the modules that depend on the number of outputs: a run's head, or timm's classifier."""
        head = getattr(self.network, "head", None)
        if self.model is not self.network and isinstance(head, nn.Module):
            found: Any = head
        else:
            found = self.model.get_classifier() if hasattr(self.model, "get_classifier") else ()
        own = {id(each) for each in (found if isinstance(found, tuple | list | nn.ModuleList) else (found,))}
        return [name for name, module in self.network.named_modules() if id(module) in own]

    @property
    def spans(self) -> list[Span]:
        """Its parts, as moments."""
        return spans(self.model, self.trace, self.size, self.prefix, self.classifiers)


def traced(
    name: str,
    network: nn.Module,
    inputs: Sequence[Any],
    model: Any,
    size: tuple[int, int],
    prefix: str = "",
    images: int = 1,
    notes: Sequence[str] = (),
) -> Traced:
    """Runs a network once, and keeps what it did; arguments as of `Traced`, and the inputs of one row, images first."""
    channels = int(inputs[0].shape[-3])
    return Traced(name, network, model, prefix, size, images, channels, trace(network, *inputs), tuple(notes))


def describe(given: Traced) -> Architecture:
    """The architecture of a network, without receptive fields."""
    network, found, parts = given.network, given.trace, given.spans
    parameters = parameters_of(network, found, parts)
    macs, attending = [0] * len(parts), [list[str]() for _ in parts]
    for each in found.operations:
        macs[span_of(parts, each.moment)] += each.macs
    for name in found.attentions:
        attending[span_of(parts, found.calls[name].started if name else 0)].append(name)
    described = [
        Part(
            part.name,
            part.modules,
            part.grid,
            part.channels,
            blocks_of(given.model, found, part, given.prefix),
            parameters[number],
            macs[number],
            attention_of(network, found, attending[number], part.grid, given.images),
        )
        for number, part in enumerate(parts)
    ]
    classifier = _classifier(given)
    return Architecture(
        given.name, given.size, given.images, tuple(described), found.macs_by_torch, classifier, given.notes
    )


def _classifier(given: Traced) -> tuple[int, int]:
    """Parameters and MACs of the modules that depend on the number of outputs."""
    parameters, macs = 0, 0
    for name in given.classifiers:
        parameters += sum(each.numel() for each in given.network.get_submodule(name).parameters())
        macs += sum(each.macs for each in given.trace.inside(name))
    return parameters, macs


def with_fields(architecture: Architecture, fields: Sequence[Field | None]) -> Architecture:
    """The same architecture with the receptive field of every part."""
    parts = tuple(replace(part, field=field) for part, field in zip(architecture.parts, fields, strict=True))
    return replace(architecture, parts=parts)
