"""A section of the report: its heading, and HTML from a template in which every value is escaped."""

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from swinft.pages.page import templates


@dataclass(frozen=True)
class Section:
    """A section of the page.

    Args:
        id: Its anchor: lower-case letters and hyphens.
        title: Its heading, also in the contents.
        lead: One or two sentences that say what is shown and how to read it, as plain text.
        body: Its content as HTML, from `render`.
    """

    id: str
    title: str
    lead: str
    body: Markup


def render(template: str, **values: Any) -> Markup:
    """HTML of a template of this package, such as `sections/rows.html`; every value is escaped.

    Args:
        template: Path of the template in `swinft/run/report`.
        values: What its names stand for; a name without a value is an error.
    """
    return Markup(templates("swinft.run.report").get_template(template).render(**values))
