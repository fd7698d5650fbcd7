"""`swinft report`: a run as one HTML file."""

from swinft.errors import InputError
from swinft.printing import say
from swinft.run.config.parser import call
from swinft.run.experiment import Experiment
from swinft.run.inputs import check_inputs
from swinft.run.layout import Run
from swinft.run.lock import hold_if_writable
from swinft.run.provenance import predictions_made_with
from swinft.run.report.page import write_report
from swinft.store import is_committed, probe, verify


def report(run: str, allow_code: list[str] | None = None) -> None:
    """Draws a finished run as one HTML file.

    Args:
        run: The run folder.
        allow_code: Packages or modules whose classes the run's config may name, besides the trusted ones.

    Raises:
        InputError: Not every fold is finished, train.csv is not that of the run, or the test predictions are not of the
            run's weights.
    """
    opened = Run.open(run)
    if not is_committed(opened.scores):
        raise InputError(f"{run} has no scores yet. Run `{opened.resume_command}` first.")
    if unfinished := opened.unfinished_folds():
        raise InputError(
            f"folds {unfinished} of {run} are not finished, or not any more. Run `{opened.resume_command}` first."
        )
    with hold_if_writable(opened.lock):
        probe(opened.root, what="report.html", advice="Copy the run to where it can be written to.")
        experiment = Experiment.of_run(opened, "report", allow_code)
        check_inputs(opened, experiment.config, ("train",))
        made_with = predictions_made_with(opened) if is_committed(opened.test_predictions) else None
        data = experiment.datamodule(folds=str(verify(opened.folds)), images=str(verify(opened.images)))
        data.setup("fit")
        write_report(opened, data)
    if made_with:
        say(f"test predictions: {made_with.describe()}")
    print(opened.report)


def main(argv: list[str]) -> int:
    """`swinft report RUN`."""
    return call(report, "report", argv)
