"""`swinft submit`: predictions to a `submission.csv` that Kaggle accepts."""

from swinft.run.config.parser import call
from swinft.run.layout import Run
from swinft.run.submission.submit import SubmitOptions
from swinft.run.submission.submit import submit as submit_run


def submit(run: str, options: SubmitOptions) -> None:
    """Writes and checks a submission. What is not given is as in the run's `submission` section.

    Args:
        run: The run folder.
        options: What is submitted, and how.
    """
    submit_run(Run.open(run), options)


def main(argv: list[str]) -> int:
    """`swinft submit RUN`."""
    return call(submit, "submit", argv, SubmitOptions)
