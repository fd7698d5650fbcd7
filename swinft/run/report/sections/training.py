"""Losses, scores and learning rate by epoch; the best epoch is marked."""

import math
from typing import Any

import numpy as np
from markupsafe import Markup

from swinft.run.fold_files import FoldId
from swinft.run.report.charts import Chart, Line
from swinft.run.report.contents import ReportInput
from swinft.run.report.section import Section, render
from swinft.run.report.svg import COLORS

LEAD = (
    "One colour for each fold. Validation is on the rows that the fold does not train on; a dot marks its best "
    "epoch by the first metric. Training losses include mixing, smoothing and dropout, so that they may be above "
    "those of validation."
)
MANY = (
    "Of {} trainings, in each epoch the median, the lowest and the highest value. Validation is on the rows that a "
    "fold does not train on. Training losses include mixing, smoothing and dropout, so that they may be above those of "
    "validation."
)
OTHERS = ("epoch", "train_loss", "val_loss", "lr", "seconds", "val_seconds", "images_per_second", "loader_wait")


def section(report: ReportInput) -> Section | None:
    """The section; none for an ensemble."""
    if not report.histories:
        return None
    names = [metric.name for metric in report.metrics]
    charts = [_losses(report)]
    charts += [_chart(report, f"val_{name}", f"validation {name}", has_marks=name == names[0]) for name in names]
    charts.append(_chart(report, "lr", "learning rate"))
    known = {f"val_{name}" for name in names} | set(OTHERS)
    every = {key: None for lines in report.histories.values() for line in lines for key in line}
    charts += [_chart(report, key, key.replace("_", " ")) for key in every if key not in known]
    lead = MANY.format(len(report.histories)) if is_summed_up(report) else LEAD
    return Section(
        "training", "Training", lead, render("sections/figures.html", figures=[each for each in charts if each])
    )


def _losses(report: ReportInput) -> Markup:
    lines = []
    if is_summed_up(report):
        for number, (key, what) in enumerate((("val_loss", "validation"), ("train_loss", "training"))):
            lines += _summary(report, key, number, f"{what}, ")
        title = f"Loss: the median of {len(report.histories)} trainings, dashed the lowest and the highest"
    else:
        for number, (fold, history) in enumerate(report.histories.items()):
            for key, style in (("train_loss", "dashed"), ("val_loss", "line")):
                what = "training" if style == "dashed" else "validation"
                lines.append(_line(f"fold {fold}, {what}", history, key, number, style))
        title = "Loss: training dashed, validation solid"
    values = np.concatenate([np.asarray(line.y, dtype=np.float64) for line in lines])
    values = values[np.isfinite(values)]
    is_log = bool(len(values) and values.min() > 0 and values.max() / values.min() > 20)
    return Chart(title, "epoch", "loss", lines, is_log=is_log, whole="x").html()


def _chart(report: ReportInput, key: str, title: str, has_marks: bool = False) -> Markup:
    marks = []
    if has_marks and not is_summed_up(report):
        for number, (fold, history) in enumerate(report.histories.items()):
            if (best := best_epoch(report, fold)) is not None:
                value = next((_number(line.get(key)) for line in history if line["epoch"] == best), math.nan)
                marks.append((float(best), value, number))
    lines = lines_of(report, key)
    return Chart(title[:1].upper() + title[1:], "epoch", title, lines, marks, whole="x").html()


def is_summed_up(report: ReportInput) -> bool:
    """Whether there are more trainings than colours: then their median and their ends are drawn."""
    return len(report.histories) > COLORS


def lines_of(report: ReportInput, key: str) -> list[Line]:
    """A value of metrics.jsonl by epoch: a line for each training, or the median and the ends of many."""
    if is_summed_up(report):
        return _summary(report, key, 0)
    trainings = enumerate(report.histories.items())
    return [_line(f"fold {fold}", history, key, number) for number, (fold, history) in trainings]


def _summary(report: ReportInput, key: str, color: int, prefix: str = "") -> list[Line]:
    by_epoch: dict[float, list[float]] = {}
    for history in report.histories.values():
        for line in history:
            if math.isfinite(value := _number(line.get(key))):
                by_epoch.setdefault(float(line["epoch"]), []).append(value)
    epochs = sorted(by_epoch)
    lines = []
    for name, share in (("lowest", 0.0), ("median", 0.5), ("highest", 1.0)):
        values = [float(np.quantile(by_epoch[epoch], share)) for epoch in epochs]
        lines.append(Line(f"{prefix}{name}", epochs, values, color, "line" if name == "median" else "dashed"))
    return lines


def best_epoch(report: ReportInput, fold: FoldId) -> int | None:
    """The best epoch of a training, by the first metric."""
    found = next((each for each in report.scores["folds"] if str(each["fold"]) == str(fold)), None)
    return None if found is None else int(found["best_epoch"]["epoch"])


def _line(name: str, history: list[dict[str, Any]], key: str, number: int, style: str = "line") -> Line:
    epochs = [float(line["epoch"]) for line in history]
    return Line(name, epochs, [_number(line.get(key)) for line in history], number, style)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)
