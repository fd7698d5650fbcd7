"""The training loss over two random directions of the weights, scaled filter by filter (Li et al., 2018).

Shapes: G points along a side.
"""

from collections.abc import Mapping
from fnmatch import fnmatch
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from swinft.laboratory.hessian import LOSSES, NLL
from swinft.laboratory.instrument import Instrument, Line
from swinft.laboratory.subjects import RunSubject, Subject
from swinft.laboratory.training_loss import ABOUT, TrainingLoss, l2, normal
from swinft.laboratory.training_options import LandscapeSettings
from swinft.model.network import ImageModel
from swinft.pages.figures import INK, Drawing, color_of, label, panels

COLUMNS = {NLL: "nll", LOSSES[1]: "nll_l2"}


class Landscape(Instrument[LandscapeSettings]):
    """Measures the loss on a grid around the weights."""

    name = "landscape"
    title = "Loss landscape"
    about = (
        "The training loss around the trained weights, on a plane of two random directions. Each filter (a row of a "
        "weight matrix, an output channel of a convolution) of a direction has the norm of the network's, so that "
        "networks of other scales can be compared (Li et al., Visualizing the Loss Landscape of Neural Nets, 2018); "
        "biases, norms and position tables do not move. At distance 1 a filter has moved by its own norm. In Park and "
        "Kim (2022, figure 1) the landscape of NLL + L2 is flatter around a ViT than around a ResNet.",
        "The rise is the mean increase of the loss over the points of a ring. A point is not convex if the second "
        "differences of its neighbours have a negative eigenvalue.",
        ABOUT,
    )

    def __init__(self, settings: LandscapeSettings) -> None:
        super().__init__(settings)
        self._losses: dict[str, TrainingLoss] = {}

    def _loss(self, subject: RunSubject) -> TrainingLoss:
        """The loss of a subject, whose rows are decoded once."""
        settings = self.settings
        rows = settings.training_rows // settings.mini_batch * settings.mini_batch
        return self._losses.setdefault(subject.given, TrainingLoss(subject, rows, settings.mini_batch))

    def check(self, subject: Subject) -> None:
        """Refuses a run with too few rows for a mini-batch."""
        assert isinstance(subject, RunSubject)
        self._loss(subject).check()

    def _axis(self) -> list[float]:
        """Coordinates of the grid; 0 is one of them exactly."""
        half = self.settings.points // 2
        return [self.settings.span * step / half for step in range(-half, half + 1)]

    def steps(self, subject: Subject) -> list[str]:
        """The rows of the grid."""
        return [f"row {number}" for number in range(self.settings.points)]

    def measure(self, subject: Subject, step: str) -> list[Line]:
        """The losses of one row of the grid."""
        assert isinstance(subject, RunSubject)
        loss, net = self._loss(subject), subject.net
        decays = loss.decays(net, self.settings.weight_decay)
        ways = directions(subject, net)
        y = self._axis()[int(step.rpartition(" ")[2])]
        weights = [parameter.detach().clone() for parameter in net.parameters()]
        lines: list[Line] = []
        try:
            for x in self._axis():
                move(net, weights, ways, (x, y))
                with torch.no_grad():
                    values = [float(loss.of(net, number)) for number in range(len(loss.batches))]
                    mean = float(np.mean(values))
                    lines.append({"x": x, "y": y, "nll": mean, "nll_l2": mean + float(l2(net, decays))})
        finally:
            move(net, weights, ways, (0.0, 0.0))
        return lines

    def summarize(self, lines: list[Line]) -> dict[str, Any]:
        """The loss at the centre, how fast it rises, and how much of the plane is not convex."""
        found: dict[str, Any] = {}
        for loss, column in COLUMNS.items():
            centre = next((line[column] for line in lines if line["x"] == line["y"] == 0), None)
            found[f"{loss}: centre"] = centre
            for radius in (0.25, 0.5, 1.0):
                found[f"{loss}: rise at {radius:g}"] = _rise(lines, column, centre, radius, self.settings.span)
            found[f"{loss}: share of points that are not convex"] = nonconvex_share(*surface(lines, column))
        return found

    def notes(self, summary: dict[str, Any]) -> list[str]:
        """How flat and how convex it is."""
        rise, share = summary[f"{NLL}: rise at 0.5"], summary[f"{NLL}: share of points that are not convex"]
        parts = [] if rise is None else [f"At distance 0.5 the loss has risen by {rise:.3g}"]
        parts += [] if share is None else [f"{share:.0%} of the points of the plane are not convex"]
        return [f"{'; '.join(parts)}."] if parts else []

    def figures(self, measured: Mapping[str, list[Line]]) -> list[Drawing]:
        """Contours of each subject, and cuts through the centre."""
        found = []
        for loss, column in COLUMNS.items():
            found.append(Drawing(f"{loss}: contours over the plane.", _contours(measured, column), 3.4))

        def cuts(figure: Figure) -> None:
            for axis, (loss, column) in zip(panels(figure, 2, 2), COLUMNS.items(), strict=True):
                for place, (name, lines) in enumerate(measured.items()):
                    cut = sorted((line["x"], line[column]) for line in lines if line["y"] == 0)
                    axis.plot(*zip(*cut, strict=True), color=color_of(place), label=name) if cut else None
                label(axis, loss, "distance along the first direction", "loss")
            figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=6)

        return [*found, Drawing("The loss along the first direction.", cuts)]


def directions(subject: RunSubject, net: ImageModel) -> tuple[list[Tensor], list[Tensor]]:
    """Two random directions with a tensor for each parameter, each filter with the norm of the network's."""
    model: Any = net.backbone.model
    tables = list(model.no_weight_decay()) if hasattr(model, "no_weight_decay") else []
    found: tuple[list[Tensor], list[Tensor]] = ([], [])
    for way, tensors in enumerate(found):
        for name, parameter in net.named_parameters():
            short = name.removeprefix("backbone.model.")
            is_fixed = parameter.ndim < 2 or any(fnmatch(short, pattern) for pattern in tables)
            drawn = normal(subject.generator(f"direction {way} {name}"), parameter)
            tensors.append(torch.zeros_like(drawn) if is_fixed else filter_normalised(drawn, parameter.detach()))
    return found


def filter_normalised(direction: Tensor, weight: Tensor) -> Tensor:
    """A direction whose filters, its entries along the first dimension, have the norms of those of a weight."""
    norms, lengths = (each.flatten(1).norm(dim=1) for each in (weight, direction))
    scale = norms / lengths.clamp(min=1e-10)
    scaled: Tensor = direction * scale.view(-1, *[1] * (direction.ndim - 1))
    return scaled


def move(
    net: nn.Module, weights: list[Tensor], ways: tuple[list[Tensor], list[Tensor]], to: tuple[float, float]
) -> None:
    """Moves a network's parameters to a point of the plane, exactly back at (0, 0)."""
    with torch.no_grad():
        for parameter, weight, first, second in zip(net.parameters(), weights, *ways, strict=True):
            parameter.copy_(weight + to[0] * first + to[1] * second)


def surface(lines: list[Line], column: str) -> tuple[NDArray[np.float64], float]:
    """Losses (rows, G) of the measured rows, and the distance of two points; NaN where infinite."""
    rows = sorted({line["y"] for line in lines})
    columns = sorted({line["x"] for line in lines})
    known = {(line["y"], line["x"]): line[column] for line in lines}
    values = [[known[y, x] if known[y, x] is not None else np.nan for x in columns] for y in rows]
    return np.array(values, dtype=np.float64), float(np.diff(columns).mean()) if len(columns) > 1 else 1.0


def nonconvex_share(values: NDArray[np.float64], distance: float) -> float | None:
    """The share of inner points of a grid whose second differences have a negative eigenvalue.

    Args:
        values: Losses (G, G).
        distance: Of two points.

    Returns:
        None if there is no inner point.
    """
    if min(values.shape) < 3:
        return None
    middle = values[1:-1, 1:-1]
    across = values[1:-1, 2:] - 2 * middle + values[1:-1, :-2]
    down = values[2:, 1:-1] - 2 * middle + values[:-2, 1:-1]
    mixed = (values[2:, 2:] - values[2:, :-2] - values[:-2, 2:] + values[:-2, :-2]) / 4
    smallest = (across + down) / 2 - np.hypot((across - down) / 2, mixed)
    # Differences of values of float32 are rounding below this.
    rounding = 1e-6 * np.abs(middle)
    known = np.isfinite(smallest)
    return float((smallest[known] < -rounding[known]).mean()) if known.any() else None


def _rise(lines: list[Line], column: str, centre: float | None, radius: float, span: float) -> float | None:
    """The mean rise of the loss over the points of a ring around the centre, one step of the grid wide."""
    near = sorted({abs(line["x"]) for line in lines})
    width = near[1] if len(near) > 1 else span
    around = [line for line in lines if line["x"] or line["y"]]  # of a coarse grid the centre is near a small ring
    distances = [(abs(float(np.hypot(line["x"], line["y"])) - radius), line[column]) for line in around]
    found = [value for distance, value in distances if distance <= width / 2 and value is not None]
    return float(np.mean(found)) - centre if found and centre is not None and radius <= span else None


def _short(level: float) -> str:
    return f"{level:.2g}" if abs(level) < 10 else f"{level:,.0f}"


def _contours(measured: Mapping[str, list[Line]], column: str) -> Any:
    def draw(figure: Figure) -> None:
        for axis, (name, lines) in zip(panels(figure, len(measured)), measured.items(), strict=True):
            values, _ = surface(lines, column)
            x, y = (sorted({line[key] for line in lines}) for key in ("x", "y"))
            if min(values.shape) > 1 and np.isfinite(values).any():
                low, high = float(np.nanmin(values)), float(np.nanmax(values))
                # Steep walls would hide the valley: levels grow with the square of their number.
                levels = low + (max(high - low, 1e-9)) * np.linspace(0, 1, 12) ** 2
                lines_of = axis.contour(x, y, values, levels=levels, cmap="viridis", linewidths=1)
                axis.clabel(
                    lines_of,
                    levels[2::3],
                    fmt=lambda level: f"{level:.2g}" if level < 10 else f"{level:,.0f}",
                    fontsize=7,
                )
            axis.plot(0, 0, marker="+", color=INK, markersize=8)
            axis.set_aspect("equal")
            label(axis, name, "", "")

    return draw
