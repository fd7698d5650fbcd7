"""The rows whose labels look wrong, with their images."""

import numpy as np

from swinft.errors import number_of
from swinft.pages.tables import Table, cell
from swinft.run.report.contents import ReportInput
from swinft.run.report.rows.cards import NUM_ROWS, cards
from swinft.run.report.rows.labels import LabelIssues
from swinft.run.report.section import Section, render

TITLE = "Labels that look wrong"
ADVICE = "Look before you change a label: a hard row looks the same to a network."


def section(report: ReportInput) -> Section | None:
    """The section; none for soft targets and masks."""
    issues = report.facts.issues
    if issues is None or not len(report.rows):
        return None
    found = number_of(len(issues.rows), "row")
    share = len(issues.rows) / len(report.rows)
    lead = f"{found} of {len(report.rows):,} ({share:.1%}), the worst first. {issues.method}"
    lead = lead if len(issues.rows) else f"None of {number_of(len(report.rows), 'row')}. {issues.method}"
    notes = [
        ADVICE if len(issues.rows) else "",
        "errors.csv has the quality of every label (label_quality), and whether it looks wrong (is_suspicious).",
    ]
    chosen = issues.rows[:NUM_ROWS].tolist()

    def describe(place: int) -> str:
        output = "" if issues.output is None else f"{report.outputs[int(issues.output[place])]}, "
        return f"{output}label quality {issues.quality[place]:.3g}"

    table = _by_label(report, issues)
    shown = cards(report, chosen, describe)
    return Section(
        "mislabelled", TITLE, lead, render("sections/mislabelled.html", cards=shown, notes=notes, table=table)
    )


def _by_label(report: ReportInput, issues: LabelIssues) -> Table | None:
    """How many rows of each class, or of each label or number that looks wrong most, are among them."""
    if not len(issues.rows) or len(report.outputs) < 2:
        return None
    given = report.schema.target.strata(report.targets) if issues.output is None else issues.output
    if given.ndim != 1:
        return None
    counts = np.bincount(given[issues.rows].astype(np.int64), minlength=len(report.outputs))
    totals = (
        np.bincount(given.astype(np.int64)[given >= 0], minlength=len(report.outputs))
        if issues.output is None
        else np.full(len(counts), len(report.rows))
    )
    lines = [
        [cell(report.outputs[k]), cell(int(counts[k]), ",d"), cell(100 * counts[k] / max(1, totals[k]), ".1f")]
        for k in np.argsort(-counts, kind="stable").tolist()
        if counts[k]
    ]
    return Table("Suspicious labels", ["given label", "rows", "% of its rows"], lines)
