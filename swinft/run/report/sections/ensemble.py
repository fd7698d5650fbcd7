"""An ensemble's methods and members, or what a model on embeddings is compared with."""

from swinft.run.embed.table import comparison_lines
from swinft.run.ensemble.table import table_lines
from swinft.run.report.contents import ReportInput
from swinft.run.report.section import Section, render

LEAD = "Scores of rows that no weight was fitted on, beside those of the members alone."


def section(report: ReportInput) -> Section | None:
    """The section; none for a run that was trained."""
    if not report.run.is_ensemble:
        return None
    scores = report.scores
    lines = table_lines(scores["ensemble"]) if "ensemble" in scores else comparison_lines(scores["embedding"])
    text = "\n".join(lines)
    return Section("members", "Methods and members", LEAD, render("sections/ensemble.html", text=text))
