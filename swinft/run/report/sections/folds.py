"""What is in each fold: rows, targets and groups."""

from typing import Any

import numpy as np

from swinft.data.folds import NO_FOLD
from swinft.pages.tables import Cell, Table, cell
from swinft.printing import format_number
from swinft.run.report.contents import ReportInput
from swinft.run.report.intervals import groups_of
from swinft.run.report.outcomes import has_labels, true_shares
from swinft.run.report.section import Section, render

SHOWN = 200  # outputs
LEAD = (
    "Folds that hold alike targets have scores that can be compared. Rows of a group are in one fold, so that no "
    "network is scored on what is nearly a row that it was trained on."
)


def section(report: ReportInput) -> Section | None:
    """The section."""
    folds = np.unique(report.folds).tolist()
    more = len(report.outputs) - SHOWN
    note = f"Shown are the first {SHOWN} of {len(report.outputs):,}." if more > 0 else ""
    body = render("sections/folds.html", table=_sizes(report, folds), targets=_targets(report, folds), note=note)
    return Section("folds", "Folds", LEAD, body)


def _sizes(report: ReportInput, folds: list[int]) -> Table:
    """Scored rows, groups, and the rows that are in no fold."""
    groups, data = groups_of(report), report.data
    columns = ["fold", "rows scored", "share", *(["groups", "largest group"] if groups is not None else [])]
    rows = []
    for fold in folds:
        inside = report.folds == fold
        row = [Cell(f"fold {fold}"), cell(int(inside.sum()), ",d"), cell(float(inside.mean()), ".1%")]
        if groups is not None:
            counts = np.unique(groups[inside], return_counts=True)[1]
            row += [cell(len(counts), ",d"), cell(int(counts.max()), ",d")]
        rows.append(row)
    without = int((data.fold_of_row == NO_FOLD).sum())
    total = [Cell("all"), cell(len(report.rows), ",d"), Cell("")]
    total += [cell(len(np.unique(groups)), ",d"), Cell("")] if groups is not None else []
    totals = [total]
    if without:
        totals.append([Cell("in no fold"), cell(without, ",d"), *[Cell("")] * (len(columns) - 2)])
    return Table("Rows of each fold", columns, rows, totals)


def _targets(report: ReportInput, folds: list[int]) -> Table:
    """A statistic of each output in each fold, and over all rows."""
    base, outputs = report.schema.base, report.outputs[:SHOWN]
    is_share = base.are_classes or has_labels(report) or base.are_maps
    is_counted = (base.are_classes and not base.is_soft) or has_labels(report)
    what = "share of rows" if is_counted else "mean share" if base.is_soft else "mean"
    form = ".1%" if is_share else format_number
    rows = []
    for k, name in enumerate(outputs):
        of_row = true_shares(report, k) if base.are_classes else report.targets[:, k]
        means = [_mean(of_row[report.folds == fold]) for fold in folds]
        rows.append([Cell(name), *(cell(value, form) for value in means), cell(_mean(of_row), form)])
    columns = [f"{what}", *(f"fold {fold}" for fold in folds), "all"]
    return Table("Targets of each fold", columns, rows)


def _mean(values: Any) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if len(known) else None
