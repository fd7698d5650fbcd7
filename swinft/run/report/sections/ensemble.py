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
    is_table = "ensemble" in scores  # a comparison has sentences, which are broken into lines
    lines = table_lines(scores["ensemble"]) if is_table else comparison_lines(scores["embedding"])
    body = render("sections/ensemble.html", text="\n".join(lines), is_table=is_table)
    return Section("members", "Methods and members", LEAD, body)
