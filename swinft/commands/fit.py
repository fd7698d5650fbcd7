"""`swinft fit`: train every fold of a config; write out-of-fold predictions, their pooled score and a report."""

from swinft.run.fit_command import fit_from_argv


def main(argv: list[str]) -> int:
    """`swinft fit --config FILE`, `swinft fit --resume RUN`."""
    fit_from_argv(argv)
    return 0
