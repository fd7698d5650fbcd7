"""The page of an instrument: one HTML file with the figures and the numbers of all its subjects."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from swinft.pages.figures import Drawing, classes_of
from swinft.pages.page import render
from swinft.pages.tables import Cell, Table
from swinft.printing import format_number, visible

MOST_LINES = 400  # of the table on the page; the CSV has all of them


@dataclass(frozen=True)
class Measured:
    """What was measured of one subject.

    Args:
        label: Its name.
        about: What it is, in a line.
        lines: The lines of its steps.
        done: Number of measured steps.
        steps: Number of all steps.
        summary: Its numbers.
        notes: What they say.
        made_with: What decides what was measured.
    """

    label: str
    about: str
    lines: list[dict[str, Any]]
    done: int
    steps: int
    summary: dict[str, Any]
    notes: list[str]
    made_with: dict[str, Any]


def page(title: str, about: Sequence[str], subjects: Sequence[Measured], drawings: Sequence[Drawing], csv: str) -> str:
    """The page as HTML.

    Args:
        title: Title of the page.
        about: Paragraphs that say what is measured and how to read it.
        subjects: What was measured.
        drawings: The figures.
        csv: Name of the file with all lines.
    """
    figures = [drawing.shown() for drawing in drawings]
    return render(
        "swinft.laboratory",
        title,
        classes=classes_of(figures),
        about=about,
        subjects=subjects,
        figures=figures,
        summary=_summary(subjects),
        lines=_lines(subjects, csv),
    )


def _summary(subjects: Sequence[Measured]) -> Table:
    """The numbers of all subjects, side by side."""
    keys = list(dict.fromkeys(key for each in subjects for key in each.summary))
    rows = [[Cell(key), *(_cell(each.summary.get(key)) for each in subjects)] for key in keys]
    return Table("Numbers of each subject", ["", *(each.label for each in subjects)], rows, is_sortable=False)


def _lines(subjects: Sequence[Measured], csv: str) -> Table:
    """What was measured, line by line."""
    columns = list(dict.fromkeys(key for each in subjects for line in each.lines for key in line))
    lines = [(each.label, line) for each in subjects for line in each.lines]
    part = f"The first {MOST_LINES} of {len(lines):,}" if len(lines) > MOST_LINES else "All"
    rows = [[Cell(label), *(_cell(line.get(key)) for key in columns)] for label, line in lines[:MOST_LINES]]
    return Table(f"{part} lines of {csv}", ["", *columns], rows)


def _cell(value: Any) -> Cell:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return Cell(cell(value), float(value) if is_number else None)


def cell(value: Any) -> str:
    """A value as the text of a cell."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return format_number(value)
    return f"{value:,}" if isinstance(value, int) else visible(str(value))
