"""The rows whose predictions are least certain, with their images."""

import numpy as np

from swinft.run.report.contents import ReportInput
from swinft.run.report.rows.cards import NUM_ROWS, cards
from swinft.run.report.section import Section, render


def section(report: ReportInput) -> Section | None:
    """The section; none where there is one prediction of a number, which does not tell how certain it is."""
    found = report.facts.uncertainty
    if found is None or not len(report.rows):
        return None
    chosen = np.argsort(-found.values, kind="stable")[:NUM_ROWS].tolist()

    def describe(place: int) -> str:
        margin = "" if found.margin is None else f", margin {found.margin[place]:.2f}"
        return f"{found.name} {found.values[place]:.3g}{margin}"

    right = "errors.csv has it for all rows."
    body = render("sections/rows.html", cards=cards(report, chosen, describe), notes=[])
    return Section("uncertain", "Least certain rows", f"{found.description} {right}", body)
