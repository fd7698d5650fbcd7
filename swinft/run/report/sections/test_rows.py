"""Distributions of the predictions of test rows beside those of out-of-fold ones."""

import numpy as np
from markupsafe import Markup

from swinft.run.report.contents import ReportInput
from swinft.run.report.section import Section, render
from swinft.run.report.svg import Frame, figure, span

SHOWN = 12
BINS = 30
LEAD = (
    "The two should look alike. Where they do not, the test rows differ from the training rows. Test predictions "
    "are means over folds and views, so that they may be a little less extreme."
)


def section(report: ReportInput) -> Section | None:
    """The section; none without test predictions of the current weights."""
    if report.test is None or report.made_with is None or not len(report.test) or not len(report.rows):
        return None
    shares = report.schema.base.are_probabilities
    figures = [_figure(report, k, shares) for k in range(min(SHOWN, len(report.outputs)))]
    made = f"Test predictions: {report.made_with.describe()}."
    more = f" Shown are the first {SHOWN} of {len(report.outputs)} outputs." if len(report.outputs) > SHOWN else ""
    body = render("sections/test_rows.html", figures=figures, note=made + more)
    return Section("test", "Test predictions", LEAD, body)


def _figure(report: ReportInput, k: int, are_shares: bool) -> Markup:
    assert report.test is not None
    groups = [each[np.isfinite(each)].astype(np.float64) for each in (report.values[:, k], report.test.values[:, k])]
    edges = np.linspace(*((0.0, 1.0) if are_shares else span(*groups)), BINS + 1)
    heights = [np.histogram(each, edges)[0] / max(1, len(each)) for each in groups]
    top = max(float(each.max()) for each in heights) * 1.05 or 1.0
    what = "probability" if are_shares else "prediction"
    frame = Frame.of((float(edges[0]), float(edges[-1])), (0, top), what, "share of rows")
    content = frame.axes() + frame.bars(edges, heights[0], "bars c0") + frame.bars(edges, heights[1], "bars c1")
    return figure(report.outputs[k], content, legend=[("out-of-fold", "c0"), ("test", "c1")])
