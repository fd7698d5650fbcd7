"""The page of an instrument: one HTML file without scripts, with the figures and the numbers of all its subjects."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from swinft.laboratory.figures import Drawing
from swinft.pages import templates
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
    environment = templates("swinft.laboratory")
    environment.filters["cell"] = cell
    columns = list(dict.fromkeys(key for each in subjects for line in each.lines for key in line))
    summary = list(dict.fromkeys(key for each in subjects for key in each.summary))
    return environment.get_template("page.html").render(
        title=title,
        about=about,
        subjects=subjects,
        # Made by matplotlib, which escapes the texts in it.
        figures=[(drawing.caption, Markup(drawing.svg())) for drawing in drawings],
        summary=summary,
        columns=columns,
        lines=[(each.label, line) for each in subjects for line in each.lines][:MOST_LINES],
        total=sum(len(each.lines) for each in subjects),
        csv=csv,
    )


def cell(value: Any) -> str:
    """A value as the text of a cell."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return format_number(value)
    return f"{value:,}" if isinstance(value, int) else visible(str(value))
