"""`max_hours`: the time of a whole run, shared among its folds when each is started."""

import math
import os
import time
from dataclasses import dataclass

from jsonargparse import Namespace

from swinft.run.layout import Fold, Run

DEADLINE = "SWINFT_DEADLINE"  # what a fold's process is told: seconds since 1970, and how many folds run at a time


@dataclass(frozen=True)
class TimeLimit:
    """When a fold must be done.

    Args:
        until: Seconds of `time.monotonic`.
        num_views: Views of its out-of-fold predictions, which follow the training.
        run_until: The same as `until` for the whole run; None where this process fits a single fold on its own.
    """

    until: float
    num_views: int
    run_until: float | None = None

    @property
    def left(self) -> float:
        """Seconds until then, from 0."""
        return max(0.0, self.until - time.monotonic())

    @property
    def run_left(self) -> float | None:
        """Seconds until the whole run must be done, from 0."""
        return None if self.run_until is None else max(0.0, self.run_until - time.monotonic())


def deadline(run: Run, config: Namespace, at_a_time: int) -> dict[str, str]:
    """When the run must be done, for the environment of its folds; nothing without `max_hours`.

    Args:
        run: The run. What its epochs of earlier starts took is counted.
        config: The config.
        at_a_time: Folds that run side by side.
    """
    if config.max_hours is None:
        return {}
    spent = sum(_spent(run.fold(index)) for index in run.planned_folds()) / max(1, at_a_time)
    return {DEADLINE: f"{time.time() + 3600 * config.max_hours - spent:.1f}/{at_a_time}"}


def fold_limit(run: Run, config: Namespace) -> TimeLimit | None:
    """When the fold that starts now must be done: it gets its share of what is left, as those that wait after it.

    Args:
        run: The run.
        config: The config, with `fold`.
    """
    if config.max_hours is None:
        return None
    told = os.environ.get(DEADLINE)
    if told is None:  # a fold of its own
        share, run_until = 3600 * config.max_hours / len(run.planned_folds()) - _spent(run.fold(config.fold)), None
    else:
        until, at_a_time = told.split("/")
        rounds = math.ceil(len(run.unfinished_folds()) / int(at_a_time))
        left = float(until) - time.time()
        share, run_until = left / max(1, rounds), time.monotonic() + left
    return TimeLimit(time.monotonic() + share, len(config.predict.views), run_until)


def _spent(fold: Fold) -> float:
    """Seconds of the epochs that a fold has recorded."""
    return sum(line["seconds"] for line in fold.read_history()) if fold.metrics.is_file() else 0.0
