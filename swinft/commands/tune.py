"""`swinft tune`: search settings of a config by training its folds with other values."""

from swinft.tuning.command import tune_from_argv


def main(argv: list[str]) -> int:
    """`swinft tune --config FILE`, `swinft tune --resume FOLDER`."""
    tune_from_argv(argv)
    return 0
