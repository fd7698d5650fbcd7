"""`swinft report`: write a run's report as one HTML file."""

from swinft.json_output import Output
from swinft.run.config.parser import call
from swinft.run.layout import Run
from swinft.run.report.draw import draw


def report(run: str, root: str | None = None, allow_code: list[str] | None = None) -> Output:
    """Writes the report of a finished run as one HTML file.

    Args:
        run: The run folder.
        root: The data's folder if it differs from that of the training: the training table must be there; without the
            images, what shows them is left out.
        allow_code: Packages or modules whose classes the run's config may name, besides the trusted ones.
    """
    path = draw(Run.open(run), allow_code, root)
    print(path)
    return {"report": path}


def main(argv: list[str]) -> Output:
    """`swinft report RUN`."""
    return call(report, "report", argv)
