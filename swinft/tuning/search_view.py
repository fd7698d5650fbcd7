"""The progress of a search: the trials that run, with their folds; how many are done, the best, and the time left."""

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from swinft.printing import format_brief, format_score
from swinft.system.live import LiveLine
from swinft.system.overview import STARTING, Overview, makespan
from swinft.system.status import Status
from swinft.tuning.results import COMPLETE, FAILED, PRUNED, Row, best_of, read_rows
from swinft.tuning.study import Study

READ_SECONDS = 5.0  # between two looks at the trials of other processes, for the live view


class SearchTimes:
    """How far a search is, with the trials of every process, and how long it will take.

    A trial that is still to come takes as long as the complete ones have taken, or, before one is complete, as long as
    those that run expect. One that is pruned takes less, so that with pruning this is an upper limit.

    Args:
        study: The search.
        limit: Its trials.
        jobs: How many run at the same time.
        until: When no further step is started, in seconds of `time.monotonic`; None for no limit.
    """

    def __init__(self, study: Study, limit: int, jobs: int = 1, until: float | None = None) -> None:
        self._study, self._limit, self._jobs, self._until = study, limit, jobs, until
        self._rows: list[Row] = []
        self._num_started = 0
        self._read: float | None = None

    def read(self) -> None:
        """Reads the trials from the database."""
        self._rows, self._read = read_rows(self._study), time.monotonic()
        self._num_started = len(self._study.trials())

    def left(self, running: Sequence[Status]) -> tuple[float | None, bool]:
        """Seconds until the search is done, None if unknown; and whether they are a rough estimate.

        Args:
            running: The trials that run here.
        """
        took = [row.took for row in self._rows if row.state == COMPLETE and row.took is not None]
        expected = [status.whole for status in running if status.whole is not None]
        known = took or expected
        to_start = max(0, self._limit - self._num_started)
        if not known and (to_start or not running):
            return None if to_start or self._num_started > len(self._rows) else 0.0, True
        like = sum(known) / len(known) if known else 0.0
        here = [like / 2 if status.left is None else status.left for status in running]
        elsewhere = max(0, self._num_started - len(self._rows) - len(running))  # or about to start here
        left = makespan([*here, *[like] * (elsewhere + to_start)], self._jobs)
        if self._until is not None:
            left = min(left, max(0.0, self._until - time.monotonic()))
        return left, not took

    def describe_left(self, running: Sequence[Status]) -> str:
        """The time left in words: `at most 2h 10m`."""
        left, is_rough = self.left(running)
        if left is None:
            return "not yet known"
        prunes = self._study.settings.is_fold_by_fold and self._study.settings.num_steps > 1
        return f"{'at most ' if prunes else 'about ' if is_rough else ''}{format_brief(left, is_rough)}"

    def footer(self, running: Sequence[Status]) -> str:
        """The last line of the view: time left, trials that are done, and the best of them."""
        if self._read is None or time.monotonic() - self._read >= READ_SECONDS:
            self._read = time.monotonic()
            with suppress(Exception):  # of a database that others use: no view ends a search, and the next look is near
                self.read()
        rows, counts = self._rows, []
        for state in (PRUNED, FAILED):
            if number := sum(row.state == state for row in rows):
                counts.append(f"{number} {state}")
        best = best_of(rows, self._study.settings)
        parts = [
            f"left for the search: {self.describe_left(running)}",
            f"{len(rows)} of {self._limit} trials done",
            *([] if best is None else [f"best {format_score(best.score)} of trial {best.number}"]),
            *counts,
        ]
        return "; ".join(parts)


class SearchView:
    """Shows the trial that this process runs, on a terminal or in a notebook, or tells it to the process of the search.

    Args:
        times: Of the search.
    """

    def __init__(self, times: SearchTimes) -> None:
        self.times = times
        self._line = LiveLine()
        self.is_shown = self._line.is_shown
        self._number, self._began = 0, 0.0
        self._known = Status("")

    def begin(self, number: int) -> None:
        """A trial begins."""
        self._number, self._began = number, time.monotonic()
        self._known = Status("")
        self._draw([Status(f"trial {number}", STARTING)])

    def show(self, overview: Overview) -> None:
        """Shows the folds of the trial, now and then."""
        if self._line.is_due():
            self._draw([replace(row, what=f"trial {self._number} {row.what}") for row in overview.rows()], overview)

    def clear(self) -> None:
        """Removes the view: call it before printing, and at the end."""
        self._line.clear()

    def _draw(self, rows: Sequence[Status], overview: Overview | None = None) -> None:
        if not self._line.is_due():
            return
        trial = self._trial(rows, overview)
        if self._line.is_told:
            self._line.show(trial)
        else:
            self._line.show(rows or [trial], self.times.footer([trial]))

    def _trial(self, rows: Sequence[Status], overview: Overview | None) -> Status:
        """The trial as one row: its fold that will be done last, how many run besides, and the time of all of them."""
        left, is_rough = (None, True) if overview is None else overview.left()
        row = max(rows, key=lambda each: each.left or 0.0, default=Status(f"trial {self._number}", STARTING))
        what = f"{row.what} + {len(rows) - 1}" if len(rows) > 1 else row.what
        since = time.monotonic() - self._began
        if left is None and self._known.whole is not None:  # the next fold has begun, and has not said anything yet
            left = max(0.0, self._known.whole - since)
        whole = None if left is None else since + left
        self._known = replace(row, what=what, left=left, whole=whole, is_rough=is_rough).after(self._known)
        return self._known
