"""Predicted against true numbers, and residuals; of labels, the probabilities of rows with and without each."""

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from swinft.run.report.contents import ReportInput
from swinft.run.report.outcomes import Binary, binaries, has_labels
from swinft.run.report.section import Section, render
from swinft.run.report.svg import Frame, figure, span

SHOWN = 6  # numbers
SHOWN_LABELS = 24
POINTS = 4000  # of a scatter plot: more make the page large, and hide one another
BINS = 40
SEED = 0
NUMBERS = "Out-of-fold predictions of each row, by a network that was not trained on it."
LABELS = "Probabilities of rows that have the label and of those that do not; the less they overlap, the better."


def section(report: ReportInput) -> Section | None:
    """The section; none for classes that are not soft, whose confusion says as much, and for masks."""
    base = report.schema.base
    if (base.are_classes and not base.is_soft) or base.are_maps or not len(report.rows):
        return None
    if has_labels(report):
        every = binaries(report, range(min(SHOWN_LABELS, len(report.outputs))))
        figures = [_separation(each) for each in every]
        lead = LABELS + _rest(len(report.outputs), SHOWN_LABELS)
        return Section("separation", "Probabilities", lead, render("sections/figures.html", figures=figures))
    figures = [each for k in range(min(SHOWN, len(report.outputs))) for each in _of_output(report, k)]
    sampled = f" Points are of {POINTS:,} rows, drawn at random." if len(report.rows) > POINTS else ""
    lead = NUMBERS + _rest(len(report.outputs), SHOWN) + sampled
    return Section("numbers", "Predicted and true", lead, render("sections/figures.html", figures=figures))


def _rest(number: int, shown: int) -> str:
    return f" Shown are the first {shown} of {number}." if number > shown else ""


def _of_output(report: ReportInput, k: int) -> list[Markup]:
    """Predicted against true, residuals against predicted, and their distribution."""
    known = np.isfinite(report.targets[:, k])
    true, said = report.targets[known, k].astype(np.float64), report.values[known, k].astype(np.float64)
    if not len(true):
        return []
    name, error = report.outputs[k], said - true
    drawn = np.arange(len(true))
    if len(true) > POINTS:
        drawn = np.sort(np.random.default_rng(SEED).choice(len(true), POINTS, replace=False))
    both = span(true, said)
    style = "dots many c0" if len(drawn) > 300 else "dots c0"
    against = Frame.of(both, both, f"true {name}", f"predicted {name}")
    first = (
        against.axes() + against.line(both, both, "dashed soft-line") + against.dots(true[drawn], said[drawn], style)
    )
    x_range = span(said)
    residuals = Frame.of(x_range, span(error, [0.0]), f"predicted {name}", "predicted − true")
    zero = residuals.line(x_range, (0, 0), "dashed soft-line")
    second = residuals.axes() + zero + residuals.dots(said[drawn], error[drawn], style)
    edges = np.linspace(*span(error, [0.0]), BINS + 1)
    counts = np.histogram(error, edges)[0]
    frame = Frame.of((edges[0], edges[-1]), (0, float(counts.max()) * 1.05), "predicted − true", "rows", whole="y")
    third = (
        frame.axes()
        + frame.bars(edges, counts, "bars c0")
        + frame.line((0, 0), (frame.y.low, frame.y.high), "dashed soft-line")
    )
    return [
        figure(f"{name}: predicted against true", first),
        figure(f"{name}: residuals", second),
        figure(f"{name}: distribution of residuals", third),
    ]


def _separation(label: Binary) -> Markup:
    edges = np.linspace(0, 1, 26)
    groups: list[NDArray[np.int64]] = [
        np.histogram(label.scores[each], edges)[0] for each in (~label.truth, label.truth)
    ]
    frame = Frame.of(
        (0.0, 1.0), (0, max(1.0, float(max(each.max() for each in groups))) * 1.05), "probability", "rows", whole="y"
    )
    content = frame.axes() + frame.bars(edges, groups[0], "bars c0") + frame.bars(edges, groups[1], "bars c1")
    return figure(label.name, content, legend=[("absent", "c0"), ("present", "c1")])
