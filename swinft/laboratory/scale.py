"""How operations and time of a network grow with its image: linearly in the pixels, or quadratically.

Shapes: H and W pixels, equal here.
"""

import math
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from timm.models import get_pretrained_cfg

from swinft.data.row_images import row_images
from swinft.errors import InputError
from swinft.laboratory.instrument import Instrument, Line
from swinft.laboratory.options import ScaleSettings
from swinft.laboratory.subjects import RunSubject, Subject
from swinft.model.backbones.input_size import scaled_windows
from swinft.model.backbones.timm_backbone import RGB, Backbone, Channels, create_backbone
from swinft.model.operations import operations
from swinft.pages.figures import Drawing, color_of, label, logarithmic
from swinft.run.config.parser import plain

META = torch.device("meta")  # shapes without numbers
MULTIPLES = (1, 2, 3, 4)  # of the native side: every grid that a window divides at it is divided there, too
PRODUCTS = ("bmm", "baddbmm", "scaled_dot_product")  # of queries and keys, and of weights and values


class Scale(Instrument[ScaleSettings]):
    """Counts the operations and times the forward pass of a network at several image sizes."""

    name = "scale"
    title = "Cost against the size of the image"
    about = (
        "Multiply-adds (MACs) and the time of a forward pass of one image against its side, with the windows of a Swin "
        "kept as they are at the first size. The exponent is the slope of the logarithm of the cost over that of the "
        "number of pixels: 1 where the cost grows in proportion to the pixels, 2 where it grows with their square. "
        "That of attention counts only the products of queries with keys and of weights with values: in Liu et al., "
        "Swin Transformer (ICCV 2021, equations 1 and 2), it is 1 for windows and 2 for all positions at once.",
        "A whole network has layers that are linear besides, so that its exponent approaches that of attention only at "
        "large sizes. The time is the best of several, of one image.",
    )
    takes = ("network", "run")

    def check(self, subject: Subject) -> None:
        """Refuses sides that a network does not support.

        Raises:
            InputError: It does not support one.
        """
        sides, built = self._sides(subject), _Built.of(subject)
        for side in sides:
            with META, suppress(NotImplementedError, RuntimeError):  # some networks are not built without numbers
                built.at_side(min(sides), side)

    def steps(self, subject: Subject) -> list[str]:
        """Every size.

        Raises:
            InputError: The images have no one side: name sides.
        """
        return [str(side) for side in self._sides(subject)]

    def _sides(self, subject: Subject) -> list[int]:
        """The sides in pixels.

        Raises:
            InputError: None are given, and a run's images are not square.
        """
        if self.settings.sides is not None:
            return self.settings.sides
        height, width = _Built.of(subject).size
        if height != width:
            raise InputError(f"{subject.label} has images of {height} × {width} px: name sides, like --sides 224,448.")
        return [multiple * height for multiple in MULTIPLES]

    def measure(self, subject: Subject, step: str) -> list[Line]:
        """The cost at one size.

        Raises:
            InputError: The images have no one side: name sides.
        """
        side = int(step)
        model = _Built.of(subject).at_side(min(self._sides(subject)), side).to(subject.device).eval()
        image = torch.rand(1, model.num_channels, side, side, device=subject.device) * 255
        with operations(model) as counter:
            model(image)
        counts = {str(operation): count for operation, count in counter.get_flop_counts()["Global"].items()}
        with torch.inference_mode():
            seconds = min(_timed(model, image) for _ in range(self.settings.repeats))
        products = sum(count for operation, count in counts.items() if any(each in operation for each in PRODUCTS))
        macs, parameters = sum(counts.values()) // 2, sum(each.numel() for each in model.parameters())
        costs = {"macs": macs, "attention_macs": products // 2, "seconds": seconds}
        return [{"side": side, "pixels": side * side, **costs, "parameters": parameters}]

    def summarize(self, lines: list[Line]) -> dict[str, Any]:
        """The exponents, and the costs at the smallest and the largest size."""
        ordered = sorted(lines, key=lambda line: line["side"])
        found: dict[str, Any] = {}
        for column, text in (("macs", "MACs"), ("attention_macs", "MACs of attention"), ("seconds", "time")):
            exponent = fitted_exponent([line["pixels"] for line in ordered], [line[column] for line in ordered])
            found |= {} if exponent is None else {f"exponent of {text}": exponent}
        for line in (ordered[0], ordered[-1])[: len(ordered)]:
            found[f"GMACs at {line['side']} px"] = line["macs"] / 1e9
            found[f"seconds at {line['side']} px"] = line["seconds"]
        return found

    def notes(self, summary: dict[str, Any]) -> list[str]:
        """How the cost grows."""
        attention = summary.get("exponent of MACs of attention")
        if attention is None:
            return []
        near = {1: "linear", 2: "quadratic"}.get(round(attention), "neither linear nor quadratic")
        return [f"attention is {near} in the number of pixels: exponent {attention:.3f}."]

    def figures(self, measured: Mapping[str, list[Line]]) -> list[Drawing]:
        """MACs, those of attention, and the time against the side."""
        columns = (("macs", "GMACs", 1e9), ("attention_macs", "GMACs of attention", 1e9), ("seconds", "seconds", 1.0))
        sides = sorted({line["side"] for lines in measured.values() for line in lines})

        def draw(figure: Figure) -> None:
            for axis, (column, text, unit) in zip(figure.subplots(1, 3), columns, strict=True):
                for number, (name, lines) in enumerate(measured.items()):
                    known = [line for line in lines if line[column]]
                    points = [line["side"] for line in known], [line[column] / unit for line in known]
                    if known:
                        axis.plot(*points, color=color_of(number), marker="o", markersize=4, label=name)
                logarithmic(axis, "x", sides)
                if axis.lines:
                    logarithmic(axis, "y")
                label(axis, "", "side in pixels", text)
            figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=4)

        return [Drawing("Multiply-adds, those of attention alone, and time of one image by its side.", draw)]


def fitted_exponent(pixels: list[int], costs: list[float]) -> float | None:
    """The slope of the logarithm of a cost over that of the pixels, by least squares; None of less than two sizes."""
    known = [(math.log(size), math.log(cost)) for size, cost in zip(pixels, costs, strict=True) if cost]
    if len(known) < 2:
        return None
    sizes, values = np.array(known).T
    return float(np.polyfit(sizes, values, 1)[0])


def _timed(model: Any, image: torch.Tensor) -> float:
    start = time.perf_counter()
    model(image)
    if image.device.type == "cuda":
        torch.cuda.synchronize(image.device)
    return time.perf_counter() - start


class _Built(NamedTuple):
    """What a subject's backbone is built with.

    Args:
        name: Its name, or its class.
        arguments: Its arguments.
        size: Height and width that it is made for.
        channels: What its images hold.
    """

    name: Any
    arguments: dict[str, Any]
    size: tuple[int, int]
    channels: Channels = RGB

    @classmethod
    def of(cls, subject: Subject) -> "_Built":
        """That of a subject."""
        if not isinstance(subject, RunSubject):
            known: Any = get_pretrained_cfg(subject.given)
            return cls(subject.given, {}, tuple(known.input_size[-2:]) if known else (224, 224))
        config = subject.experiment.config
        size, images = config.data.image_size, row_images(config.data.image).for_network
        sides = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
        channels = Channels(images["num_channels"] or RGB.count, images["are_grey"])
        return cls(plain(config.model.backbone), plain(config.model.backbone_args) or {}, sides, channels)

    def at_side(self, first: int, side: int) -> Backbone:
        """A backbone without trained weights at a side, with the windows that it has at the first one.

        Raises:
            InputError: It does not support the size.
        """
        more: dict[str, Any] = {"backbone_args": self.arguments, "channels": self.channels}
        backbone = create_backbone(self.name, first, False, **more)
        if side != first:
            windows = scaled_windows(backbone.model, (first, first), (side, side))
            if windows is None:
                backbone = create_backbone(self.name, side, False, **more)
            elif not windows:
                raise InputError(
                    f"{self.name} has no windows at {side} px. Name other sides, multiples of {first}: --sides."
                )
            else:
                backbone.model.set_input_size(img_size=(side, side), window_size=windows)
        for module in backbone.modules():  # fused functions are counted as one, and computed in another order
            if hasattr(module, "fused_attn"):
                module.fused_attn = False  # type: ignore[assignment]
        return backbone
