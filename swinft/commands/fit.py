"""`swinft fit`: train every fold of a config; write out-of-fold predictions, their pooled score and a report."""

from swinft.run.early import fit_words


def main(argv: list[str]) -> int:
    """`swinft fit --config FILE`, `swinft fit --resume RUN`."""
    fit_words(argv)
    return 0
