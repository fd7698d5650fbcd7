"""Formats for text that is printed or drawn: names on one line; columns of tables; scores, rates and durations."""

import math
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, TextIO

FAMILY = "DejaVu Sans"  # comes with matplotlib
JOINERS = "\u200c\u200d"  # parts of Persian and Indic words, and of emoji
NO_WIDTH = ("Mn", "Me", "Cf")  # marks over and under other characters, joiners


@contextmanager
def plain_names(names: Iterable[str]) -> Iterator[Callable[[str], str]]:
    """Makes matplotlib draw text literally inside the block.

    Args:
        names: All names that will be drawn.

    Yields:
        A function that escapes control characters, and characters that no installed font has.
    """
    import matplotlib  # slow to import

    families, missing = _families(frozenset("".join(names)))
    settings: Any = {"text.parse_math": False, "text.usetex": False, "font.family": list(families)}
    table = {ord(character): _escaped(character) for character in missing}
    with matplotlib.rc_context(settings):
        yield lambda name: visible(name).translate(table)


def visible(name: str) -> str:
    """A name on one line: control characters and line separators are escaped, as Python does."""
    return "".join(c if c.isprintable() or c in JOINERS else _escaped(c) for c in name)


def print_line(line: str, file: TextIO | None = None) -> None:
    """Prints a line, to `file` or stdout; control characters in names from a table or a config are escaped."""
    print(visible(line), file=file)


def width(text: str) -> int:
    """Width of a text in terminal columns: Chinese characters take two, accents, marks and joiners none."""
    if text.isascii():
        return len(text)
    return sum(_width(character) for character in text)


def _width(character: str) -> int:
    if unicodedata.category(character) in NO_WIDTH:
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def shortened(text: str, most: int) -> str:
    """A text of at most so many columns; a longer one ends with an ellipsis."""
    if width(text) <= most:
        return text
    kept = ""
    for character in text:
        if width(kept + character) >= most:
            break
        kept += character
    return f"{kept}…"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows with columns as wide as their widest cell: the first one to the left, the others to the right."""
    widths = [max(width(row[column]) for row in rows) for column in range(len(rows[0]))]
    return [
        "  ".join(
            cell + " " * (size - width(cell)) if column == 0 else " " * (size - width(cell)) + cell
            for column, (cell, size) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def format_interval(low_high: Sequence[float] | None, unknown: str = "") -> str:
    """An interval of a difference, `-0.001 to +0.02`, or what stands for an unknown one."""
    return unknown if low_high is None else f"{low_high[0]:+.4g} to {low_high[1]:+.4g}"


def format_score(value: float | None) -> str:
    """A score with four decimals, or with four significant digits if it is below 0.001."""
    if value is None or math.isnan(value):
        return "undefined"
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.001 else f"{value:.4g}"


def format_known(value: float | None, form: str) -> str:
    """A number in a format such as `+.4g`; a dash if it is not known or undefined."""
    return "–" if value is None or math.isnan(value) else format(value, form)


def format_rate(rate: float) -> str:
    """Images per second: `5,254`, `12.1`, `0.31`."""
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"


def format_seconds(seconds: float) -> str:
    """`under 1 s`, `45 s`, `12 min`, `3 h 20 min`."""
    if seconds < 1:
        return "under 1 s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def format_brief(seconds: float, is_rough: bool = False) -> str:
    """A duration in at most 7 characters: `3.2s`, `45s`, `12m 5s`, `3h 20m`; in one unit if it is an estimate."""
    if is_rough:
        units = {"s": (1, 60), "m": (60, 60), "h": (3600, 100), "d": (86400, math.inf)}
        return next(
            f"{max(1, round(seconds / size))}{unit}"
            for unit, (size, end) in units.items()
            if round(seconds / size) < end
        )
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    return f"{whole // 3600}h {whole % 3600 // 60}m" if whole < 360_000 else f"{whole // 86400}d"


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


@cache
def _families(characters: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Font families that have these characters, and the characters that no installed font has."""
    from matplotlib.font_manager import findfont, fontManager, get_font

    def lacking(path: str, wanted: set[str]) -> set[str]:
        font = get_font(path)
        return {c for c in wanted if not font.get_char_index(ord(c))}

    families, missing = [FAMILY], lacking(findfont(FAMILY), {c for c in characters if c.isprintable()})
    for entry in fontManager.ttflist if missing else []:
        left = lacking(entry.fname, missing)
        if left < missing and "Last Resort" not in entry.name:  # draws a box for everything
            families.append(entry.name)
            missing = left
    return tuple(families), frozenset(missing)


def format_number(value: float) -> str:
    """A number with four digits; a large one as 5,858,000 and not as 5.858e+06."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
