"""Eigenvalues of the Hessian of the training loss, mini-batch by mini-batch: how flat and how convex it is.

Shapes: P parameters, M steps of Lanczos.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from swinft.laboratory.instrument import Instrument, Line
from swinft.laboratory.spectrum import Product, hessian_product, lanczos, largest, power_iteration
from swinft.laboratory.subjects import RunSubject, Subject
from swinft.laboratory.training_loss import ABOUT, TrainingLoss, normal, twice_differentiable
from swinft.laboratory.training_options import HessianSettings
from swinft.pages.figures import SOFT, Drawing, color_of, label, panels, signed_logarithmic

NLL, WITH_L2 = "NLL", "NLL + L2"
LOSSES = (NLL, WITH_L2)
MAXIMUM, DENSITY = "maximum", "density"
LARGEST, NEGATIVE = "largest eigenvalue", "share of negative eigenvalues"  # of NLL, in the summary
# An eigenvalue below this share of the largest magnitude is a zero with rounding: it has no sign.
ZERO = 1e-4


class Hessian(Instrument[HessianSettings]):
    """Measures the spectrum of the Hessian."""

    name = "hessian"
    title = "Hessian of the training loss"
    about = (
        "The largest eigenvalues of the Hessian of each mini-batch's loss (max-eigenvalue spectrum), and the spectral "
        "density, both from products with vectors. Large eigenvalues are sharp directions; negative ones are those "
        "in which the loss is not convex. In Park and Kim, How Do Vision Transformers Work? (ICLR 2022, figure 1 and "
        "section 2), ViT has many negative eigenvalues in the early phase of training and small magnitudes, ResNet few "
        "negative ones and large magnitudes.",
        "Maxima are the eigenvalues of the largest magnitudes, of Lanczos with full reorthogonalisation or of power "
        "iteration with deflation. The density is a stochastic Lanczos quadrature: its nodes and weights from random "
        "vectors. A share of negative eigenvalues counts those of more than "
        f"{ZERO:g} of the largest magnitude; most eigenvalues of a network are nearly 0, and have no sign that can be "
        "measured.",
        ABOUT,
    )

    def __init__(self, settings: HessianSettings) -> None:
        super().__init__(settings)
        self._losses: dict[str, TrainingLoss] = {}

    def _loss(self, subject: RunSubject) -> TrainingLoss:
        """The loss of a subject, whose rows are decoded once."""
        settings = self.settings
        rows = settings.batches * settings.mini_batch
        return self._losses.setdefault(subject.given, TrainingLoss(subject, rows, settings.mini_batch))

    def steps(self, subject: Subject) -> list[str]:
        """The mini-batches."""
        assert isinstance(subject, RunSubject)
        return [f"batch {number}" for number in range(len(self._loss(subject).batches))]

    def measure(self, subject: Subject, step: str) -> list[Line]:
        """Eigenvalues and density of one mini-batch, of both losses."""
        assert isinstance(subject, RunSubject)
        loss, net, number = self._loss(subject), subject.net, int(step.rpartition(" ")[2])
        parameters = list(net.parameters())
        weights = loss.decays(net, self.settings.weight_decay)
        decays = torch.cat([torch.full((p.numel(),), d) for p, d in zip(parameters, weights, strict=True)]).to(
            subject.device
        )
        with twice_differentiable(subject.label), torch.enable_grad():
            value = loss.of(net, number)
            plain = hessian_product(value, parameters)

            def decayed(vector: Tensor) -> Tensor:
                return plain(vector) + decays * vector

            lines = []
            for name, product in zip(LOSSES, (plain, decayed), strict=True):
                starts = [
                    normal(subject.generator(f"{step} probe {probe}"), decays)
                    for probe in range(max(self.settings.probes, self.settings.maxima))
                ]
                first = {"batch": number, "loss": name, "nll": float(value.detach())}
                lines += [first | line for line in self._spectrum(product, starts)]
        return lines

    def _spectrum(self, product: Product, starts: Sequence[Tensor]) -> list[Line]:
        """Lines of the maxima and of the density of one matrix."""
        found = [lanczos(product, start, self.settings.lanczos_steps) for start in starts[: self.settings.probes]]
        if self.settings.method == "power":
            values, bounds = power_iteration(product, list(starts[: self.settings.maxima]))
        else:
            top = largest(found[0], self.settings.maxima)
            values, bounds = top.values.tolist(), top.residuals.tolist()
        rows = zip(values, bounds, strict=True)
        lines: list[Line] = [_line(MAXIMUM, place, value, 1.0, bound) for place, (value, bound) in enumerate(rows)]
        for probe, ritz in enumerate(found):
            nodes = zip(ritz.values.tolist(), ritz.weights.tolist(), ritz.residuals.tolist(), strict=True)
            lines += [_line(DENSITY, probe, *node) for node in nodes]
        return lines

    def summarize(self, lines: list[Line]) -> dict[str, Any]:
        """Magnitudes and signs."""
        found: dict[str, Any] = {"mini-batches": len({line["batch"] for line in lines})}
        for loss, ending in zip(LOSSES, ("", f", {WITH_L2}"), strict=True):
            maxima, density = _of(lines, loss, MAXIMUM), _of(lines, loss, DENSITY)
            top = [line["eigenvalue"] for line in lines if _is_top(line, loss) and line["eigenvalue"] is not None]
            positive = maxima[0][maxima[0] > 0]
            found[f"{LARGEST}{ending}"] = float(np.median(np.abs(top))) if top else None
            found[f"mean of positive maxima{ending}"] = float(positive.mean()) if len(positive) else None
            found[f"{NEGATIVE}{ending}"] = negative_share(*maxima)
            found[f"negative share of the density{ending}"] = negative_share(*density)
            found[f"mean of the density{ending}"] = _mean(*density)
        return found

    def notes(self, summary: dict[str, Any]) -> list[str]:
        """How sharp and how convex the loss is."""
        share, size = summary[NEGATIVE], summary[LARGEST]
        if size is None:
            return ["The eigenvalues are not finite."]
        convex = "none of the maxima is negative" if share == 0 else f"{share:.0%} of the maxima are negative"
        return [f"The largest eigenvalue of a mini-batch has a magnitude of {size:.3g} (median); {convex}."]

    def figures(self, measured: Mapping[str, list[Line]]) -> list[Drawing]:
        """Maxima of all mini-batches, and the densities."""

        def maxima(figure: Figure) -> None:
            _histograms(figure, measured, MAXIMUM)

        def density(figure: Figure) -> None:
            for axis, loss in zip(panels(figure, 2, 2), LOSSES, strict=True):
                found = [_of(lines, loss, DENSITY) for lines in measured.values()]
                linear = signed_logarithmic(axis, *(np.concatenate(each) for each in zip(*found, strict=True)))
                for place, (name, (values, weights)) in enumerate(zip(measured, found, strict=True)):
                    if len(values):
                        along, height = smoothed(np.arcsinh(values / linear), weights)
                        axis.plot(linear * np.sinh(along), height, color=color_of(place), linewidth=1.4, label=name)
                axis.axvline(0, color=SOFT, linewidth=1, linestyle="--")
                label(axis, loss, "eigenvalue", "share along the axis")
            figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=6)

        return [
            Drawing("The largest eigenvalues of all mini-batches: the max-eigenvalue spectrum.", maxima),
            Drawing("The spectral density, smoothed along the axis; below 0 the loss is not convex.", density),
        ]


def _line(what: str, place: int, value: float, weight: float, residual: float) -> Line:
    return {"what": what, "place": place, "eigenvalue": value, "weight": weight, "residual": residual}


def _is_top(line: Line, loss: str) -> bool:
    return bool(line["loss"] == loss and line["what"] == MAXIMUM and line["place"] == 0)


def _of(lines: list[Line], loss: str, what: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Eigenvalues with their weights."""
    rows = [line for line in lines if (line["loss"], line["what"]) == (loss, what) and line["eigenvalue"] is not None]
    return np.array([row["eigenvalue"] for row in rows]), np.array([row["weight"] for row in rows])


def negative_share(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    """The share of negative eigenvalues by weight, of those that have a sign; 0 if none has."""
    has_sign = np.abs(values) > ZERO * np.abs(values).max(initial=0)
    total = float(weights[has_sign].sum())
    return float(weights[has_sign & (values < 0)].sum()) / total if total > 0 else 0.0


def _mean(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float | None:
    return float((values * weights).sum() / weights.sum()) if len(values) else None


def smoothed(values: NDArray[np.float64], weights: NDArray[np.float64]) -> tuple[NDArray[Any], NDArray[Any]]:
    """A density from nodes and weights: a sum of normal curves, of a hundredth of the range."""
    low, high = float(values.min()), float(values.max())
    width = max((high - low) / 100, 1e-12)
    grid = np.linspace(low - 5 * width, high + 5 * width, 400)
    curves = np.exp(-0.5 * ((grid[:, None] - values) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    return grid, curves @ (weights / weights.sum())


def _histograms(figure: Figure, measured: Mapping[str, list[Line]], what: str) -> None:
    for axis, loss in zip(panels(figure, 2, 2), LOSSES, strict=True):
        found = [_of(lines, loss, what)[0] for lines in measured.values()]
        together = np.concatenate(found)
        linear = signed_logarithmic(axis, together)
        edges = linear * np.sinh(np.histogram_bin_edges(np.arcsinh(together / linear), bins=40))
        for place, (name, values) in enumerate(zip(measured, found, strict=True)):
            weights = np.full(len(values), 1 / max(1, len(values)))
            axis.hist(
                values,
                edges.tolist(),
                weights=weights,
                color=color_of(place),
                histtype="step",
                linewidth=1.6,
                label=name,
            )
        axis.axvline(0, color=SOFT, linewidth=1, linestyle="--")
        label(axis, loss, "eigenvalue", "share of the maxima")
    figure.legend(*axis.get_legend_handles_labels(), loc="outside upper center", ncols=6)
