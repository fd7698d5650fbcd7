"""The report of a search as one HTML file: its trials in their order, every parameter, and which of them matter."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from swinft.pages.figures import GRID, INK, Drawing, classes_of, color_of, label, logarithmic, panels
from swinft.pages.page import render
from swinft.pages.tables import Cell, Table, cell
from swinft.printing import format_brief, visible
from swinft.store import commit
from swinft.tuning.results import COMPLETE, FAILED, PRUNED, Row, best_of, pareto, ranked
from swinft.tuning.sampling import import_optuna
from swinft.tuning.study import MAKER, Settings, Study
from swinft.tuning.table import honesty

LEAST = 5  # complete trials, for a regression forest to say something
COLUMNS = 3  # panels beside one another
STATES = {PRUNED: GRID, COMPLETE: color_of(0)}  # with the colours of their trials


def write_report(study: Study, rows: Sequence[Row], nested: float | None) -> None:
    """Writes the report.

    Args:
        study: The search.
        rows: Its finished trials.
        nested: The score of trials that were chosen by other folds; None if it is not known.
    """
    settings, best = study.settings, best_of(rows, study.settings)
    matters = importance(study, rows)
    drawings = [history(rows, settings), slices(study, rows, matters)] if best else []
    figures = [each.shown() for each in drawings]
    page = render(
        "swinft.tuning",
        settings.name,
        classes=classes_of(figures),
        settings=settings,
        trials=_table(study, rows, best),
        honesty=honesty(best, nested, settings, sum(row.state == COMPLETE for row in rows)) if best else [],
        counts={state: sum(row.state == state for row in rows) for state in (COMPLETE, PRUNED, FAILED)},
        importance=matters,
        figures=figures,
    )
    commit(study.folder.report, page.encode(errors="backslashreplace"), MAKER)


def _table(study: Study, rows: Sequence[Row], best: Row | None) -> Table:
    """Every trial: the complete ones by their rank, then the others; the best one stands out, and any on the front."""
    settings, keys = study.settings, [each.key for each in study.space.parameters]
    front = {row.number for row in pareto(rows, settings)} if settings.objective != ["score"] else set()
    front |= {best.number} if best else set()
    shown = ranked(rows, settings) + [row for row in rows if row.state != COMPLETE]
    cells = [
        [
            cell(row.number, "d"),
            Cell(row.state),
            cell(row.score) if row.score is not None else Cell(""),
            cell(row.seconds, format_brief),
            *(_value(row.labels.get(key, "")) for key in keys),
            Cell(row.reason),
        ]
        for row in shown
    ]
    columns = ["trial", "state", "score", "time", *keys, "reason"]
    return Table("Every trial", columns, cells, strong={k for k, row in enumerate(shown) if row.number in front})


def _value(value: Any) -> Cell:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return cell(value, ".4g") if is_number else Cell(visible(str(value)))


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


def history(rows: Sequence[Row], settings: Settings) -> Drawing:
    """The score of every trial in their order, and the best one so far."""

    def draw(figure: Figure) -> None:
        axis = figure.subplots()
        for state, color in STATES.items():
            shown = [row for row in rows if row.state == state and row.score is not None]
            axis.scatter([row.number for row in shown], _scores(shown), s=18, color=color, label=state)
        complete = [row for row in rows if row.state == COMPLETE]
        best = (np.maximum if settings.higher_is_better else np.minimum).accumulate(_scores(complete))
        axis.step([row.number for row in complete], best, where="post", color=INK, linewidth=1, label="best so far")
        label(axis, visible(settings.metric), "trial", "")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.legend()

    return Drawing("The score of each trial; the line is the best one so far.", draw, 3.2)


def slices(study: Study, rows: Sequence[Row], matters: dict[str, float]) -> Drawing:
    """The score against each parameter, those that matter most first."""
    keys = sorted(study.space.parameters, key=lambda each: -matters.get(each.key, 0.0))

    def draw(figure: Figure) -> None:
        for axis, each in zip(panels(figure, len(keys), COLUMNS), keys, strict=True):
            for state, color in STATES.items():
                shown = [row for row in rows if row.state == state and each.key in row.labels and row.score is not None]
                found = [row.labels[each.key] for row in shown]
                places = [each.labels.index(name) for name in found] if each.choices else found
                axis.scatter(places, _scores(shown), s=14, color=color)
            if each.choices:
                axis.set_xticks(range(len(each.labels)), [visible(name)[:16] for name in each.labels])
                axis.set_xlim(-0.5, len(each.labels) - 0.5)
            elif each.log:
                logarithmic(axis, "x")
            share = f" ({matters[each.key]:.0%})" if each.key in matters else ""
            label(axis, "", f"{visible(each.key)}{share}", "")

    return Drawing("The score against each parameter; pale trials were pruned.", draw, 2.8 * -(-len(keys) // COLUMNS))


def _scores(rows: Sequence[Row]) -> NDArray[np.float64]:
    return np.array([row.score for row in rows], dtype=np.float64)
