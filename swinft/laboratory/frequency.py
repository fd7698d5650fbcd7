"""The spectrum of feature maps, layer by layer: which layers remove high frequencies, and which add them.

Shapes: B batch, C channels, H and W positions, F frequencies.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from swinft.laboratory.by_layer import ByLayer, by_kind, layers_panel
from swinft.laboratory.instrument import Line
from swinft.laboratory.layers import Layer
from swinft.pages.figures import Drawing, label, panels
from swinft.system.precision import in_float64

SMALLEST = 1e-6  # added to amplitudes before the logarithm, as in the paper's code
FROM = 2 / 3  # frequencies from here to 1 count as high


def diagonal(height: int, width: int) -> tuple[list[int], list[int], list[float]]:
    """Places of the half diagonal of a spectrum, from the mean of the map to its highest frequency.

    Args:
        height: H.
        width: W.

    Returns:
        Rows and columns in `fft2`, and the frequencies in units of π, from 0 to 1; a side of odd length ends below 1.
    """
    count = min(height, width) // 2
    places = np.arange(count + 1) / max(1, count)
    rows, columns = (np.round(places * (side // 2)).astype(int) for side in (height, width))
    shorter = rows if height <= width else columns
    return rows.tolist(), columns.tolist(), (2 * shorter / min(height, width)).tolist()


def log_amplitudes(features: Tensor) -> Tensor:
    """The logarithm of the amplitudes on the diagonal of the spectrum of (B, C, H, W), mean over channels, (B, F)."""
    rows, columns, _ = diagonal(features.shape[2], features.shape[3])
    spectrum = torch.fft.fft2(in_float64(features))[:, :, rows, columns]
    found: Tensor = (spectrum.abs() + SMALLEST).log().mean(1)
    return found


class Frequency(ByLayer):
    """Measures the Fourier spectrum of every layer, and how each layer changes it."""

    name = "frequency"
    title = "Frequencies of feature maps"
    about = (
        "The Fourier spectrum of each layer's feature map on its diagonal: the logarithm of the amplitude, mean over "
        "rows and channels, less that of frequency 0. Curves near 0 at 1.0 π keep high frequencies; low ones have lost "
        "them. The change of a layer is its mean Δ log amplitude over the upper third of the frequencies, less that of "
        "the layer before: below 0 the layer is a low-pass filter, above 0 a high-pass filter.",
        "In Park and Kim, How Do Vision Transformers Work? (ICLR 2022, figures 2a and 8), attention reduces high "
        "frequencies, except in the first layers, and MLPs and convolutions amplify them. A change compares maps of "
        "one size: layers that change the number of positions have none.",
    )

    def read(self, features: Tensor) -> dict[str, Tensor]:
        """The spectrum."""
        return {"amplitudes": log_amplitudes(features)}

    def lines_of(self, layer: Layer, means: Mapping[str, Tensor], before: Line, image: Line) -> list[Line]:
        """A line for each frequency."""
        amplitudes = means["amplitudes"].numpy()
        frequencies = np.array(diagonal(layer.height, layer.width)[2])
        delta = amplitudes - amplitudes[0]
        is_high = frequencies >= FROM
        high = float(delta[is_high].mean()) if is_high.any() else float("nan")
        change = float("nan") if layer.is_resized else high - before["high"]
        of_layer = {"high": high, "of_image": high - image.get("high", high), "change": change}
        return [
            {"frequency": float(frequency), "log_amplitude": float(value), "delta": float(difference)} | of_layer
            for frequency, value, difference in zip(frequencies, amplitudes, delta, strict=True)
        ]

    def summarize(self, lines: list[Line]) -> dict[str, Any]:
        """The mean change of each kind of layer, and how much of the image's high frequencies the last layer has."""
        layers = one_per_layer(lines)
        found = {
            f"change of high frequencies by {kind}": value
            for kind, value in by_kind(layers, "change", lambda values: float(np.mean(values))).items()
        }
        return {**found, "last layer against the image": layers[-1]["of_image"]}

    def notes(self, summary: dict[str, Any]) -> list[str]:
        """Which kinds of layer are low-pass or high-pass filters."""
        start, found = "change of high frequencies by ", []
        for key, value in summary.items():
            if key.startswith(start):
                factor = f"{np.exp(value):.3g}"
                what = (
                    "neither low-pass nor high-pass" if float(factor) == 1 else "low-pass" if value < 0 else "high-pass"
                )
                of_kind = f"{key.removeprefix(start)} layers are {what}: {value:+.3g} a layer, a factor of {factor}"
                found.append(f"{of_kind} on the amplitude.")
        return found

    def figures(self, measured: Mapping[str, list[Line]]) -> list[Drawing]:
        """The curves of all layers, the highest frequencies by depth, and the change of every layer."""

        def curves(figure: Figure) -> None:
            for axis, (name, lines) in zip(panels(figure, len(measured), share=True), measured.items(), strict=True):
                _curves(axis, lines)
                label(axis, name, "frequency / π", "Δ log amplitude")

        layers = {name: one_per_layer(lines) for name, lines in measured.items()}

        def high(figure: Figure) -> None:
            layers_panel(figure, layers, "high", "Δ log amplitude, high")

        def change(figure: Figure) -> None:
            layers_panel(figure, layers, "change", "change by the layer", level=0)

        height = 3.6 * -(-len(measured) // 3)
        return [
            Drawing("Δ log amplitude of every layer, from the image (dark) to the last one (bright).", curves, height),
            Drawing("Δ log amplitude of high frequencies (from ⅔ π on) by depth.", high),
            Drawing("Change of the high frequencies by each layer: below 0 low-pass, above 0 high-pass.", change),
        ]


def one_per_layer(lines: list[Line]) -> list[Line]:
    """The first line of each layer."""
    return list({line["number"]: line for line in reversed(lines)}.values())[::-1]


def _curves(axis: Any, lines: list[Line]) -> None:
    import matplotlib

    colors = matplotlib.colormaps["viridis"]
    numbers = sorted({line["number"] for line in lines})
    for number in numbers:
        of_layer = [line for line in lines if line["number"] == number]
        points = [line["frequency"] for line in of_layer], [line["delta"] for line in of_layer]
        axis.plot(*points, color=colors(0.9 * number / max(1, numbers[-1])), linewidth=1)
