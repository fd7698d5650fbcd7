"""`swinft tune`: search settings of a config by training its folds with other values."""

from swinft.json_output import Output
from swinft.tuning.command import tune_from_argv


def main(argv: list[str]) -> Output:
    """`swinft tune --config FILE`, `swinft tune --resume FOLDER`."""
    found = tune_from_argv(argv)
    return {} if found is None else found.output
