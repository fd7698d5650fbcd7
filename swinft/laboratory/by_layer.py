"""The frame of instruments that compare every layer with the one before: means over the rows, lines, figures by depth.

Shapes: B batch, C channels, H and W positions.
"""

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from torch import Tensor

from swinft.laboratory.instrument import Instrument, Line
from swinft.laboratory.layers import Layer, Layers
from swinft.laboratory.options import NoSettings
from swinft.laboratory.subjects import RunSubject, Subject
from swinft.pages.figures import SOFT, color_of, label, logarithmic
from swinft.system.precision import in_float64

MARKERS = {"msa": "o", "mlp": "^", "conv": "s", "mixer": "D", "other": "v"}
NAMES = {"msa": "MSA", "mlp": "MLP", "conv": "convolution", "mixer": "mixer", "other": "other"}


class ByLayer(Instrument[NoSettings]):
    """Reads the feature map of every layer in one pass over the rows, and compares each layer with the one before."""

    @abstractmethod
    def read(self, features: Tensor) -> Mapping[str, Tensor]:
        """What is read of a feature map (B, C, H, W): values (B, …) by name, whose means over all images count."""

    @abstractmethod
    def lines_of(self, layer: Layer, means: Mapping[str, Tensor], before: Line, image: Line) -> list[Line]:
        """The columns of a layer's lines besides those of the layer itself.

        Args:
            layer: The layer.
            means: What was read of it, its mean over all images, float64.
            before: The last line of the layer before; empty for the image.
            image: The first line of the image; empty for the image.
        """

    def steps(self, subject: Subject) -> list[str]:
        """One pass over the rows."""
        return ["rows"]

    def measure(self, subject: Subject, step: str) -> list[Line]:
        """The lines of every layer."""
        assert isinstance(subject, RunSubject)
        lines = list[Line]()
        for layer, means in _watched_means(subject, subject.layers, self.read):
            before, image = (lines[-1], lines[0]) if lines else ({}, {})
            lines += [_layer_line(layer) | line for line in self.lines_of(layer, means, before, image)]
        return lines


def _watched_means(
    subject: RunSubject, layers: Layers, read: Callable[[Tensor], Mapping[str, Tensor]]
) -> Iterator[tuple[Layer, dict[str, Tensor]]]:
    """Means over all images of what is read of every layer.

    Args:
        subject: The subject; its `net` sees its rows, without views.
        layers: Its layers.
        read: From a feature map (B, C, H, W) to values (B, …), by name.

    Yields:
        Every layer with its means, float64.
    """
    sums: list[dict[str, Tensor]] = [{} for _ in layers.layers]
    counts = [0] * len(sums)

    def add(layer: Layer, features: Tensor) -> None:
        counts[layer.number] += len(features)
        for name, values in read(features).items():
            total = in_float64(values).sum(0).cpu()
            before = sums[layer.number].get(name)
            sums[layer.number][name] = total if before is None else before + total

    with torch.inference_mode(), layers.watched(add):
        for batch in subject.batches:
            subject.forward(subject.net, batch)
    for layer in layers.layers:
        yield layer, {name: total / counts[layer.number] for name, total in sums[layer.number].items()}


def _layer_line(layer: Layer) -> Line:
    """The first columns of a layer's line."""
    return {
        "number": layer.number,
        "layer": layer.name,
        "kind": layer.kind,
        "channels": layer.channels,
        "height": layer.height,
        "width": layer.width,
    }


def by_kind(lines: list[Line], column: str, mean: Callable[[list[float]], float]) -> dict[str, float]:
    """A mean of a column for each kind of layer that blocks have, of the layers with a value."""
    known = [line for line in lines if line[column] is not None]
    found = {kind: [line[column] for line in known if line["kind"] == kind] for kind in NAMES}
    return {NAMES[kind]: mean(values) for kind, values in found.items() if values}


def layers_panel(
    figure: Figure,
    measured: Mapping[str, list[Line]],
    column: str,
    y: str,
    is_log: bool = False,
    level: float | None = None,
) -> None:
    """A column against the depth of the layers, a line for each subject, with a marker for each kind of layer.

    Args:
        figure: The figure.
        measured: The lines of each subject.
        column: The column.
        y: Its name.
        is_log: Whether the axis is logarithmic.
        level: A value that is drawn as a line.
    """
    axis = figure.subplots()
    shown: set[str] = set()
    for number, lines in enumerate(measured.values()):
        deepest = max(line["number"] for line in lines) or 1
        known = [line for line in lines if line.get(column) is not None and line["kind"] != "image"]
        depth = [line["number"] / deepest for line in known]
        values = [line[column] for line in known]
        axis.plot(depth, values, color=color_of(number), linewidth=1)
        for kind, marker in MARKERS.items():
            of_kind = [place for place, line in enumerate(known) if line["kind"] == kind]
            shown |= {kind} if of_kind else set()
            points = np.array(depth)[of_kind], np.array(values)[of_kind]
            axis.plot(*points, color=color_of(number), marker=marker, linestyle="none", markersize=5)
    if level is not None:
        axis.axhline(level, color=SOFT, linewidth=1, linestyle="--")
    if is_log and any((line.get(column) or 0) > 0 for lines in measured.values() for line in lines):
        logarithmic(axis, "y")
    label(axis, "", "depth, as a share of the layers", y)
    subjects: list[Any] = [Line2D([], [], color=color_of(k), label=name) for k, name in enumerate(measured)]
    figure.legend(handles=[*subjects, *kind_handles(shown)], loc="outside upper center", ncols=6)


def kind_handles(shown: Collection[str]) -> list[Line2D]:
    """What a legend has of the kinds of layers.

    Args:
        shown: The kinds that are on the figure; others than those of layers are squares.
    """
    kinds = [*(kind for kind in MARKERS if kind in shown), *(kind for kind in shown if kind not in MARKERS)]
    return [
        Line2D([], [], color=SOFT, marker=MARKERS.get(kind, "s"), linestyle="none", label=NAMES.get(kind, kind))
        for kind in kinds
    ]
