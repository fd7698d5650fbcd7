"""What is printed and drawn: names without mark-up and line breaks; scores, rates and times in few digits."""

import math
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

FAMILY = "DejaVu Sans"  # comes with matplotlib


@contextmanager
def plain_names(names: Iterable[str]) -> Iterator[Callable[[str], str]]:
    """Inside the block matplotlib draws text as it is.

    Args:
        names: What is going to be drawn.

    Yields:
        What makes a name drawable: control characters are written out, and characters that no installed font has.
    """
    import matplotlib  # slow, and only needed where something is drawn

    families, missing = _families(frozenset("".join(names)))
    settings: Any = {"text.parse_math": False, "text.usetex": False, "font.family": list(families)}
    table = {ord(character): _escaped(character) for character in missing}
    with matplotlib.rc_context(settings):
        yield lambda name: visible(name).translate(table)


def visible(name: str) -> str:
    """A name on one line: control characters and line separators are written out, as Python does."""
    return "".join(c if c.isprintable() or c == "\u200d" else _escaped(c) for c in name)  # that joins emoji


def say(line: str) -> None:
    """Prints a line that holds names from a table, a config or a run folder, which must not control the terminal."""
    print(visible(line))


def width(text: str) -> int:
    """Columns of a terminal that a text takes: Chinese characters take two, accents none."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def format_score(value: float | None) -> str:
    """A score with four digits behind the point, or with four that count where those would be noughts."""
    if value is None or math.isnan(value):
        return "undefined"
    return f"{value:.4f}" if value == 0 or abs(value) >= 0.001 else f"{value:.4g}"


def format_rate(rate: float) -> str:
    """Images per second with the digits that count: `5,254`, `12.1`, `0.31`."""
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
    """A duration of at most 7 characters for a table: `3.2s`, `45s`, `12m 5s`, `3h 20m`; one unit where it is rough."""
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


def shown(value: float) -> str:
    """A number for people: four digits, and a price of 5,858,000 as such and not as 5.858e+06."""
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"
