"""The trackers of an experiment, and their check before a training."""

from collections.abc import Sequence

from swinft.run.experiment import Experiment
from swinft.run.trackers.configured import loggers_of, trackers_in
from swinft.run.trackers.tracker import Tracker
from swinft.system.orphans import is_child
from swinft.system.processes import rank


def trackers_of(experiment: Experiment) -> list[Tracker]:
    """The trackers of a config.

    Raises:
        InputError: A class does not accept its arguments.
    """
    return trackers_in(loggers_of(experiment.section("trainer")["logger"]))


def check_trackers(trackers: Sequence[Tracker]) -> None:
    """Checks before a training that every tracker is installed and answers; in the command's own process only.

    Raises:
        InputError: One does not.
    """
    if is_child() or rank():
        return
    for tracker in trackers:
        tracker.check()
