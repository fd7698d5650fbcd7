"""A network's stages: what of it works at one grid, by what timm says of its feature maps and by what a trace recorded.

Shapes: B batch, (H, W) pixels, (h, w) grid, C channels, N tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from swinft.architecture.trace import ROOT, Call, Trace

STEM, HEAD = "stem", "head"
MOST_OF = 0.5  # a module that holds a larger share of its parent's parameters is what the parent consists of


@dataclass(frozen=True)
class Span:
    """A part of a network: what ran from one moment to another.

    Args:
        name: `stem`, `stage 1`, …, `head`.
        first: Its first moment.
        last: Its last moment.
        modules: Names of the modules whose output is a feature map of this stage.
        channels: C of its feature map; None of the head.
        grid: Rows and columns of its feature map; None of the head, or if it has no such map.
    """

    name: str
    first: int
    last: int
    modules: tuple[str, ...] = ()
    channels: int | None = None
    grid: tuple[int, int] | None = None


@dataclass(frozen=True)
class Feature:
    """A feature map that timm knows of a model: the module that returns it, its stride in pixels, and its channels."""

    module: str
    stride: int
    channels: int


def spans(model: Any, found: Trace, size: tuple[int, int], prefix: str = "", heads: Sequence[str] = ()) -> list[Span]:
    """The parts of a network in their order; a network of which timm knows no feature maps is one stage.

    Args:
        model: The timm model, or a custom one.
        found: A trace of the network that holds it.
        size: Height and width of the image.
        prefix: Name of the model in the network, with a dot.
        heads: Names of the modules that depend on the number of outputs.
    """
    end = max((call.ended for call in found.calls.values()), default=0) + 1
    features = _features(model, found, prefix)
    if not features:
        return _without_stages(found, end, prefix, heads)
    groups = list[list[Feature]]()
    for feature in features:  # consecutive ones of one grid and width are one stage, as the blocks of a ViT
        same = groups and (groups[-1][-1].stride, groups[-1][-1].channels) == (feature.stride, feature.channels)
        groups[-1].append(feature) if same else groups.append([feature])
    before = found.calls[groups[0][0].module].started
    # A first map before which nothing was computed, or whose module only activates, is that of the stem.
    is_early = not any(each.macs for each in found.operations if each.moment < before)
    is_early = is_early or not any(True for _ in _module(model, groups[0][0].module, prefix).parameters())
    is_stem = is_early and len(groups) > 1
    parts, start, number = list[Span](), 0, 1
    if not is_stem:
        name, shape = _last_before(found, before, prefix)
        channels, grid = _stem_map(model, shape, groups[0][0], size)
        parts.append(Span(STEM, 0, before - 1, (name,) if name else (), channels, grid))
        start = before
    for group in groups:
        names = tuple(each.module for each in group)
        last = found.calls[names[-1]].ended
        grid = _grid(model, found.calls[names[-1]].shape, group[-1], size)
        parts.append(Span(f"stage {number}" if parts else STEM, start, last, names, group[-1].channels, grid))
        number += parts[-1].name != STEM
        start = last + 1
    return [*parts, Span(HEAD, start, end)]


def _without_stages(found: Trace, end: int, prefix: str, heads: Sequence[str]) -> list[Span]:
    """One stage, and what follows it: the rest of a run's network, or timm's classifier."""
    last = found.calls.get(prefix.removesuffix("."), Call(0, end)).ended
    last = min([last, *(found.calls[name].started - 1 for name in heads if name in found.calls)])
    return [Span("stage 1", 0, last), Span(HEAD, last + 1, end)]


def _features(model: Any, found: Trace, prefix: str) -> list[Feature]:
    """The feature maps whose modules ran, in that order."""
    try:
        known = [dict(each) for each in model.feature_info]
    except (AttributeError, TypeError, ValueError):
        return []
    features = []
    for each in known:
        name = f"{prefix}{each.get('module', '')}"
        if name in found.calls and each.get("reduction") and each.get("num_chs"):
            features.append(Feature(name, int(each["reduction"]), int(each["num_chs"])))
    return sorted(features, key=lambda feature: found.calls[feature.module].ended)


def _module(model: Any, name: str, prefix: str) -> nn.Module:
    found: nn.Module = model.get_submodule(name.removeprefix(prefix))
    return found


def _last_before(found: Trace, moment: int, prefix: str) -> tuple[str, tuple[int, ...]]:
    """The last module that ended before a moment, and the shape of what it returned; nothing if there is none."""
    ended = {name: call for name, call in found.calls.items() if 0 <= call.ended < moment and name.startswith(prefix)}
    last = max(ended, key=lambda name: ended[name].ended, default="")
    return last, ended[last].shape if last else ()


def _stem_map(
    model: Any, shape: Sequence[int], feature: Feature, size: tuple[int, int]
) -> tuple[int, tuple[int, int] | None]:
    """Channels and grid of a stem's map of this shape.

    Of the two layouts that in which the grid has the image's proportions; of tokens those of the first feature map.
    """
    if len(shape) != 4:
        return feature.channels, _grid(model, shape, feature, size)
    layouts = [(shape[1], (shape[2], shape[3])), (shape[3], (shape[1], shape[2]))]
    return min(layouts, key=lambda layout: abs(layout[1][0] * size[1] - layout[1][1] * size[0]))


def _grid(model: Any, shape: Sequence[int], feature: Feature, size: tuple[int, int]) -> tuple[int, int] | None:
    """Rows and columns of a feature map of this shape."""
    expected = [-(-side // feature.stride) for side in size]
    if len(shape) == 4 and feature.channels in (shape[1], shape[3]):
        first, last = (shape[2], shape[3]), (shape[1], shape[2])
        fitting = [grid for grid, at in ((first, 1), (last, 3)) if shape[at] == feature.channels]
        near = min(fitting, key=lambda grid: abs(grid[0] - expected[0]) + abs(grid[1] - expected[1]))
        return int(near[0]), int(near[1])
    if len(shape) == 3 and shape[2] == feature.channels:
        prefix = int(getattr(model, "num_prefix_tokens", 0))  # some networks add their class token only in the end
        if expected[0] * expected[1] in (shape[1], shape[1] - prefix):
            return expected[0], expected[1]
    return None


def span_of(parts: Sequence[Span], moment: int) -> int:
    """The number of the part in which a moment is."""
    return next((number for number, part in enumerate(parts) if moment <= part.last), len(parts) - 1)


def parameters_of(network: nn.Module, found: Trace, parts: Sequence[Span]) -> list[int]:
    """Numbers of parameters of all parts; those of the network itself, such as position embeddings, are the stem's.

    Those of a module that never ran are of the part in which what holds it ran; if that is several parts, of the part
    of the module before it.
    """
    counts, seen, before = [0] * len(parts), set[int](), 0
    for name, module in network.named_modules():
        before = _part_of(found, name, parts, before)
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in seen:
                seen.add(id(parameter))
                counts[before] += parameter.numel()
    return counts


def _part_of(found: Trace, name: str, parts: Sequence[Span], before: int) -> int:
    """The number of the part of a module; `before` is that of the module before it."""
    own = [found.calls[name]] if name in found.calls else []
    # Of a module whose other methods are called, as timm's `forward_intermediates`, only those in it are calls.
    if ran := own or [call for other, call in found.calls.items() if other.startswith(f"{name}.")]:
        return span_of(parts, min(call.started for call in ran))
    while name and name not in found.calls:
        name = name.rpartition(".")[0]
    holds = found.calls.get(name)
    if holds is None:
        return before
    first, last = span_of(parts, holds.started), span_of(parts, holds.ended)
    return first if first == last else before


def blocks_of(model: Any, found: Trace, part: Span, prefix: str = "") -> int:
    """Number of the blocks of a stage: the modules that its sequences repeat."""
    if part.name in (STEM, HEAD):
        return 0
    units = dict[str, None]()
    for name, call in found.calls.items():
        if name == ROOT or not part.first <= call.started <= part.last or not name.startswith(prefix):
            continue
        parent = name.removeprefix(prefix).rpartition(".")[0]
        is_direct = "." not in parent and (not parent or isinstance(model.get_submodule(parent), SEQUENCES))
        if is_direct and name.removeprefix(prefix):
            units[name.removeprefix(prefix)] = None
    # A sequence of blocks and the blocks in it are both units: the innermost count.
    inner = [name for name in units if not any(other.startswith(f"{name}.") for other in units)]
    # What leads from one dense block to the next is a kind of sequence, of a norm and a convolution, and no block.
    modules = {name: model.get_submodule(name) for name in inner}
    blocks = [name for name, each in modules.items() if not (_is_kind_of_sequence(each) and _is_layer(each))]
    inner = blocks or inner
    return sum(_count(model.get_submodule(name), is_element="." in name) for name in inner)


SEQUENCES = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


def _count(module: nn.Module, is_element: bool = False) -> int:
    """Blocks of a module: those of a sequence, those of what it mostly consists of, or itself.

    Args:
        module: The module.
        is_element: Whether it is an element of a sequence, which is a block unless it holds a sequence.
    """
    own = _parts(module)
    if isinstance(module, SEQUENCES):
        return sum(_count(child, True) for child in own)
    size = sum(each.numel() for each in module.parameters())
    if not own:  # a convolution among others; a norm is no block
        return int(any(each.ndim > 1 for each in module.parameters()))
    for child in own:
        is_stage = isinstance(child, SEQUENCES) and not any(map(_is_layer, _parts(child)))
        if is_stage and sum(each.numel() for each in child.parameters()) > MOST_OF * size:
            return _count(child)
    if not is_element and len({type(child) for child in own}) == 1 and not any(map(_is_layer, own)):
        return sum(_count(child, True) for child in own)  # a stage that holds its blocks by name, as in RegNet
    return 1


def _parts(module: nn.Module) -> list[nn.Module]:
    """The modules in a module that have parameters: the activation inside of timm's norms has none."""
    return [child for child in module.children() if any(True for _ in child.parameters())]


def _is_kind_of_sequence(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module) is not nn.Sequential


def _is_layer(module: nn.Module) -> bool:
    """Whether a module is a layer, perhaps with its norm, and no block of several ones."""
    return sum(each.ndim > 1 for each in module.parameters()) < 2
