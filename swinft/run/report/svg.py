"""Figures as SVG that takes its colours from the page, so that it is right in light and dark; text stays text.

A point of a figure is in units of its view box, `WIDTH` wide; the page scales it to the width that there is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from numpy.typing import ArrayLike, NDArray

from swinft.pages.bidi import isolated, marked
from swinft.printing import shortened, visible

WIDTH, HEIGHT = 380, 260
LEFT, RIGHT, TOP, BOTTOM = 52, 10, 10, 40  # room for the labels of the axes
DIGIT = 6.4  # width of a digit on an axis
COLORS = 10  # classes c0 to c9 of page.css
FIGURE = (
    '<figure class="chart"><figcaption>{}</figcaption>{}<svg viewBox="0 0 {} {:.0f}" role="img"><title>{}</title>{}'
    "</svg></figure>"
)


def text(x: float, y: float, content: str, anchor: str = "middle", more: str = "", most: int = 24) -> Markup:
    """A label.

    Args:
        x: Where it is anchored.
        y: Its base line.
        content: What it says, cut to `most` columns; the whole is shown on hover.
        anchor: `start`, `middle` or `end`.
        more: A class.
        most: Columns.
    """
    name = visible(content)
    short = shortened(name, most)
    title = Markup("<title>{}</title>").format(marked(name)) if short != name else ""
    form = '<text x="{:.1f}" y="{:.1f}" text-anchor="{}" class="{}">{}{}</text>'
    return Markup(form).format(x, y, anchor, more, marked(short), title)


@dataclass(frozen=True)
class Scale:
    """From values to points along one axis.

    Args:
        low: The value at `start`.
        high: The value at `end`.
        start: Its point.
        end: Its point.
        is_log: Whether equal ratios are equal distances; then both values are above 0.
        is_whole: Whether its values are whole numbers, as epochs and counts are.
    """

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False
    is_whole: bool = False

    def __call__(self, values: ArrayLike) -> NDArray[np.float64]:
        """Points of values."""
        low, high, found = self.low, self.high, np.asarray(values, dtype=np.float64)
        if self.is_log:
            low, high, found = math.log10(low), math.log10(high), np.log10(np.maximum(found, 1e-300))
        return np.asarray(self.start + (found - low) / (high - low) * (self.end - self.start))

    def ticks(self, most: int = 6) -> list[float]:
        """Round values within the axis."""
        if not self.is_log:
            return nice_ticks(self.low, self.high, most, self.is_whole)
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        steps = (1, 2, 5) if len(powers) <= 3 else (1,)
        return [v for p in powers for s in steps if self.low * 0.999 <= (v := s * 10.0**p) <= self.high * 1.001]


def nice_ticks(low: float, high: float, most: int = 6, is_whole: bool = False) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from `low` to `high`, at most so many; or of whole numbers alone."""
    size = 10 ** math.floor(math.log10((high - low) / most))
    size = max(1.0, size) if is_whole else size
    step = next(size * each for each in (1, 2, 5, 10, 20) if (high - low) / (size * each) <= most)
    first = math.ceil(low / step - 1e-9)
    return [round(first + k, 0) * step for k in range(math.floor(high / step + 1e-9) - first + 1)]


def span(*values: ArrayLike, margin: float = 0.04, floor: float | None = None) -> tuple[float, float]:
    """The range of all finite values, a little wider; never empty.

    Args:
        values: Values.
        margin: Share of the range that is added on both sides.
        floor: The lowest end; None for none.
    """
    every = np.concatenate([np.asarray(each, dtype=np.float64).ravel() for each in values])
    every = every[np.isfinite(every)]
    low, high = (float(every.min()), float(every.max())) if len(every) else (0.0, 1.0)
    room = (high - low) * margin or abs(low) * 0.05 or 0.5
    low, high = low - room, high + room
    return (low if floor is None else max(low, floor)), high


def label_of(value: float) -> str:
    """A number on an axis: `0`, `0.25`, `1,500`, `2e-05`."""
    if value == 0:
        return "0"
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e7 else f"{value:.4g}"


@dataclass(frozen=True)
class Frame:
    """The axes of a figure.

    Args:
        x: The horizontal scale.
        y: The vertical scale.
        x_label: What is below.
        y_label: What is beside.
    """

    x: Scale
    y: Scale
    x_label: str
    y_label: str

    @classmethod
    def of(
        cls,
        x_range: tuple[float, float],
        y_range: tuple[float, float],
        x_label: str,
        y_label: str,
        is_log: bool = False,
        whole: str = "",
        height: int = HEIGHT,
    ) -> "Frame":
        """A frame of the whole figure.

        Args:
            x_range: The ends of the horizontal axis.
            y_range: The ends of the vertical axis.
            x_label: What is below.
            y_label: What is beside.
            is_log: Whether the vertical axis is logarithmic.
            whole: The axes whose values are whole numbers: `x`, `y` or `xy`.
            height: Its height.
        """
        y = Scale(*y_range, height - BOTTOM, TOP, is_log, "y" in whole)
        widest = max((len(label_of(value)) for value in y.ticks()), default=0)
        x = Scale(*x_range, max(LEFT, 24 + DIGIT * widest), WIDTH - RIGHT, is_whole="x" in whole)
        return cls(x, y, x_label, y_label)

    def axes(self, x_ticks: Sequence[tuple[float, str]] | None = None) -> Markup:
        """Grid, ticks and labels.

        Args:
            x_ticks: Values and their labels below; None for round numbers.
        """
        x, y = self.x, self.y
        ticks = [(value, label_of(value)) for value in x.ticks(5)] if x_ticks is None else x_ticks
        if x_ticks is None and sum(len(label) + 2 for _, label in ticks) * DIGIT > x.end - x.start:
            ticks = ticks[::2]
        parts = []
        for value in y.ticks():
            at = float(y(value))
            form = '<path class="grid" d="M{:.1f} {:.1f}H{:.1f}"/>'
            parts.append(Markup(form).format(x.start, at, x.end))
            parts.append(text(x.start - 6, at + 4, label_of(value), "end", "tick"))
        for value, name in ticks:
            parts.append(text(float(x(value)), y.start + 15, name, "middle", "tick", 14))
        parts.append(Markup('<path class="axis" d="M{:.1f} {:.1f}H{:.1f}"/>').format(x.start, y.start, x.end))
        parts.append(text((x.start + x.end) / 2, y.start + 33, self.x_label, most=46))
        middle = (y.start + y.end) / 2
        turned = '<g transform="translate(12 {:.1f}) rotate(-90)">{}</g>'
        parts.append(Markup(turned).format(middle, text(0, 0, self.y_label, most=34)))
        return Markup("").join(parts)

    def line(self, x: ArrayLike, y: ArrayLike, style: str) -> Markup:
        """A line through points; it is broken where a value is not finite.

        Args:
            x: Values.
            y: Values.
            style: Classes, as `line c0`.
        """
        at_x, at_y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        known = np.isfinite(at_x) & np.isfinite(at_y) & ((at_y > 0) | (not self.y.is_log))
        path, pen = [], "M"
        for is_known, a, b in zip(known, self.x(at_x), self.y(np.where(known, at_y, 1)), strict=True):
            path.append(f"{pen}{a:.1f} {b:.1f}" if is_known else "")
            pen = "L" if is_known else "M"
        return Markup('<path class="{}" d="{}"/>').format(style, "".join(path))

    def dots(self, x: ArrayLike, y: ArrayLike, style: str) -> Markup:
        """Points, as one path: thousands of elements would slow the page down.

        Args:
            x: Values.
            y: Values.
            style: Classes, as `dots c0`.
        """
        at_x, at_y = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
        known = np.isfinite(at_x) & np.isfinite(at_y)
        places = zip(self.x(at_x[known]), self.y(at_y[known]), strict=True)
        return Markup('<path class="{}" d="{}"/>').format(style, "".join(f"M{a:.1f} {b:.1f}h0" for a, b in places))

    def bars(self, edges: ArrayLike, heights: ArrayLike, style: str) -> Markup:
        """Bars on the horizontal axis, between edges (B + 1,), of heights (B,), as one path."""
        x, base = self.x(edges), self.y.start
        tops = self.y(np.minimum(np.asarray(heights, dtype=np.float64), self.y.high))
        path = "".join(
            f"M{a:.1f} {base:.1f}V{top:.1f}H{b:.1f}V{base:.1f}z"
            for a, b, top in zip(x[:-1], x[1:], tops, strict=True)
            if base - top > 0.05
        )
        return Markup('<path class="{}" d="{}"/>').format(style, path)


def figure(title: str, content: Markup, height: float = HEIGHT, legend: Sequence[tuple[str, str]] = ()) -> Markup:
    """A figure with its caption.

    Args:
        title: The caption, also read by screen readers.
        content: Elements of the SVG.
        height: Its height; `WIDTH` is its width.
        legend: Names with the class of their colour.
    """
    items = Markup("").join(Markup('<li><i class="{}"></i>{}</li>').format(c, isolated(visible(n))) for n, c in legend)
    names = Markup('<ul class="legend">{}</ul>').format(items) if legend else ""
    return Markup(FIGURE).format(isolated(visible(title)), names, WIDTH, height, marked(visible(title)), content)


def color(number: int) -> str:
    """The class of a colour; after ten they start again."""
    return f"c{number % COLORS}"
