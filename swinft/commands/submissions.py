"""`swinft submissions`: list what a run has submitted to Kaggle, with its scores."""

from swinft.json_output import Output
from swinft.kaggle.client import Client
from swinft.kaggle.record import Sent, read_sent
from swinft.kaggle.scores import describe, refresh
from swinft.printing import print_line
from swinft.run.config.parser import call
from swinft.run.layout import Run


def submissions(run: str, refresh: bool = False) -> Output:
    """Lists what a run has submitted to Kaggle, with its scores as they were last read.

    Args:
        run: The run folder.
        refresh: Read the scores again, such as the private ones after the deadline.
    """
    opened = Run.open(run)
    found = read_sent(opened)
    if not found:
        print_line(f"{opened.root} has submitted nothing to Kaggle")
    elif refresh:
        found = _refreshed(opened)
    for entry in found:
        what = f"notebook {entry.kernel}" if entry.kernel else f"SHA-256 {entry.sha256[:12]}"
        print_line(f"{entry.sent}  {entry.competition}  ref {entry.ref or 'unknown'}  '{entry.message}'  {what}")
        print_line(f"  {_state(entry, opened)}")
    return {"run": opened.root, "submissions": found}


def _refreshed(run: Run) -> list[Sent]:
    return refresh(Client(), run)


def _state(entry: Sent, run: Run) -> str:
    """The scores, or why there are none."""
    if entry.is_scored and not entry.error:
        return describe(entry, run)
    return f"{entry.status}{f': {entry.error}' if entry.error else ''}"


def main(argv: list[str]) -> Output:
    """`swinft submissions RUN`."""
    return call(submissions, "submissions", argv)
