"""Losses and scores by epoch."""

from swinft.run.report.contents import ReportInput
from swinft.run.report.figures import curves, png
from swinft.run.report.section import Section, render

LEAD = "One line for each fold."


def section(report: ReportInput) -> Section | None:
    """The section; none for an ensemble."""
    if report.run.is_ensemble:
        return None
    figure = png(curves(report.run, next(iter(report.scores["pooled"]))))
    return Section("training", "Training", LEAD, render("sections/training.html", figure=figure))
