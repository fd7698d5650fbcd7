"""The report of a search as one HTML file: its trials in their order, every parameter, and which of them matter."""

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter
from numpy.typing import NDArray

from swinft.pages import data_uri, templates
from swinft.printing import plain_names
from swinft.store import commit
from swinft.tuning.results import COMPLETE, FAILED, PRUNED, Row, best_of, pareto, ranked
from swinft.tuning.sampling import import_optuna
from swinft.tuning.study import MAKER, Settings, Study
from swinft.tuning.table import honesty

LEAST = 5  # complete trials, for a regression forest to say something
COLUMNS = 3  # panels beside one another
INK, ACCENT, PALE = "#1c2733", "#1f6f8b", "#b8c4ce"


def write_report(study: Study, rows: Sequence[Row], nested: float | None) -> None:
    """Writes the report.

    Args:
        study: The search.
        rows: Its finished trials.
        nested: The score of trials that were chosen by other folds; None if it is not known.
    """
    settings, best = study.settings, best_of(rows, study.settings)
    matters = importance(study, rows)
    names = [text for row in rows for text in (*row.labels, *map(str, row.labels.values()))]
    with plain_names([*names, settings.metric]) as drawable:
        figures = [_png(history(rows, settings, drawable)), _png(slices(study, rows, matters, drawable))]
    template = templates("swinft.tuning").get_template("page.html")
    page = template.render(
        settings=settings,
        rows=ranked(rows, settings) + [row for row in rows if row.state != COMPLETE],
        keys=[each.key for each in study.space.parameters],
        front={row.number for row in pareto(rows, settings)} if settings.objective != ["score"] else set(),
        best=best,
        honesty=honesty(best, nested, settings, sum(row.state == COMPLETE for row in rows)) if best else [],
        counts={state: sum(row.state == state for row in rows) for state in (COMPLETE, PRUNED, FAILED)},
        importance=matters,
        figures=figures if best else [],
        space=settings.space,
    )
    commit(study.folder.report, page.encode(), MAKER)


def importance(study: Study, rows: Sequence[Row]) -> dict[str, float]:
    """Share of the variance of the score that each parameter explains alone (fANOVA); empty with too few trials."""
    if sum(row.state == COMPLETE for row in rows) < LEAST:
        return {}
    optuna = import_optuna()
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=study.settings.seed)
    target = (lambda trial: trial.user_attrs["score"]) if len(study.settings.objective) > 1 else None
    try:
        found = optuna.importance.get_param_importances(study.study, evaluator=evaluator, target=target)
    except (RuntimeError, ValueError):  # every trial has the same score
        return {}
    return {key: float(share) for key, share in found.items() if math.isfinite(share)}


def history(rows: Sequence[Row], settings: Settings, drawable: Any) -> Figure:
    """The score of every trial in their order, and the best one so far."""
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    axis = figure.subplots()
    for state, color in ((PRUNED, PALE), (COMPLETE, ACCENT)):
        shown = [row for row in rows if row.state == state and row.score is not None]
        axis.scatter([row.number for row in shown], _scores(shown), s=18, color=color, label=state)
    complete = [row for row in rows if row.state == COMPLETE]
    best = (np.maximum if settings.higher_is_better else np.minimum).accumulate(_scores(complete))
    axis.step([row.number for row in complete], best, where="post", color=INK, linewidth=1, label="best so far")
    _label(axis, drawable(settings.metric), "trial")
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(frameon=False, fontsize=8)
    return figure


def slices(study: Study, rows: Sequence[Row], matters: dict[str, float], drawable: Any) -> Figure:
    """The score against each parameter, those that matter most first."""
    keys = sorted(study.space.parameters, key=lambda each: -matters.get(each.key, 0.0))
    lines = math.ceil(len(keys) / COLUMNS)
    figure = Figure(figsize=(10, 2.8 * lines), layout="constrained")
    axes = figure.subplots(lines, COLUMNS, squeeze=False).ravel()
    for axis, each in zip(axes, keys, strict=False):
        for state, color in ((PRUNED, PALE), (COMPLETE, ACCENT)):
            shown = [row for row in rows if row.state == state and each.key in row.labels and row.score is not None]
            found = [row.labels[each.key] for row in shown]
            places = [each.labels.index(label) for label in found] if each.choices else found
            axis.scatter(places, _scores(shown), s=14, color=color)
        if each.choices:
            axis.set_xticks(range(len(each.labels)), [drawable(label)[:16] for label in each.labels])
            axis.set_xlim(-0.5, len(each.labels) - 0.5)
        elif each.log:
            _logarithmic(axis, each.high / each.low)
        share = f" ({matters[each.key]:.0%})" if each.key in matters else ""
        _label(axis, "", f"{drawable(each.key)}{share}")
    for axis in axes[len(keys) :]:
        axis.remove()
    return figure


def _logarithmic(axis: Axes, ratio: float) -> None:
    """A logarithmic axis with plain numbers: matplotlib labels it with mathematical text, which is not drawn here."""
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0,) if ratio > 20 else (1.0, 2.0, 5.0)))
    axis.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _scores(rows: Sequence[Row]) -> NDArray[np.float64]:
    return np.array([row.score for row in rows], dtype=np.float64)


def _label(axis: Axes, title: str, below: str) -> None:
    axis.set_title(title, fontsize=10, color=INK, loc="left")
    axis.set_xlabel(below, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)


def _png(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return data_uri(file.getvalue(), "png")
