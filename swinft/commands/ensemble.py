"""`swinft ensemble`: combine the predictions of several runs, with a score of rows that no weight was fitted on."""

from swinft.json_output import Output
from swinft.run.ensemble.command import ensemble_from_argv
from swinft.run.run_output import run_output


def main(argv: list[str]) -> Output:
    """`swinft ensemble RUN RUN --name NAME`, `swinft ensemble --config FILE`."""
    run = ensemble_from_argv(argv)
    return {**run_output(run), "ensemble": run.read_ensemble()}
