"""`max_hours`: the time limit of a run, divided among its folds when each of them starts."""

import math
import os
import time
from dataclasses import dataclass

from jsonargparse import Namespace

from swinft.run.fold_files import Fold
from swinft.run.layout import Run

DEADLINE = "SWINFT_DEADLINE"  # environment variable of a fold: seconds since 1970, and how many folds run at a time


@dataclass(frozen=True)
class TimeLimit:
    """When a fold must be done.

    Args:
        until: End of the fold, in seconds of `time.monotonic`.
        num_views: Views of its out-of-fold predictions, which follow the training.
        run_until: End of the run; None if this process fits a single fold with `--fold`.
    """

    until: float
    num_views: int
    run_until: float | None = None

    @property
    def left(self) -> float:
        """Seconds left for the fold, at least 0."""
        return max(0.0, self.until - time.monotonic())

    @property
    def run_left(self) -> float | None:
        """Seconds left for the run, at least 0; None if unknown."""
        return None if self.run_until is None else max(0.0, self.run_until - time.monotonic())


def deadline(run: Run, config: Namespace, at_a_time: int) -> dict[str, str]:
    """The environment variable with the run's deadline; empty without `max_hours`.

    Args:
        run: The run; the time of its recorded epochs is subtracted.
        config: The config.
        at_a_time: Folds that run in parallel.
    """
    if config.max_hours is None:
        return {}
    spent = sum(_spent(run.fold(index)) for index in run.trainings()) / max(1, at_a_time)
    return {DEADLINE: f"{time.time() + 3600 * config.max_hours - spent:.1f}/{at_a_time}"}


def fold_limit(run: Run, config: Namespace) -> TimeLimit | None:
    """The time limit of the fold that starts now: an equal part of the time left for all unfinished folds.

    Args:
        run: The run.
        config: The config, with `fold`.
    """
    if config.max_hours is None:
        return None
    variable = os.environ.get(DEADLINE)
    if variable is None:  # a single fold, with `--fold`
        share, run_until = (
            3600 * config.max_hours / len(run.trainings()) - _spent(run.fold(config.fold)),
            None,
        )
    else:
        until, at_a_time = variable.split("/")
        rounds = math.ceil(len(run.unfinished_trainings()) / int(at_a_time))
        left = float(until) - time.time()
        share, run_until = left / max(1, rounds), time.monotonic() + left
    return TimeLimit(time.monotonic() + share, len(config.predict.views), run_until)


def _spent(fold: Fold) -> float:
    """Seconds of the epochs that a fold has recorded."""
    return sum(line["seconds"] for line in fold.read_history()) if fold.metrics.is_file() else 0.0
