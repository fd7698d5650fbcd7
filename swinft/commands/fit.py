"""`swinft fit`: every fold of a config; out-of-fold predictions, their pooled score, a report."""

from swinft.run.early import name_by_folder, refuse_second


def main(argv: list[str]) -> int:
    """`swinft fit --config FILE`, `swinft fit --resume RUN`."""
    argv = name_by_folder(argv)
    refuse_second(argv)
    from swinft.run.config.sections import fit_parser  # slow, and needed by nobody who is refused
    from swinft.run.experiment import Experiment
    from swinft.run.fit import fit

    return fit(Experiment.from_argv(fit_parser(), argv))
