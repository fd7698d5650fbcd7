"""`swinft fit`: every fold of a config; out-of-fold predictions, their pooled score, a report."""

from swinft.run.early import fit_words


def main(argv: list[str]) -> int:
    """`swinft fit --config FILE`, `swinft fit --resume RUN`."""
    fit_words(argv)
    return 0
