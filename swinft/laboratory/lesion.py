"""What each part of a network is worth: the loss of score when it is removed, or when its positions are shuffled.

Shapes: B batch, K outputs.
"""

import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from swinft.errors import InputError
from swinft.laboratory.blocks import channels_last, shuffled
from swinft.laboratory.by_layer import MARKERS, by_kind, kind_handles
from swinft.laboratory.instrument import Instrument, Line
from swinft.laboratory.layers import BETWEEN, Layer
from swinft.laboratory.options import LesionSettings
from swinft.laboratory.subjects import RunSubject, Subject
from swinft.pages.figures import SOFT, Drawing, color_of, label, panels

INTACT = "intact"
WAYS = {"remove": "removed", "shuffle": "shuffled", "block": "whole block removed"}


class Lesion(Instrument[LesionSettings]):
    """Removes or shuffles one part of a network at a time, and scores what is left of it."""

    name = "lesion"
    title = "Lesions"
    about = (
        "One part of the network is damaged at a time, and the rows are predicted again: a residual branch (the "
        "attention, the MLP, the convolutions of a block) is removed, so that the block passes on its input; its "
        "output is kept and its positions are put into a random order, the same for every row; a whole block is "
        "skipped. The loss is how much worse the run's first metric is than that of the intact network: 0 for a part "
        "that does nothing, below 0 where the network is better without it.",
        "In Park and Kim, How Do Vision Transformers Work? (ICLR 2022, figure 10), the first layers of a stage matter "
        "more in a ResNet, and in a Swin an MLP at the start and an attention at the end of a stage.",
        "A branch in front of a change of size cannot be skipped as a block, and is left out there.",
    )

    def steps(self, subject: Subject) -> list[str]:
        """The intact network, then every lesion.

        Raises:
            InputError: The network has no residual block.
        """
        assert isinstance(subject, RunSubject)
        return [INTACT, *self._lesions(subject)]

    def _lesions(self, subject: RunSubject) -> dict[str, tuple[str, Layer]]:
        """Every lesion by the name of its step."""
        layers = subject.layers
        found = dict[str, tuple[str, Layer]]()
        for block in layers.blocks:
            own = [layer for layer in layers.layers if layer.block == block and layer.kind not in BETWEEN]
            for way in self.settings.ways:
                if way != "block":
                    found |= {f"{way} {layer.name}": (way, layer) for layer in own if layer.branch is not None}
                elif _is_skippable(layers.layers, own):
                    found[f"{way} {block}"] = (way, own[-1])
        if not found:
            raise InputError(
                f"{subject.label} has no residual block: nothing can be removed. Other instruments measure it."
            )
        return found

    def measure(self, subject: Subject, step: str) -> list[Line]:
        """The scores after one lesion.

        Raises:
            InputError: The network has no residual block.
        """
        assert isinstance(subject, RunSubject)
        base = subject.intact
        if step == INTACT:
            where = {"lesion": INTACT, "layer": None, "number": None, "kind": None}
            return [{**where, "loss": 0.0, "changed": 0.0, **base.scores}]
        way, layer = self._lesions(subject)[step]
        with _damaged(subject, way, layer, step):
            values = subject.predict(subject.net)
        scores = subject.scores(values)
        return [
            {
                "lesion": way,
                "layer": layer.block if way == "block" else layer.name,
                "number": layer.number,
                "kind": "block" if way == "block" else layer.kind,
                "loss": subject.losses(scores, base.scores),
                "changed": float(np.abs(values - base.values).mean()),
                **scores,
            }
        ]

    def summarize(self, lines: list[Line]) -> dict[str, Any]:
        """The mean loss of each kind of part, and the part that is worth most."""
        found: dict[str, Any] = {}
        for way, text in WAYS.items():
            of_way = [line for line in lines if line["lesion"] == way]
            if way == "block" and of_way:
                known = [line["loss"] for line in of_way if line["loss"] is not None]
                found |= {"mean loss, whole block removed": float(np.mean(known))} if known else {}
            else:
                means = by_kind(of_way, "loss", lambda values: float(np.mean(values)))
                found |= {f"mean loss, {kind} {text}": value for kind, value in means.items()}
            known_lines = [line for line in of_way if line["loss"] is not None]
            if known_lines:
                worst = max(known_lines, key=lambda line: line["loss"])
                found[f"largest loss, {text}"] = worst["loss"]
                found |= {f"of which layer, {text}": worst["layer"]} if worst["loss"] > 0 else {}
        return found

    def figures(self, measured: Mapping[str, list[Line]]) -> list[Drawing]:
        """The loss of every lesion by depth: a panel for each network and way."""
        ways = [way for way in WAYS if any(line["lesion"] == way for lines in measured.values() for line in lines)]

        def draw(figure: Figure) -> None:
            axes = panels(figure, len(measured) * len(ways), columns=len(ways), share=False)
            kinds: dict[str, None] = {}
            for number, (name, lines) in enumerate(measured.items()):
                for axis, way in zip(axes[number * len(ways) :], ways, strict=False):
                    shown = [line for line in lines if line["lesion"] == way and line["loss"] is not None]
                    if not shown:  # it has no such part, or the metric is undefined for the rows
                        axis.set_axis_off()
                        continue
                    _panel(axis, shown, color_of(number))
                    kinds |= dict.fromkeys(line["kind"] for line in shown)
                    label(axis, f"{name}: {WAYS[way]}", "layer", "loss of score")
            figure.legend(handles=kind_handles(kinds), loc="outside upper center", ncols=6)

        text = "How much worse the first metric is without each part of the network, or with its positions shuffled."
        return [Drawing(text, draw, 2.8 * len(measured))] if ways else []


def _panel(axis: Axes, lines: list[Line], color: str) -> None:
    axis.axhline(0, color=SOFT, linewidth=0.8)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    for kind in dict.fromkeys(line["kind"] for line in lines):
        points = [(line["number"], line["loss"]) for line in lines if line["kind"] == kind]
        axis.vlines([place for place, _ in points], 0, [loss for _, loss in points], color=color, linewidth=1)
        axis.plot(
            *zip(*points, strict=True), color=color, marker=MARKERS.get(kind, "s"), linestyle="none", markersize=5
        )


def _damaged(subject: RunSubject, way: str, layer: Layer, step: str) -> AbstractContextManager[None]:
    """The network of a subject with one lesion, while the block of `with` runs."""
    layers = subject.layers
    if way == "block":
        return layers.skipped(layer.block)
    if way == "remove":
        return layers.changed(layer, torch.zeros_like)
    block = layers.blocks[layer.block]

    def shuffle(tokens: Tensor) -> Tensor:
        order = torch.Generator().manual_seed(zlib.crc32(f"{subject.options.seed} {step}".encode()))
        return shuffled(tokens, order, layers.prefix, tokens.ndim == 4 and channels_last(tokens, block))

    return layers.changed(layer, shuffle)


def _is_skippable(layers: list[Layer], own: list[Layer]) -> bool:
    """Whether a block returns the shape that it gets, and is more than one branch, which `remove` removes.

    Args:
        layers: All layers.
        own: Those of the block.
    """
    if not own or (len(own) == 1 and own[0].branch is not None):
        return False
    before, last = layers[own[0].number - 1], own[-1]
    return (before.channels, before.height, before.width) == (last.channels, last.height, last.width)
