"""`swinft submit`: turn predictions into a `submission.csv` that Kaggle accepts."""

from swinft.run.config.parser import call
from swinft.run.layout import Run
from swinft.run.submission.submit import SubmitOptions
from swinft.run.submission.submit import submit as submit_run


def submit(run: str, options: SubmitOptions) -> None:
    """Writes and checks a submission. Options default to the run's `submission` section.

    Args:
        run: The run folder.
        options: What to submit, and in which format.
    """
    submit_run(Run.open(run), options)


def main(argv: list[str]) -> int:
    """`swinft submit RUN`."""
    return call(submit, "submit", argv, SubmitOptions)
