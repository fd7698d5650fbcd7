"""Figures of the pages: inline SVG whose lines and texts have the colours of the page, light or dark."""

import hashlib
import io
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogFormatter, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from swinft.printing import format_number

WIDTH = 10.0  # inches: at 72 per inch about that of the page
# Colours that stand for those of the page, which are variables in its style; no palette has them.
INK, SOFT, GRID = "#010203", "#040506", "#070809"
PALETTE = tuple(f"#0a0b{number:02x}" for number in range(7))
# Those of `base.css` in light, for a file of its own. The palette is told apart with any colour vision (Okabe and Ito).
FIXED = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#8c564b")
COLORS = {
    INK: ("--ink", "#1c2733"),
    SOFT: ("--soft", "#56657a"),
    GRID: ("--line", "#dbe2e9"),
    **{color: (f"--c{number}", FIXED[number]) for number, color in enumerate(PALETTE)},
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # texts stay texts: they can be read aloud, searched and copied
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "text.parse_math": False,  # names of runs and layers are drawn literally
    "text.usetex": False,
    "text.color": INK,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "axes.unicode_minus": True,
}


@dataclass(frozen=True)
class Drawing:
    """One figure of a page.

    Args:
        caption: What it shows, in a sentence.
        draw: Draws it, inside the style of the pages, on a figure of `WIDTH` inches.
        height: Inches.
    """

    caption: str
    draw: Callable[[Figure], None]
    height: float = 3.6

    def svg(self) -> str:
        """The figure as a file of its own, with fixed colours on white; the same bytes each time."""
        text = self._drawn()
        for color, (_, fixed) in COLORS.items():
            text = text.replace(color, fixed)
        return text.replace("<svg", '<svg style="background: #ffffff"', 1)

    def shown(self) -> "Shown":
        """The figure as part of a page, in the page's colours, light or dark."""
        text = re.sub(r"<!--.*?-->|<defs>\s*<style.*?</style>\s*</defs>", "", self._drawn(), flags=re.DOTALL)
        rules: dict[str, str] = {}

        def classed(match: re.Match[str]) -> str:
            name = f"d{hashlib.sha256(match[2].encode()).hexdigest()[:8]}"
            rules[name] = match[2]
            return f'{match[1]}class="{name}"'

        # In tags alone: a text has no "<", but it may have quotes.
        text = re.sub(r'(<[^<>]*?\s)style="([^"]*)"', classed, text)
        css = "\n".join(f".{name} {{ {rule} }}" for name, rule in rules.items())
        for color, (variable, _) in COLORS.items():
            text, css = (each.replace(color, f"var({variable})") for each in (text, css))
        # By matplotlib, which escapes the texts in it.
        return Shown(self.caption, Markup(text), css)

    def _drawn(self) -> str:
        with matplotlib.rc_context({**STYLE, "svg.hashsalt": self.caption}):
            figure = Figure(figsize=(WIDTH, self.height), layout="constrained")
            self.draw(figure)
            buffer = io.StringIO()
            with warnings.catch_warnings():  # names in any script are drawn by the browser, with its fonts
                warnings.filterwarnings("ignore", "Glyph .* missing from font")
                figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        text = buffer.getvalue()
        text = re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
        # The page scales it: a width in points would be wider than a phone.
        for side in ("width", "height"):
            text = re.sub(rf'(<svg[^>]*?) {side}="[^"]*"', r"\1", text, count=1)
        return text


@dataclass(frozen=True)
class Shown:
    """A figure as part of a page, whose policy allows no inline style.

    Args:
        caption: What it shows.
        svg: The drawing.
        css: The rules of its classes, each named by what it says: `page.render(classes=...)`.
    """

    caption: str
    svg: Markup
    css: str


def classes_of(figures: Sequence[Shown]) -> str:
    """The rules of the classes of all figures, each once."""
    return "\n".join(dict.fromkeys(line for figure in figures for line in figure.css.splitlines()))


def color_of(number: int) -> str:
    """The colour of the subject of a number."""
    return PALETTE[number % len(PALETTE)]


def label(axis: Axes, title: str, x: str, y: str) -> None:
    """Title and labels of a panel."""
    axis.set_title(title)
    axis.set_xlabel(x)
    axis.set_ylabel(y)
    axis.spines[["top", "right"]].set_visible(False)


def panels(figure: Figure, count: int, columns: int = 3, share: bool = False) -> list[Axes]:
    """`count` panels in rows of at most `columns`, with equal axes if `share`."""
    columns = max(1, min(columns, count))
    grid = figure.subplots(-(-count // columns), columns, squeeze=False, sharex=share, sharey=share).ravel()
    for unused in grid[count:]:
        unused.remove()
    return list(grid[:count])


class _PlainNumbers(LogFormatter):
    """Labels of a logarithmic axis as `0.0002`: matplotlib's are mathematical text, which is not drawn here."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        return f"{x:g}" if super().__call__(x, pos) else ""


def logarithmic(axis: Axes, which: str, ticks: Sequence[float] | None = None) -> None:
    """A logarithmic axis, `x` or `y`, with plain numbers, also between powers of ten where there are few of these."""
    getattr(axis, f"set_{which}scale")("log")
    one = axis.xaxis if which == "x" else axis.yaxis
    if ticks is not None:
        one.set_ticks(list(ticks))
        one.set_major_formatter(StrMethodFormatter("{x:g}"))
        one.set_minor_formatter(NullFormatter())
        return
    for place in (one.set_major_formatter, one.set_minor_formatter):
        place(_PlainNumbers(minor_thresholds=(1.5, 0.4)))


def signed_logarithmic(axis: Axes, values: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> float:
    """A horizontal axis on which values of both signs and very different sizes can be seen.

    Args:
        axis: The panel.
        values: What is shown on it.
        weights: How often each value occurs; by default all alike.

    Returns:
        The size up to which it is about linear, the median: a place is proportional to asinh(value / size).
    """
    sizes = np.abs(values)
    known = np.isfinite(sizes) & (sizes > 0)
    order = np.argsort(sizes[known])
    shares = np.cumsum((np.ones_like(sizes) if weights is None else weights)[known][order])
    linear = float(sizes[known][order][np.searchsorted(shares, shares[-1] / 2)]) if known.any() else 1.0
    axis.set_xscale("asinh", linear_width=linear)
    begin, end = (math.ceil(math.log10(size)) for size in (3 * linear, sizes[known].max(initial=3 * linear)))
    powers = [10.0**power for power in range(begin, end + 1, max(1, (end - begin + 2) // 3))]
    ticks = [*(-power for power in reversed(powers)), 0, *powers]
    axis.set_xticks([tick for tick in ticks if values.min(initial=0) <= tick <= values.max(initial=0)])
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: format_number(value)))
    axis.xaxis.set_minor_formatter(NullFormatter())
    return linear
