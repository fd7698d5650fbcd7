"""Runs the trials of a search one after another, until as many have ended as were asked for."""

import math
import re
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

from swinft.errors import InputError, RunError, StoreError, disk_error, number_of
from swinft.printing import format_brief, format_score, print_line
from swinft.tuning.objective import FULL, SIGNALS, Measured, Objective
from swinft.tuning.results import Row, best_of, write_results
from swinft.tuning.search_view import SearchTimes, SearchView
from swinft.tuning.study import Claim, Study

SAME_FAILURES = 3  # in a row, before any trial has succeeded, that end the search


class TimeIsUp(Exception):
    """The hours of this start are over; the trial continues with the next one."""


class Search:
    """Runs trials in this process.

    Args:
        study: The search.
        objective: What is measured.
        limit: Trials of the whole search.
        keep: Finished trials whose weights are kept.
        until: When no further step is started, in seconds of `time.monotonic`; None for no limit.
        view: Shows the trials; None for one of this process alone.
    """

    def __init__(
        self,
        study: Study,
        objective: Objective,
        limit: int,
        keep: int,
        until: float | None = None,
        view: SearchView | None = None,
    ) -> None:
        self.study, self.objective, self._keep, self._until = study, objective, keep, until
        self.limit = trials_of(study, limit)
        self._view = view or SearchView(SearchTimes(study, self.limit, 1, until))
        self._failures: list[str] = []

    def run(self) -> None:
        """Runs trials until there are as many as the limit.

        Raises:
            RunError: The first trials of this start have failed with the same error, and no trial has succeeded; or the
                disk is full.
            KeyboardInterrupt: Ctrl-C. The trial continues with the next start.
        """
        while not self._is_time_up():
            claim = self.study.claim(self.limit)
            if claim is None:
                break
            try:
                self._run(claim)
            except TimeIsUp:
                break
            finally:
                self._view.clear()
                claim.lock.close()

    def _is_time_up(self) -> bool:
        return self._until is not None and time.monotonic() >= self._until

    def _run(self, claim: Claim) -> None:
        chosen = ", ".join(f"{key} {_short(value)}" for key, value in claim.labels.items())
        print_line(f"trial {claim.number}: {chosen}")
        started = time.monotonic()
        self._view.begin(claim.number)
        try:
            measured, done, is_pruned = self._measure(claim)
        except (InputError, RunError) as error:
            if isinstance(error, StoreError) or getattr(error, "code", 2) in SIGNALS or _is_of_disk(str(error)):
                raise
            self._fail(claim, str(error).strip() or type(error).__name__)
        else:
            self._succeed(claim, measured, done, is_pruned, time.monotonic() - started)

    def _measure(self, claim: Claim) -> tuple[Measured, int, bool]:
        """The last step, the number of steps, and whether the trial was pruned."""
        steps = self.objective.measure(claim.number, claim.values)
        measured, done = None, 0
        while True:
            if done < self.study.settings.num_steps and self._is_time_up():
                raise TimeIsUp
            with _to_log(self.study.folder.log(claim.number)):
                found = _next(steps)
            if found is None:
                break
            measured, done = found, done + 1
            if self.study.report(claim, done - 1, measured.score):
                return measured, done, True
        if measured is None:
            raise InputError("nothing was measured.")
        return measured, done, False

    def _succeed(self, claim: Claim, measured: Measured, done: int, is_pruned: bool, took: float) -> None:
        self._failures.clear()
        about: dict[str, Any] = {
            "steps": done,
            "score": measured.score,
            "seconds": measured.seconds,
            "parameters": measured.parameters,
        }
        values = None if is_pruned else [float(about[name]) for name in self.study.settings.objective]
        self.study.finish(claim, values, took=round(took, 1), **about)
        best, left = self._write(), self._left()
        how = f"pruned after {number_of(done, 'fold')}, " if is_pruned else ""
        ahead = f"; best: {format_score(best.score)} of trial {best.number}" if best else ""
        print_line(f"trial {claim.number}: {how}{format_score(measured.score)} in {format_brief(took)}{ahead}{left}")

    def _fail(self, claim: Claim, reason: str) -> None:
        self.study.finish(claim, None, reason)
        best, left = self._write(), self._left()
        print_line(f"trial {claim.number}: failed: {reason.splitlines()[0]}{left}")
        self._failures.append(re.sub(r"\d+(\.\d+)?(e[-+]?\d+)?", "0", reason))
        if best is None and self._failures[-SAME_FAILURES:] == [self._failures[-1]] * SAME_FAILURES:
            raise RunError(
                f"{SAME_FAILURES} trials in a row failed with the same error, and none has succeeded:\n  {reason}\n"
                f"What they printed is in {self.study.folder.log(claim.number).parent}."
            )

    def _left(self) -> str:
        """The time left for the search, at the end of a line; removes the view before that line."""
        self._view.clear()
        times = self._view.times
        times.read()
        return f"; left for the search: {times.describe_left([])}" if times.left([])[0] else ""

    def _write(self) -> Row | None:
        """Writes the table and the best config, deletes large files of other trials, and returns the best trial."""
        return best_of(write_results(self.study, self.objective, self._keep), self.study.settings)


def trials_of(study: Study, limit: int) -> int:
    """How many trials a search has: as many as asked for, or all that a grid has."""
    sizes = study.space.grid() if study.settings.sampler == "grid" else {}
    return min(limit, math.prod(len(values) for values in sizes.values())) if sizes else limit


def _next(steps: Iterator[Measured]) -> Measured | None:
    """The next step of a trial; None after the last one.

    Raises:
        RunError: Code has failed that should not: an error of values that nothing foresaw.
    """
    try:
        return next(steps, None)
    except (InputError, RunError):
        raise
    except Exception as error:
        traceback.print_exc()  # into the log
        if isinstance(error, OSError) and (shown := disk_error(error)):
            raise StoreError(str(shown)) from error  # any other trial would fail, too
        raise RunError(f"{type(error).__name__}: {error}") from error


def _is_of_disk(reason: str) -> bool:
    return any(word in reason for word in FULL)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@contextmanager
def _to_log(path: Path) -> Iterator[None]:
    """Appends what is printed inside to a file; if it cannot be opened, it is shown."""
    sys.stdout.flush()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", errors="replace") as file, redirect_stdout(file), redirect_stderr(file):
        yield
