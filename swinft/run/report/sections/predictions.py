"""Out-of-fold predictions beside the truth, and beside the predictions of the test rows."""

from dataclasses import replace

from swinft.printing import plain_names
from swinft.run.report.contents import ReportInput
from swinft.run.report.figures import png, predictions_figure, test_figure
from swinft.run.report.section import Section, render

LEAD = "Predictions of each row by networks that were not trained on it, beside the truth."


def section(report: ReportInput) -> Section | None:
    """The section."""
    with plain_names(report.outputs) as drawable:
        schema = replace(report.schema, outputs=[drawable(name) for name in report.outputs])
        figure = png(predictions_figure(report.values, report.targets, schema))
        test = png(test_figure(report.test.values, report.values, schema)) if report.test else ""
    made_with = report.made_with.describe() if report.made_with else ""
    body = render("sections/predictions.html", figure=figure, test=test, made_with=made_with)
    return Section("predictions", "Out-of-fold predictions", LEAD, body)
