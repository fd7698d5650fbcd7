"""The report as one HTML file: a heading, the contents, and the sections; nothing is loaded from outside."""

import sys
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from swinft.data.datamodule import CSVDataModule
from swinft.errors import InputError, StoreError, number_of
from swinft.inference.predictions import as_bytes
from swinft.pages import page as pages
from swinft.printing import print_line
from swinft.run.experiment import Experiment
from swinft.run.layout import Run
from swinft.run.mask_counts import MaskCounts
from swinft.run.report.contents import ReportInput
from swinft.run.report.errors import error_table
from swinft.run.report.section import Section
from swinft.run.report.sections import (
    augmented,
    calibration,
    confusion,
    curves,
    drift,
    duplicates,
    ensemble,
    folds,
    images,
    masks,
    mislabelled,
    numbers,
    outputs,
    scores,
    settings,
    subgroups,
    test_rows,
    throughput,
    training,
    uncertain,
    views,
    worst,
)
from swinft.store import commit

MAKER = "swinft report"
ROWS = (worst, uncertain, mislabelled, duplicates, augmented, views, drift)
SECTIONS = (
    *(scores, ensemble, training, outputs, confusion, curves, calibration, numbers, subgroups, masks),
    *ROWS,
    *(test_rows, folds, images, throughput, settings),
)
"""Modules with a function `section(report) -> Section | None`, in the order of the page."""

STYLES = ("page.css", "uplot/uPlot.min.css")
SCRIPTS = ("uplot/uPlot.iife.min.js", "charts.js")


def write_report(
    run: Run,
    data: CSVDataModule,
    metrics: Sequence[Any] = (),
    counts: MaskCounts | None = None,
    experiment: Experiment | None = None,
    allow_code: Sequence[str] | None = None,
) -> None:
    """Writes the report of a finished run.

    Args:
        run: The run.
        data: Its datamodule after `setup("fit")`.
        metrics: Those of its config; none for the head's.
        counts: Pixels of its out-of-fold masks, if they are counted.
        experiment: Its experiment, to load networks for Grad-CAM; None while it is fitted.
        allow_code: Packages or modules whose classes the configs of an ensemble's members may name.
    """
    report = ReportInput.of(run, data, metrics, counts, experiment, allow_code)
    commit(run.errors, as_bytes(error_table(report.oof.values, data, _facts(report))), MAKER)
    if report.lacking:
        print_line(report.lacking.replace("`", ""), file=sys.stderr)
    commit(run.report, page_of(report).encode(errors="backslashreplace"), MAKER)


def _facts(report: ReportInput) -> dict[str, Any]:
    """More columns of errors.csv; none where they cannot be computed: errors and truths are written all the same."""
    try:
        return report.facts.columns()
    except (InputError, StoreError):
        raise
    except Exception as error:
        print_line(f"WARNING: errors.csv lacks the uncertainty and the label quality: {error!r}", file=sys.stderr)
        return {}


def page_of(report: ReportInput) -> str:
    """The page.

    A section that fails is replaced by the reason, which is also printed: the others are shown all the same.
    """
    return pages.render(
        "swinft.run.report",
        report.run.root.name,
        styles=STYLES,
        scripts=SCRIPTS,
        about=about(report),
        lacking=report.lacking,
        sections=[found for module in SECTIONS if (found := _section(module, report))],
    )


def about(report: ReportInput) -> str:
    """A line on what the run is."""
    scores, environment = report.scores, report.environment
    held_out = {str(each["fold"]).partition("_")[0] for each in scores["folds"]}  # with several seeds, 0_seed_1
    size = f"{number_of(scores['rows'], 'row')} · {number_of(len(held_out), 'fold')}"
    seeds = len(scores["folds"]) // max(1, len(held_out))
    size += f" · {seeds} seeds" if seeds > 1 else ""
    if report.run.is_ensemble:
        return f"{report.run.read_ensemble()['described']} · {size}"
    image_size, checkpoint = report.config["data"]["image_size"], scores["checkpoint"]
    sides = " × ".join(map(str, image_size)) if isinstance(image_size, list) else image_size
    weights = f"weights of the {checkpoint}{' epoch' if checkpoint in ('last', 'best') else ''}"
    views, computed = ", ".join(scores["views"]), f"{environment['precision']} on {environment['device']}"
    return f"{report.config['model']['backbone']} at {sides} px · {size} · {weights} · views {views} · {computed}"


def _section(module: Any, report: ReportInput) -> Section | None:
    try:
        found: Section | None = module.section(report)
    except (InputError, StoreError):  # a file of the run is damaged: nothing that is read from it is shown
        raise
    except Exception as error:  # a fault in one figure must not hide the others
        name = module.__name__.rpartition(".")[2]
        reason = f"{type(error).__name__}: {error}"
        print_line(f"WARNING: the section '{name}' of the report could not be made: {reason}", file=sys.stderr)
        title = f"{name.replace('_', ' ').capitalize()} could not be made"
        return Section(name.replace("_", "-"), title, reason, Markup())
    return found
