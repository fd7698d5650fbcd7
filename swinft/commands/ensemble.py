"""`swinft ensemble`: combine the predictions of several runs, with a score of rows that no weight was fitted on."""

from swinft.run.ensemble.command import ensemble_from_argv


def main(argv: list[str]) -> int:
    """`swinft ensemble RUN RUN --name NAME`, `swinft ensemble --config FILE`."""
    ensemble_from_argv(argv)
    return 0
