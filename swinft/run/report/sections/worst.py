"""The rows with the largest out-of-fold error, with their images."""

import numpy as np

from swinft.errors import command
from swinft.printing import visible
from swinft.run.report.contents import ReportInput
from swinft.run.report.rows.cards import NUM_ROWS, Card, cards, near_note
from swinft.run.report.section import Section, render

LEAD = (
    "Where the network is furthest from the truth: hard rows, wrong labels, damaged images. errors.csv lists all rows."
)
OVER = "Beside an image is its Grad-CAM: the brighter, the more a place raises what the network predicts."


def section(report: ReportInput) -> Section | None:
    """The section; none for masks, which have one of their own."""
    if report.oof.maps is not None or not len(report.rows):
        return None
    found = worst_rows(report)
    notes = [over(report) if any(card.gradcam for card in found) else "", near_note(report), gradcam_note(report)]
    body = render("sections/rows.html", cards=found, notes=notes)
    return Section("worst", "Rows with the largest error", LEAD, body)


def worst_rows(report: ReportInput) -> list[Card]:
    """The rows with the largest error, the largest first."""
    chosen = np.argsort(-report.row_errors, kind="stable")[:NUM_ROWS]
    return cards(report, chosen.tolist(), lambda place: f"error {report.row_errors[place]:.3g}")


def over(report: ReportInput) -> str:
    """What is said of Grad-CAMs that are there: whose they are."""
    networks = report.networks
    if isinstance(networks, str) or not networks.name:
        return OVER
    what = "what the ensemble predicts" if report.schema.base.are_probabilities else "its prediction"
    return (
        f"Beside an image is its Grad-CAM, of {what} by the networks of the member {visible(networks.name)}, the "
        f"strongest that has some: the brighter, the more a place raises it."
    )


def gradcam_note(report: ReportInput) -> str:
    """What is said of Grad-CAMs that are not there."""
    if report.experiment is None and not report.run.is_embedding:
        what = "while an ensemble is made" if report.run.is_ensemble else "at the end of a fit"
        return f"`{command('report', report.run.root)}` adds Grad-CAMs: networks are not loaded {what}."
    note = report.explained.note()
    return f"Rows without a Grad-CAM: {note}." if note else ""
