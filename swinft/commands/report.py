"""`swinft report`: write a run's report as one HTML file."""

from swinft.json_output import Output
from swinft.run.config.parser import call
from swinft.run.layout import Run
from swinft.run.report.draw import draw


def report(run: str, allow_code: list[str] | None = None) -> Output:
    """Writes the report of a finished run as one HTML file.

    Args:
        run: The run folder.
        allow_code: Packages or modules whose classes the run's config may name, besides the trusted ones.
    """
    path = draw(Run.open(run), allow_code)
    print(path)
    return {"report": path}


def main(argv: list[str]) -> Output:
    """`swinft report RUN`."""
    return call(report, "report", argv)
