"""Figures of the pages: inline SVG whose lines and texts have the colours of the page, light or dark."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, StrMethodFormatter

WIDTH = 10.0  # inches: at 72 per inch about that of the page
# Colours that stand for those of the page, which are variables in its style; no palette has them.
INK, SOFT, GRID = "#010203", "#040506", "#070809"
COLORS = {INK: ("--ink", "#1c2733"), SOFT: ("--soft", "#5b6b7b"), GRID: ("--line", "#dde4ea")}
# Told apart by readers with any colour vision, on white and on black (Okabe and Ito).
PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#8c564b")
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

    def svg(self, standalone: bool = False) -> str:
        """The figure as SVG; the same bytes each time.

        Args:
            standalone: For a file of its own, with fixed colours on white, in the place of those of a page.
        """
        with matplotlib.rc_context({**STYLE, "svg.hashsalt": self.caption}):
            figure = Figure(figsize=(WIDTH, self.height), layout="constrained")
            self.draw(figure)
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        text = buffer.getvalue()
        text = re.sub(r"\s*<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
        for color, (variable, fixed) in COLORS.items():
            text = text.replace(color, fixed if standalone else f"var({variable})")
        if standalone:
            text = text.replace("<svg", '<svg style="background: #ffffff"', 1)
        # The page scales it: a width in points would be wider than a phone.
        for side in ("width", "height"):
            text = re.sub(rf'(<svg[^>]*?) {side}="[^"]*"', r"\1", text, count=1)
        return text


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


def logarithmic(axis: Axes, which: str, ticks: Sequence[float] | None = None) -> None:
    """A logarithmic axis, `x` or `y`, with plain numbers: matplotlib's would be mathematical text."""
    getattr(axis, f"set_{which}scale")("log")
    one = axis.xaxis if which == "x" else axis.yaxis
    if ticks is not None:
        one.set_ticks(list(ticks))
    one.set_major_formatter(StrMethodFormatter("{x:g}"))
    one.set_minor_formatter(NullFormatter())
