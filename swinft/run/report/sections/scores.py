"""The pooled score of every metric, the score of each fold, their spread, and the scores with rules."""

from typing import Any

from swinft.printing import format_score
from swinft.run.report.contents import ReportInput
from swinft.run.report.section import Section, render
from swinft.run.report.tables import Cell, Table, cell

LEAD = "The pooled score is computed once over all out-of-fold rows; it is not the mean of the folds' scores."


def section(report: ReportInput) -> Section | None:
    """The section."""
    body = render("sections/scores.html", scores=report.scores, table=folds_table(report), ruled=_rules(report))
    return Section("scores", "Scores", LEAD, body)


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
