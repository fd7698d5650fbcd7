"""Where the time went: images per second, waiting for the loader, and the time of each training."""

from typing import Any

import numpy as np

from swinft.pages.tables import Cell, Table, cell
from swinft.printing import format_brief, format_rate
from swinft.run.report.charts import Chart
from swinft.run.report.contents import ReportInput
from swinft.run.report.section import Section, render
from swinft.run.report.sections.training import lines_of

LEAD = (
    "Means over epochs. Waiting is the part of an epoch's training in which the device had no batch: above a tenth,"
    " more loader workers, a cache of decoded images or lighter augmentation make training faster."
)
COLUMNS = ["fold", "epochs", "images/s", "waiting", "training", "validation", "in all", "peak memory"]


def section(report: ReportInput) -> Section | None:
    """The section; none for an ensemble."""
    if not report.histories:
        return None
    results = {str(each["fold"]): each for each in report.scores["folds"]}
    rows = [_row(str(fold), lines, results.get(str(fold), {})) for fold, lines in report.histories.items() if lines]
    table = Table("Time of each training", COLUMNS, rows)
    lines = lines_of(report, "seconds")
    figure = Chart("Seconds of each epoch, with its validation", "epoch", "seconds", lines, whole="x").html()
    total = format_brief(sum(line["seconds"] for history in report.histories.values() for line in history))
    body = render("sections/throughput.html", table=table, figures=[figure] if figure else [], total=total)
    return Section("time", "Throughput and time", LEAD, body)


def _row(fold: str, lines: list[dict[str, Any]], result: dict[str, Any]) -> list[Cell]:
    """A training's times. Runs of earlier versions recorded neither validation nor images per second."""
    seconds = sum(line["seconds"] for line in lines)
    validation = _sum(lines, "val_seconds")
    rates = [line["images_per_second"] for line in lines if line.get("images_per_second")]
    waits = [line["loader_wait"] for line in lines if line.get("loader_wait") is not None]
    training = None if validation is None else seconds - validation
    memory = (result.get("peak_memory") or {}).get("bytes")
    return [
        Cell(f"fold {fold}"),
        cell(float(len(lines)), ",.0f"),
        cell(float(np.mean(rates)) if rates else None, format_rate),
        cell(float(np.mean(waits)) if waits else None, ".1%"),
        cell(training, format_brief),
        cell(validation, format_brief),
        cell(seconds, format_brief),
        cell(None if memory is None else memory / 2**30, lambda value: f"{value:.2f} GiB"),
    ]


def _sum(lines: list[dict[str, Any]], key: str) -> float | None:
    found = [line[key] for line in lines if line.get(key) is not None]
    return float(sum(found)) if len(found) == len(lines) else None
