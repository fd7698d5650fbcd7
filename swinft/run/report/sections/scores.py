"""The pooled score of every metric, the score of each fold, their spread, and the scores with rules."""

import math
from typing import Any

import numpy as np
from markupsafe import Markup

from swinft.pages.tables import Cell, Table, cell
from swinft.printing import format_score
from swinft.run.report.contents import ReportInput
from swinft.run.report.intervals import Interval, Scorer, format_ends, groups_of
from swinft.run.report.section import Section, render
from swinft.run.report.svg import RIGHT, WIDTH, Scale, figure, label_of, span, text

LEAD = "The pooled score is computed once over all out-of-fold rows; it is not the mean of the folds' scores."


def section(report: ReportInput) -> Section | None:
    """The section."""
    scorers = [Scorer(report, metric) for metric in report.metrics]
    found = {scorer.metric.name: scorer.pooled() for scorer in scorers}
    body = render(
        "sections/scores.html",
        scores=report.scores,
        intervals={name: format_ends(pooled) for name, pooled in found.items()},
        figure=folds_figure(report, scorers[0], found[scorers[0].metric.name]),
        table=folds_table(report),
        ruled=_rules(report),
        grouped="groups of rows" if groups_of(report) is not None else "rows",
    )
    return Section("scores", "Scores", LEAD, body)


def folds_figure(report: ReportInput, scorer: Scorer, pooled: Interval) -> Markup:
    """The first metric of each training and of all rows, with their intervals."""
    scores, name = report.scores, scorer.metric.name
    of_folds = {fold: scorer.interval(report.folds == fold) for fold in np.unique(report.folds).tolist()}
    lines = [(f"fold {fold['fold']}", fold["oof"][name], of_folds.get(_held_out(fold))) for fold in scores["folds"]]
    lines = [*lines, ("pooled", scores["pooled"][name], pooled)]
    ends = [value for _, score, low_high in lines for value in (score, *(low_high or ()))]
    height = 56 + 22 * len(lines)
    x = Scale(*span([math.nan if value is None else value for value in ends]), 110, WIDTH - RIGHT)
    parts = [Markup('<path class="grid" d="M{0:.1f} 8V{1}"/>').format(float(x(v)), height - 42) for v in x.ticks(5)]
    parts += [text(float(x(value)), height - 28, label_of(value), "middle", "tick") for value in x.ticks(5)]
    parts.append(text((x.start + x.end) / 2, height - 8, name))
    for place, (label, score, low_high) in enumerate(lines):
        y, style = 20 + 22 * place, "c1" if label == "pooled" else "c0"
        parts.append(text(102, y + 4, label, "end", "strong", 16))
        if low_high is not None:
            low, high = x(low_high)
            parts.append(Markup('<path class="whisker {}" d="M{:.1f} {}H{:.1f}"/>').format(style, low, y, high))
        if score is not None and not math.isnan(score):
            parts.append(Markup('<path class="mark {}" d="M{:.1f} {}h0"/>').format(style, float(x(score)), y))
    return figure(f"{name} of the folds and of all rows, with 95 % intervals", Markup("").join(parts), height)


def _held_out(fold: dict[str, Any]) -> int:
    """The fold that a training held out: of several seeds, each name begins with it."""
    return int(str(fold["fold"]).partition("_")[0])


def folds_table(report: ReportInput) -> Table:
    """A row for each training, and the pooled scores below."""
    scores, names = report.scores, list(report.scores["pooled"])
    monitor, is_trained = f"val_{names[0]}", not report.run.is_ensemble
    more = [f"{names[0]}, last epoch", f"{names[0]}, best epoch", "minutes"] if is_trained else []
    rows = []
    for fold in scores["folds"]:
        line = [cell(str(fold["fold"])), cell(fold["rows"], ",d"), *(cell(fold["oof"][name]) for name in names)]
        if is_trained:
            last, best = fold["last_epoch"], fold["best_epoch"]
            shown = Cell(f"{format_score(best[monitor])} ({best['epoch']})", best[monitor])
            line += [cell(last[monitor]), shown, cell(fold["seconds"] / 60, ".1f")]
        rows.append(line)

    def total(title: str, found: dict[str, Any]) -> list[Cell]:
        texts = [Cell(format_score(found[name])) for name in names]
        return [Cell(title), cell(scores["rows"], ",d"), *texts, *[Cell("")] * len(more)]

    totals = [total("pooled", scores["pooled"])]
    totals += [total(f"pooled, seed {seed}", found) for seed, found in scores.get("seeds", {}).items()]
    ruled = scores.get("with_rules", {"pooled": {}})
    totals += [total("with rules", ruled["pooled"])] if ruled["pooled"] else []
    totals += [total("with rules, in sample", ruled["in_sample"])] if "in_sample" in ruled else []
    return Table("Scores of the folds", ["fold", "rows", *names, *more], rows, totals)


def _rules(report: ReportInput) -> dict[str, Any]:
    """What scores.json says of the rules of the submission; empty without any."""
    found: dict[str, Any] = report.scores.get("with_rules", {})
    return found
