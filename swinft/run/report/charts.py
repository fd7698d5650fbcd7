"""Charts of lines: an SVG, which scripts replace by an interactive one with the same data (uPlot)."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from swinft.pages.bidi import marked
from swinft.printing import visible
from swinft.run.report.svg import Frame, color, figure, span

FEW = 12  # points of a line that are drawn as dots as well
DECADES = 1e6  # of a logarithmic axis: a loss may be nearly 0, and of hundreds of powers of ten none is readable
DIGITS = 5  # significant digits of what is shown on hover


@dataclass(frozen=True)
class Line:
    """A line of a chart.

    Args:
        name: Its name in the legend.
        x: Ascending values.
        y: Values, NaN where there is none.
        color: Number of its colour.
        style: `line` or `dashed`.
    """

    name: str
    x: Sequence[float] | NDArray[np.float64]
    y: Sequence[float] | NDArray[np.float64]
    color: int
    style: str = "line"


@dataclass(frozen=True)
class Chart:
    """A chart of lines.

    Args:
        title: What it shows.
        x_label: What is below.
        y_label: What is beside.
        lines: Its lines.
        marks: Points that stand out: x, y and the number of a colour.
        x_range: The ends of the horizontal axis; None for those of the values.
        y_range: The ends of the vertical axis; None for those of the values.
        is_log: Whether the vertical axis is logarithmic.
        has_diagonal: Whether a line from corner to corner is drawn.
        whole: The axes whose values are whole numbers: `x`, `y` or `xy`.
    """

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    marks: Sequence[tuple[float, float, int]] = field(default=())
    x_range: tuple[float, float] | None = None
    y_range: tuple[float, float] | None = None
    is_log: bool = False
    has_diagonal: bool = False
    whole: str = ""

    def html(self) -> Markup:
        """The figure with its data; empty without any value."""
        if not any(np.isfinite(line.y).any() for line in self.lines):
            return Markup()
        xs, ys = [line.x for line in self.lines], [line.y for line in self.lines]
        x_range = self.x_range or span(*xs)
        y_range = self.y_range or (_log_span(ys) if self.is_log else span(*ys))
        frame = Frame.of(x_range, y_range, self.x_label, self.y_label, self.is_log, self.whole)
        parts = [frame.axes()]
        parts += [frame.line(x_range, y_range, "dashed soft-line")] if self.has_diagonal else []
        for line in self.lines:
            drawn = np.maximum(line.y, y_range[0]) if self.is_log else line.y  # NaN stays NaN
            parts.append(frame.line(line.x, drawn, f"{line.style} {color(line.color)}"))
            if len(line.x) <= FEW:
                parts.append(frame.dots(line.x, drawn, f"dots {color(line.color)}"))
        parts += [frame.dots([x], [y], f"mark {color(number)}") for x, y, number in self.marks]
        legend = [(line.name, color(line.color)) for line in self.lines] if len(self.lines) > 1 else []
        shown = figure(self.title, Markup("").join(parts), legend=legend)
        data = Markup('<script type="application/json">{}</script>').format(self._json(x_range, y_range))
        return Markup('<div class="plot">{}{}</div>').format(shown, data)

    def _json(self, x_range: tuple[float, float], y_range: tuple[float, float]) -> Markup:
        """What the script draws; `<` is escaped, so that no name can end the element."""
        content = {
            "x": marked(visible(self.x_label)),
            "y": marked(visible(self.y_label)),
            "xRange": x_range,
            "yRange": y_range,
            "log": self.is_log,
            "diagonal": self.has_diagonal,
            "whole": self.whole,
            "lines": [
                {
                    "name": marked(visible(line.name)),
                    "color": line.color % 10,
                    "style": line.style,
                    "x": _rounded(line.x),
                    "y": _rounded(line.y),
                }
                for line in self.lines
            ],
            "dots": [len(line.x) <= FEW for line in self.lines],
            "marks": [[*_rounded([x, y]), number % 10] for x, y, number in self.marks],
        }
        text = json.dumps(content, separators=(",", ":"), allow_nan=False)
        for character in "<>&":
            text = text.replace(character, f"\\u{ord(character):04x}")
        return Markup(text)


def _log_span(values: Sequence[ArrayLike]) -> tuple[float, float]:
    every = np.concatenate([np.asarray(each, dtype=np.float64) for each in values])
    every = every[np.isfinite(every) & (every > 0)]
    low, high = (float(every.min()), float(every.max())) if len(every) else (0.1, 1.0)
    return max(low, high / DECADES) / 1.3, high * 1.3


def _rounded(values: Iterable[float]) -> list[Any]:
    """Values with few digits, null where they are not finite."""
    return [float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None for value in map(float, values)]
