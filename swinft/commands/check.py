"""`swinft check`: check the tables, images and folds of a config, and all else that a fit needs, without training."""

from pathlib import Path

from swinft.json_output import Output
from swinft.run.check import check_run, print_checked
from swinft.run.compute.selection import run_trial
from swinft.run.config.fit_options import add_rounds
from swinft.run.config.parser import Parser, built_once
from swinft.run.config.sections import new_parser
from swinft.run.experiment import Experiment
from swinft.run.fit_command import has_rounds
from swinft.run.rounds.command import check_rounds


def main(argv: list[str]) -> Output:
    """`swinft check --config FILE`."""
    if has_rounds(argv):
        return check_rounds(argv, _parser())
    experiment = Experiment.from_argv(_parser(), argv)
    if experiment.config.trial:
        run_trial(experiment, Path(experiment.config.trial))
        return {}
    experiment.config.devices_per_fold = None  # an option of `fit`
    checked = check_run(experiment)
    return print_checked(checked)


@built_once
def _parser() -> Parser:
    """The options of a config, and one for the command's own children."""
    parser = new_parser("check")
    add_rounds(parser)
    help_text = "internal: run the timed trial that a folder requests"
    parser.add_argument("--trial", type=str | None, default=None, help=help_text)
    return parser
