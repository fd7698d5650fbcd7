"""The trackers that a config names: by a word, by a class, or several of them."""

from collections.abc import Sequence
from typing import Any, Literal

from swinft.errors import InputError
from swinft.run.trackers.event_files import TensorBoardTracker
from swinft.run.trackers.mlflow_runs import MLflowTracker
from swinft.run.trackers.tracker import Tracker
from swinft.run.trackers.trackio_runs import TrackioTracker
from swinft.run.trackers.weights_and_biases import WandbTracker

LoggerName = Literal["csv", "tensorboard", "wandb", "mlflow", "trackio"]
CSV = "csv"
TRACKERS: dict[str, type[Tracker]] = {
    each.word: each for each in (TensorBoardTracker, WandbTracker, MLflowTracker, TrackioTracker)
}


def loggers_of(wanted: Any) -> list[Any]:
    """The value of `trainer.logger` as a list of loggers, and of the word `csv`, which needs a folder.

    Raises:
        InputError: A word is given twice, or a tracker with another one of its kind.
    """
    given = wanted if isinstance(wanted, list) else [wanted]
    words = [CSV if each is True else each for each in given if each is not False and each is not None]
    found = [TRACKERS[each]() if each in TRACKERS else each for each in words]
    kinds = [each.word if isinstance(each, Tracker) else each for each in found]
    twice = sorted({str(each) for each in kinds if isinstance(each, str) and kinds.count(each) > 1})
    if twice:
        raise InputError(f"trainer.logger names {', '.join(twice)} more than once: its records would be mixed.")
    return found


def trackers_in(loggers: Sequence[Any]) -> list[Tracker]:
    """The trackers among loggers."""
    return [each for each in loggers if isinstance(each, Tracker)]
