"""Tables of pages: cells with the text that is shown and the number that sorts them."""

import math
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from swinft.printing import format_score


@dataclass(frozen=True)
class Cell:
    """A cell.

    Args:
        text: What is shown.
        key: The number by which the row is sorted; None for a text, or an unknown number, which is last in any order.
    """

    text: str
    key: float | None = None


@dataclass(frozen=True)
class Table:
    """A table, in a box of its own that scrolls where the page is narrow.

    Args:
        caption: What it shows, for screen readers.
        columns: Names of the columns; the first one names the rows.
        rows: The rows.
        totals: Rows below, which are not sorted with the others.
        is_sortable: Whether a click on a column's name sorts the rows by it.
        is_text: Whether cells are texts, which are broken into lines, and not numbers.
        strong: Places of rows that stand out.
    """

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    totals: Sequence[Sequence[Cell]] = field(default=())
    is_sortable: bool = True
    is_text: bool = False
    strong: Collection[int] = field(default=())


def cell(value: Any, form: Callable[[Any], str] | str = format_score) -> Cell:
    """A cell of a value: a text as it is, a number in a format, a dash for an unknown or undefined number.

    Args:
        value: A text, a number, or None.
        form: A function that formats a number, or a format such as `,.0f`.
    """
    if isinstance(value, str):
        return Cell(value)
    if value is None or math.isnan(value):
        return Cell("–")
    return Cell(format(value, form) if isinstance(form, str) else form(value), float(value))


def formatted(text: str) -> Cell:
    """A cell of a number that is formatted already, such as `28,288,354` or `13.81×`; of any text, if it is none."""
    found = re.match(r"[+-]?(\d[\d,]*)?\.?\d+(e[+-]?\d+)?", text)
    return Cell(text, float(found[0].replace(",", "")) if found else None)
