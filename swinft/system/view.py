"""Draws the progress of jobs: a row each, a line for all of them. Imported only where a view is shown: rich is slow."""

import html
import io
import re
from collections.abc import Sequence

from rich.console import Console
from rich.measure import Measurement
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from swinft.printing import format_brief, format_rate, shortened, visible
from swinft.system.status import Status

BAR = 12  # characters
# What `drawn` uses of ANSI's codes, as CSS that is read on a light and on a dark page.
CSS = {
    "1": "font-weight: bold",
    "2": "opacity: 0.6",
    "32": "color: #2e9e44",
    "36": "color: #1a9ba8",
    "90": "opacity: 0.25",
}
WIDE_STAGE, NARROW_STAGE = 23, 13  # characters of a stage: `out-of-fold predictions`, `out-of-fold …`
# What a narrow terminal lacks first, by column: the bar, the end of the stage's name, and so on. Job, stage and time
# left always stay.
LEFT_OUT_FIRST = ("", "stage", "memory", "batch", "img/s", "best", "loss", "score")


def drawn(rows: Sequence[Status], footer: str, columns: int, lines: int, encoding: str = "utf-8") -> list[str]:
    """The lines of a view, each within the terminal's columns, with colours where it has them.

    Args:
        rows: The jobs that run.
        footer: The last line; empty for none.
        columns: Columns of the terminal.
        lines: Lines that may be drawn.
        encoding: Of the terminal, by which rich chooses the characters of a bar.
    """
    console = _console(columns, encoding)
    has_header = bool(footer) or any(row.of for row in rows)
    room = max(1, lines - has_header - bool(footer))
    if len(rows) > room > 1:
        room -= 1  # the line that says how many there are besides
    shown, hidden = rows[:room], len(rows[room:])
    ends = [f"and {hidden} more" if hidden else "", footer]
    with console.capture() as captured:
        if shown:
            console.print(_fitting(console, shown, columns, has_header))
        for end in filter(None, ends):
            console.print(Text(visible(end), style="dim"), no_wrap=True, overflow="ellipsis")
    return [line.rstrip() for line in captured.get().rstrip("\n").split("\n")][:lines]


def as_html(lines: Sequence[str]) -> str:
    """Lines of a view as HTML: without the colours of a bar its two parts would look alike."""

    def span(found: re.Match[str]) -> str:
        return f'<span style="{";".join(CSS.get(code, "") for code in found[1].split(";"))}">{found[2]}</span>'

    text = re.sub(r"\x1b\[([\d;]+)m([^\x1b]*)\x1b\[0m", span, html.escape("\n".join(lines)))
    text = re.sub(r"\x1b\[[\d;]*m", "", text)
    return f'<pre style="line-height: 1.2; white-space: pre; overflow-x: auto">{text}</pre>' if lines else ""


class _Paper(io.StringIO):
    """A file with the encoding of a terminal."""

    encoding = "utf-8"


def _console(columns: int, encoding: str) -> Console:
    paper = _Paper()
    paper.encoding = encoding
    # Not by rich in a notebook: it would make a display of every line that is captured here.
    return Console(file=paper, width=max(1, columns), force_terminal=True, force_jupyter=False, highlight=False)


def _fitting(console: Console, rows: Sequence[Status], columns: int, has_header: bool) -> Table:
    """The table of as many columns as there is room for."""
    cells = [_cells(row, WIDE_STAGE) for row in rows]
    names = [name for name in cells[0] if any(str(each[name]) for each in cells)]
    out = iter(LEFT_OUT_FIRST)
    while True:
        table = _table(rows, cells, names, has_header)
        needed = Measurement.get(console, console.options.update(max_width=10_000), table).maximum
        leaving = next(out, None) if needed > columns else None
        if leaving is None:
            return table
        if leaving == "stage":
            cells = [_cells(row, NARROW_STAGE) for row in rows]
        else:
            names = [name for name in names if name != leaving]


def _table(
    rows: Sequence[Status], cells: Sequence[dict[str, Text | ProgressBar]], names: Sequence[str], has_header: bool
) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=has_header, header_style="dim", pad_edge=False)
    metric = next((row.metric for row in rows if row.metric), "score")
    for name in names:
        title = {"job": "", "stage": "", "score": visible(metric)[:20]}.get(name, name)
        is_text = name in ("job", "stage", "")
        width = BAR if name == "" else None
        table.add_column(
            Text(title), justify="left" if is_text else "right", no_wrap=True, overflow="ellipsis", width=width
        )
    for each in cells:
        table.add_row(*(each.get(name, Text()) for name in names))
    return table


def _cells(row: Status, stage: int) -> dict[str, Text | ProgressBar]:
    """The cells of a row by column, with a stage of so many characters; those that are not known are empty."""
    has_batches = row.done is not None and row.of
    left = row.stage_left if row.left is None else row.left
    sign = "<" if row.is_most else "~" if row.is_rough else ""
    return {
        "job": Text(visible(row.what), style="bold"),
        "stage": Text(shortened(visible(row.stage), stage)),
        "": _bar(row.done or 0, row.of or 0) if has_batches else Text(),
        "batch": Text(f"{row.done}/{row.of}" if has_batches else ""),
        "img/s": Text("" if row.rate is None else format_rate(row.rate)),
        "loss": Text(_number(row.loss)),
        "score": Text(_number(row.score)),
        "best": Text(_number(row.best), style="green"),
        "memory": Text(visible(row.memory)),
        "left": Text("" if left is None else f"{sign}{format_brief(left, row.is_rough)}"),
    }


def _bar(done: int, of: int) -> ProgressBar:
    return ProgressBar(of, min(done, of), BAR, style="bright_black", complete_style="cyan", finished_style="cyan")


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
