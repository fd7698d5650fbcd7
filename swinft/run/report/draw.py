"""Writes the report of a finished run again, from its files."""

from pathlib import Path

from swinft.data.roots import resolved_root
from swinft.errors import InputError
from swinft.printing import print_line
from swinft.run.experiment import Experiment
from swinft.run.layout import Run
from swinft.run.lock import hold_if_writable
from swinft.run.provenance import predictions_made_with
from swinft.run.report.page import write_report
from swinft.run.scoring import training_rows
from swinft.store import is_committed, probe


def draw(run: Run, allow_code: list[str] | None = None, root: str | None = None) -> Path:
    """Writes the report of a finished run as one HTML file, and its table of errors.

    Args:
        run: The run.
        allow_code: Packages or modules whose classes the run's config may name, besides the trusted ones.
        root: The data's folder if it differs from that of the training; None for that of its config.

    Returns:
        The file.

    Raises:
        InputError: Not every fold is finished, train.csv is missing or has changed, or the test predictions were made
            with other weights.
    """
    if not is_committed(run.scores):
        raise InputError(f"{run.root} has no scores yet. Run `{run.resume_command}` first.")
    with hold_if_writable(run.lock):
        if unfinished := [] if run.is_ensemble else run.unfinished_folds():
            raise InputError(
                f"folds {unfinished} of {run.root} are not finished, or have lost files. Run `{run.resume_command}` "
                f"first."
            )
        probe(run.root, what="report.html", advice="Copy the run to a writable folder.")
        experiment = Experiment.of_run(run, "report", allow_code)
        if root is not None:
            config = experiment.config.clone()
            config.data.root = resolved_root(root)
            experiment = experiment.with_config(config)
        made_with = predictions_made_with(run) if is_committed(run.test_predictions) else None
        data = training_rows(run, experiment)
        metrics = experiment.section("model")["metrics"] or ()
        write_report(run, data, metrics, experiment=experiment, allow_code=allow_code)
    if made_with:
        print_line(f"test predictions: {made_with.describe()}")
    return run.report
