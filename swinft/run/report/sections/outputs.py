"""A table of every class, label or number: how much there is of it, and how well it is predicted."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from swinft.pages.tables import Cell, Table, cell
from swinft.printing import format_number
from swinft.run.mask_counts import MaskDecision
from swinft.run.report.contents import ReportInput
from swinft.run.report.outcomes import binaries, has_labels, of_many, reliability
from swinft.run.report.section import Section, render

AREAS = "AUC is the area under the ROC curve, AP the average precision."
CLASSES = f"Each class against all others. Precision, recall and F1 are of the most probable class. {AREAS}"
SOFT = f"{CLASSES} Targets are soft: the true class of a row is the one with the largest share."
LABELS = (
    f"Precision, recall and F1 are of labels whose probability is at least 0.5. {AREAS} ECE is the expected "
    f"calibration error, see below."
)
NUMBERS = (
    "In the units of the target. SD is the standard deviation, bias the mean of predicted minus true, r Pearson's "
    "correlation, ρ Spearman's."
)
MASKS = (
    "Of pixels from probability 0.5, at the size of the image files. Dice: the mean over images that have the class."
)


def section(report: ReportInput) -> Section | None:
    """The section."""
    if report.schema.base.are_maps:
        title, lead, table = "Classes", MASKS, _masks(report)
    elif report.schema.base.are_classes:
        lead = SOFT if report.schema.base.is_soft else CLASSES
        title, table = "Classes", _binary(report, "class")
    elif has_labels(report):
        title, lead, table = "Labels", LABELS, _binary(report, "label")
    else:
        title, lead, table = "Outputs", NUMBERS, _numbers(report)
    lead += "" if title == "Outputs" or report.schema.base.are_maps else of_many(report)
    return Section("outputs", title, lead, render("sections/table.html", table=table))


def _binary(report: ReportInput, what: str) -> Table:
    is_class = what == "class"
    columns = [what, "rows", "share", "precision", "recall", "F1", "AUC", "AP"]
    columns += ["predicted"] if is_class else ["known", "ECE"]
    rows = []
    for each in binaries(report):
        number, known = int(each.truth.sum()), len(each.truth)
        more = [cell(int(each.said.sum()), ",d")]
        if not is_class:
            error = reliability(each.scores, each.truth)[3] if known else None
            more = [cell(known, ",d"), cell(error, ".4f")]
        numbers = [*each.rates(), each.auc(), each.average_precision()]
        share = number / known if known else None
        rows.append(
            [Cell(each.name), cell(number, ",d"), cell(share, ".1%"), *(cell(x, ".3f") for x in numbers), *more]
        )
    return Table(f"Every {what}", columns, rows)


def _numbers(report: ReportInput) -> Table:
    columns = ["output", "rows", "mean true", "mean predicted", "SD true", "SD predicted"]
    columns += ["MAE", "RMSE", "bias", "R²", "r", "ρ"]
    rows = []
    for k, name in enumerate(report.outputs):
        known = np.isfinite(report.targets[:, k])
        numbers = _of_numbers(report.targets[known, k].astype(np.float64), report.values[known, k].astype(np.float64))
        shown = [cell(value, format_number) for value in numbers[:7]] + [cell(value, ".3f") for value in numbers[7:]]
        rows.append([Cell(name), cell(int(known.sum()), ",d"), *shown])
    return Table("Every output", columns, rows)


def _of_numbers(true: Any, said: Any) -> list[float | None]:
    if not len(true):
        return [None] * 10
    error, spread = said - true, float(true.std())
    found: list[float | None] = [true.mean(), said.mean(), spread, float(said.std())]
    found += [float(np.abs(error).mean()), float(np.sqrt((error**2).mean())), float(error.mean())]
    is_constant = spread == 0 or float(said.std()) == 0
    found.append(None if spread == 0 else 1 - float((error**2).mean()) / spread**2)
    return [
        *found,
        *([None, None] if is_constant else [_correlation(true, said), _correlation(_ranks(true), _ranks(said))]),
    ]


def _correlation(one: Any, other: Any) -> float:
    return float(np.corrcoef(one, other)[0, 1])


def _ranks(values: Any) -> Any:
    """Ranks, equal ones of equal values."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def _masks(report: ReportInput) -> Table:
    columns: Sequence[str] = ["class", "images with it", "predicted in", "pixels", "Dice", "IoU of all pixels"]
    assert report.counts is not None
    decided = report.counts.decided(MaskDecision.default(len(report.outputs)))
    both, found, true = decided[..., 0], decided[..., 1], report.counts.true.astype(np.float64)
    rows = []
    for k, name in enumerate(report.outputs):
        has = true[:, k] > 0
        dice = 2 * both[has, k] / (found[has, k] + true[has, k])
        union = found[:, k].sum() + true[:, k].sum() - both[:, k].sum()
        row = [cell(int(has.sum()), ",d"), cell(int((found[:, k] > 0).sum()), ",d"), cell(true[:, k].sum(), ",.0f")]
        scores = [float(dice.mean()) if has.any() else None, float(both[:, k].sum() / union) if union else None]
        rows.append([Cell(name), *row, *(cell(value, ".3f") for value in scores)])
    return Table("Every class", columns, rows)
