"""Whether probabilities are as often right as they say: reliability diagrams and the expected calibration error."""

import numpy as np

from swinft.model.metrics.probabilities import squares_of
from swinft.run.report.charts import Chart, Line
from swinft.run.report.contents import ReportInput
from swinft.run.report.outcomes import binaries, has_labels, micro, reliability, true_classes
from swinft.run.report.section import Section, render
from swinft.run.report.svg import Frame, figure

BINS = np.linspace(0, 1, 11)
UNIT = (0.0, 1.0)
LEAD = (
    "Probabilities in ten bins: below the diagonal, predictions are too sure of themselves; above it, not sure "
    "enough. The expected calibration error is the mean distance from the diagonal, weighted by rows; rules of "
    "submission.rules such as temperature correct it."
)


def section(report: ReportInput) -> Section | None:
    """The section; none for numbers and masks."""
    if not len(report.rows):
        return None
    if report.schema.base.are_classes:
        values, true = report.values, true_classes(report)
        sure, said = values.max(1).astype(np.float64), values.argmax(1)
        right = said == true
        is_soft = report.schema.base.is_soft
        of_said = report.targets[np.arange(len(said)), said] if is_soft else right
        what = "probability of the predicted class"
        brier = float(squares_of(values, report.targets if is_soft else true).mean())
    elif has_labels(report):
        every = micro(binaries(report, range(len(report.outputs))))
        sure, right, what = every.scores, every.truth, "probability of a label, all labels together"
        of_said = right.astype(np.float64)
        brier = float(((sure - right) ** 2).mean())
    else:
        return None
    mean, share, _, error = reliability(sure, of_said)
    beside = "true share of that class" if report.schema.base.is_soft else "share that is right"
    title = f"Expected calibration error {error:.4f}, Brier score {brier:.4f}"
    diagram = Chart(
        title,
        what,
        beside,
        [Line(beside, mean, share, 0)],
        (),
        UNIT,
        UNIT,
        has_diagonal=True,
    ).html()
    rights, wrongs = (np.histogram(sure[each], BINS)[0] for each in (right, ~right))
    counted = "rows" if report.schema.base.are_classes else "labels of rows"
    frame = Frame.of(UNIT, (0.0, float(max(1, rights.max(), wrongs.max())) * 1.05), what, counted, whole="y")
    names = ("right", "wrong") if report.schema.base.are_classes else ("present", "absent")
    bars = frame.axes() + frame.bars(BINS, rights, "bars c2") + frame.bars(BINS, wrongs, "bars c3")
    histogram = figure("How many have which probability", bars, legend=[(names[0], "c2"), (names[1], "c3")])
    return Section("calibration", "Calibration", LEAD, render("sections/figures.html", figures=[diagram, histogram]))
