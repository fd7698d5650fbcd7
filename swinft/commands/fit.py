"""`swinft fit`: train every fold of a config; write out-of-fold predictions, their pooled score and a report."""

from swinft.json_output import Output
from swinft.run.fit_command import fit_from_argv
from swinft.run.run_output import run_output


def main(argv: list[str]) -> Output:
    """`swinft fit --config FILE`, `swinft fit --resume RUN`."""
    run = fit_from_argv(argv)
    return {"run": None} if run is None else run_output(run)
