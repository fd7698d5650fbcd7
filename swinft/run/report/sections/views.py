"""What test-time augmentation gains: the score of each view alone, and of the first views together."""

import numpy as np

from swinft.pages.tables import Cell, Table, cell
from swinft.printing import format_score
from swinft.run.report.contents import ReportInput
from swinft.run.report.rows.views import view_gain
from swinft.run.report.section import Section, render

TITLE = "Test-time augmentation"


def section(report: ReportInput) -> Section | None:
    """The section; none with one view, and in an ensemble."""
    names, found = list(report.scores.get("views", ())), report.facts.by_view
    if isinstance(found, str):
        return Section("views", TITLE, found, render("sections/views.html", table=None)) if found else None
    seed = int(report.config.get("seed") or 0)
    gain = view_gain(report.data, report.metrics[0], names, np.asarray(found), seed)
    best = "higher" if gain.higher_is_better else "lower"
    lines = []
    for number, view in enumerate(gain.views):
        better = Cell("–", -1) if number == 0 else Cell(f"{view.better_folds} of {gain.folds}", view.better_folds)
        lines.append([cell(view.name), cell(view.alone), cell(view.first), better])
    columns = ["view", f"{gain.metric}, alone", "with those above", "better folds than the first view"]
    between = (
        "" if gain.interval is None else f", 95 % interval {_signed(gain.interval[0])} to {_signed(gain.interval[1])}"
    )
    verdict = (
        ""
        if gain.interval is None
        else " They help."
        if gain.interval[0] > 0
        else " They harm."
        if gain.interval[1] < 0
        else " By these rows it cannot be told whether they help."
    )
    lead = (
        f"All {len(names)} views together gain {_signed(gain.gain)} {gain.metric} over '{names[0]}' alone "
        f"({best} is better{between}).{verdict} Scores are of all out-of-fold rows."
    )
    table = Table("Scores of the views", columns, lines, is_sortable=False)
    return Section("views", TITLE, lead, render("sections/views.html", table=table))


def _signed(value: float) -> str:
    return ("+" if value >= 0 else "−") + format_score(abs(value))
