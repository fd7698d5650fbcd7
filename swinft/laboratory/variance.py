"""The variance of feature maps, layer by layer.

Shapes: B batch, C channels, H and W positions.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from swinft.laboratory.by_layer import ByLayer, by_kind, layers_panel
from swinft.laboratory.instrument import Line
from swinft.laboratory.layers import Layer
from swinft.pages.figures import Drawing
from swinft.system.precision import in_float64


def over_positions(features: Tensor) -> Tensor:
    """The variance of (B, C, H, W) over positions, its mean over channels, (B,)."""
    return in_float64(features).flatten(2).var(2, correction=0).mean(1)


class Variance(ByLayer):
    """Measures the variance of feature maps over positions and over rows."""

    name = "variance"
    title = "Variance of feature maps"
    about = (
        "The variance of each layer's feature map: over the positions of an image (mean over channels and rows), and "
        "over the rows at a position (mean over channels and positions). The ratio of a layer is its variance over "
        "positions divided by that of the layer before: below 1 it averages, above 1 it spreads. In Park and Kim, How "
        "Do Vision Transformers Work? (ICLR 2022, figure 9), attention reduces the variance, MLPs and convolutions "
        "increase it, and it peaks at the ends of stages.",
        "A ratio compares maps of one size: layers that change the number of positions have none.",
    )

    def read(self, features: Tensor) -> dict[str, Tensor]:
        """The variance over positions, and what that over rows is made of."""
        found = in_float64(features)
        return {"positions": over_positions(found), "sum": found, "squares": found.square()}

    def lines_of(self, layer: Layer, means: Mapping[str, Tensor], before: Line, image: Line) -> list[Line]:
        """Both variances."""
        positions = float(means["positions"])
        samples = float((means["squares"] - means["sum"].square()).clamp(min=0).mean())
        is_comparable = not layer.is_resized and before["positions"] > 0
        ratio = positions / before["positions"] if is_comparable else float("nan")
        return [{"positions": positions, "rows": samples, "ratio": ratio}]

    def summarize(self, lines: list[Line]) -> dict[str, Any]:
        """The geometric mean of the ratios of each kind of layer."""
        found = by_kind(lines, "ratio", lambda values: float(np.exp(np.mean(np.log(values)))))
        return {f"variance ratio of {kind}": value for kind, value in found.items()}

    def notes(self, summary: dict[str, Any]) -> list[str]:
        """Which kinds of layer reduce the variance."""
        found = []
        for key, value in summary.items():
            times = f"{value:.3g}"
            what = "keep" if float(times) == 1 else "reduce" if value < 1 else "increase"
            found.append(f"{key.removeprefix('variance ratio of ')} layers {what} the variance: × {times} a layer.")
        return found

    def figures(self, measured: Mapping[str, list[Line]]) -> list[Drawing]:
        """Variances by depth, and the ratio of every layer."""

        def variances(figure: Figure) -> None:
            layers_panel(figure, measured, "positions", "variance over positions", is_log=True)

        def rows(figure: Figure) -> None:
            layers_panel(figure, measured, "rows", "variance over rows", is_log=True)

        def ratios(figure: Figure) -> None:
            layers_panel(figure, measured, "ratio", "ratio to the layer before", is_log=True, level=1)

        return [
            Drawing("Variance over the positions of an image, by depth.", variances),
            Drawing("Variance over rows at a position, by depth.", rows),
            Drawing("Variance over positions divided by that of the layer before; below 1 a layer averages.", ratios),
        ]
