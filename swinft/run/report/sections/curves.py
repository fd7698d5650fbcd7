"""ROC and precision-recall curves of classes or labels."""

import math

from swinft.run.report.charts import Chart, Line
from swinft.run.report.contents import ReportInput
from swinft.run.report.outcomes import Binary, binaries, micro, of_many
from swinft.run.report.section import Section, render

SHOWN = 9  # curves besides the one of all together
MOST_WHOLE = 2**24  # scores of all classes together that are ranked as one curve: 1.5 GB
UNIT = (0.0, 1.0)
LEAD = "Of out-of-fold rows of all folds together, at every threshold."
FEW = "Shown are the {} with the lowest area under the ROC curve, and all {} together."


def section(report: ReportInput) -> Section | None:
    """The section; none for numbers and masks, and where no class or label has rows with and without it."""
    every = [each for each in binaries(report) if each.is_mixed]
    if report.schema.base.are_classes and len(report.outputs) == 2:
        every = every[-1:]  # the curve of the other class is the same one
    if not every:
        return None
    areas = {each.name: each.auc() for each in every}
    shown = sorted(every, key=lambda each: areas[each.name])[:SHOWN] if len(every) > SHOWN else list(every)
    has_whole = sum(len(each.truth) for each in every) <= MOST_WHOLE
    few = FEW if has_whole else FEW.partition(",")[0] + "."
    lead = LEAD + of_many(report) + (" " + few.format(SHOWN, len(every)) if len(every) > SHOWN else "")
    shown += [micro(every)] if len(every) > 1 and has_whole else []
    figures = [_roc(shown), _precision_recall(shown)]
    return Section("curves", "ROC and precision-recall", lead, render("sections/figures.html", figures=figures))


def _roc(shown: list[Binary]) -> str:
    lines = [Line(f"{each.name} ({_text(each.auc())})", *each.roc(), number) for number, each in enumerate(shown)]
    title = "ROC, with the area under each curve"
    return Chart(title, "false positive rate", "true positive rate", lines, (), UNIT, UNIT, has_diagonal=True).html()


def _precision_recall(shown: list[Binary]) -> str:
    lines = [
        Line(f"{each.name} ({_text(each.average_precision())})", *each.precision_recall(), number)
        for number, each in enumerate(shown)
    ]
    title = "Precision and recall, with average precision"
    return Chart(title, "recall", "precision", lines, (), UNIT, (0.0, 1.02)).html()


def _text(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"
