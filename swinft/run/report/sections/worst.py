"""The rows with the largest out-of-fold error, with their images."""

from typing import Any

import numpy as np

from swinft.run.report.contents import ReportInput
from swinft.run.report.section import Section, render

NUM_WORST = 12
LEAD = (
    "Where the network is furthest from the truth: hard rows, wrong labels, damaged images. errors.csv lists all rows."
)


def section(report: ReportInput) -> Section | None:
    """The section; none for masks, which have one of their own."""
    if report.oof.maps is not None or not len(report.rows):
        return None
    body = render("sections/worst.html", rows=worst_rows(report))
    return Section("worst", "Rows with the largest error", LEAD, body)


def worst_rows(report: ReportInput) -> list[dict[str, Any]]:
    """The rows with the largest error, the largest first: `id`, `lines` of text, a `note`, and the `image`."""
    chosen = np.argsort(-report.row_errors, kind="stable")[:NUM_WORST]
    return [
        {
            "id": report.ids[place],
            "lines": [f"true: {report.captions[place]}", f"predicted: {report.prediction_text(place)}"],
            "note": f"fold {report.folds[place]}",
            "image": report.thumbnails.of(int(report.rows[place])),
        }
        for place in chosen.tolist()
    ]
