"""How operations and time of a network grow with its image: linearly in the pixels, or quadratically.

Shapes: H and W pixels, equal here.
"""

import math
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from timm.models import get_pretrained_cfg
from torch.utils.flop_counter import FlopCounterMode

from swinft.errors import InputError
from swinft.laboratory.instrument import Instrument, Line
from swinft.laboratory.options import ScaleSettings
from swinft.laboratory.subjects import RunSubject, Subject
from swinft.model.backbones.input_size import scaled_windows
from swinft.model.backbones.timm_backbone import create_backbone
from swinft.pages.figures import Drawing, color_of, label, logarithmic
from swinft.run.config.parser import plain

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

    def steps(self, subject: Subject) -> list[str]:
        """Every size."""
        sides = self.settings.sides
        return [str(side) for side in sides or [multiple * _built_with(subject)[2] for multiple in MULTIPLES]]

    def measure(self, subject: Subject, step: str) -> list[Line]:
        """The cost at one size."""
        side = int(step)
        name, arguments, native = _built_with(subject)
        first = native if self.settings.sides is None else min(self.settings.sides)
        model = _at_side(name, arguments, first, side).to(subject.device).eval()
        image = torch.rand(1, 3, side, side, device=subject.device) * 255
        with torch.inference_mode():
            with FlopCounterMode(display=False) as counter:
                model(image)
            counts = {str(operation): count for operation, count in counter.get_flop_counts()["Global"].items()}
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


def _built_with(subject: Subject) -> tuple[Any, dict[str, Any], int]:
    """The name, the arguments and the native side of a subject's backbone.

    Raises:
        InputError: A run's images are not square.
    """
    if not isinstance(subject, RunSubject):
        known: Any = get_pretrained_cfg(subject.given)
        return subject.given, {}, int(known.input_size[-1]) if known else 224
    config = subject.experiment.config
    size = config.data.image_size
    if not isinstance(size, int) and size[0] != size[1]:
        raise InputError(f"{subject.label} has images of {size[0]} × {size[1]} px: name sides, like --sides 224,448.")
    arguments = plain(config.model.backbone_args) or {}
    return plain(config.model.backbone), arguments, size if isinstance(size, int) else int(size[0])


def _at_side(name: Any, arguments: dict[str, Any], first: int, side: int) -> Any:
    """A backbone without trained weights at a side, with the windows that it has at the first one.

    Raises:
        InputError: It does not support the size.
    """
    backbone = create_backbone(name, first, False, backbone_args=arguments)
    if side != first:
        windows = scaled_windows(backbone.model, (first, first), (side, side))
        if windows is None:
            backbone = create_backbone(name, side, False, backbone_args=arguments)
        elif not windows:
            raise InputError(f"{name} has no windows at {side} px. Name other sides, multiples of {first}: --sides.")
        else:
            backbone.model.set_input_size(img_size=(side, side), window_size=windows)
    for module in backbone.modules():  # fused functions are counted as one, and computed in another order
        if hasattr(module, "fused_attn"):
            module.fused_attn = False  # type: ignore[assignment]
    return backbone
