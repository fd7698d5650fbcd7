"""What a parent knows of its children while they run: what each says, and when all of them will be done."""

import heapq
import math
import re
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from swinft.errors import number_of
from swinft.printing import format_brief
from swinft.system.status import Status

STARTING = "starting"  # the stage of a job that has not said anything yet


@dataclass
class Job:
    """A child.

    Args:
        what: Its name.
        part: What of it is still to be done when it starts, from 0 to 1: an earlier process has done the rest.
        began: When it was started; None while it waits.
        took: How long it ran; None while it runs.
        has_failed: Whether it has ended without doing what it was to do.
        status: What it said last.
        heard: When it said it.
        foretold: When it was going to be done, as it said last while it could say so for the whole job.
        ended: When it ended.
    """

    what: str
    part: float = 1.0
    began: float | None = None
    took: float | None = None
    has_failed: bool = False
    status: Status | None = None
    heard: float = 0.0
    foretold: float | None = None
    ended: float = 0.0

    @property
    def is_running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self.began is not None and self.took is None

    def whole(self) -> float | None:
        """Seconds that one like it takes from its start; None if unknown."""
        if self.took is not None:  # a resumed one has taken less than another will
            return max(self.took, self.status.whole or 0.0) if self.status and self.part < 1 else self.took
        if self.status is None or self.began is None:
            return None
        if self.status.left is not None and self.status.whole is None:
            return self.heard - self.began + self.status.left
        return self.status.whole

    def left(self, now: float, like: float | None, late: float | None) -> float | None:
        """Seconds until it is done; None if unknown.

        Args:
            now: The time.
            like: What jobs like it take; None if unknown.
            late: How much later than they said jobs like it were done; None if none is done yet.
        """
        like = None if like is None else like * self.part
        if self.began is None:
            return like
        status = self.status or Status(self.what)
        ends = [] if self.foretold is None else [self.foretold + (late or 0.0)]
        ends += [self.heard + status.stage_left] if status.left is None and status.stage_left is not None else []
        by_own = max(0.0, max(ends) - now) if ends else None
        by_like = None if like is None else max(0.0, like - (now - self.began))
        if by_own is None or by_like is None:
            return by_like if by_own is None else by_own
        is_guess = status.is_rough and status.left is not None and late is not None
        return (by_own + by_like) / 2 if is_guess else by_own  # both may be wrong: a first epoch, and another fold


@dataclass
class Overview:
    """Several jobs, some of which run at the same time.

    Args:
        names: Their names, in the order in which they start; empty for processes that are no jobs: how long they will
            take is what they say.
        at_a_time: Jobs that run at the same time.
        more: Jobs like them that follow when all are done.
        after: Seconds of what follows then, and is no job.
        parts: What of each job is still to be done, from 0 to 1, for those with less than all of it.
        began: When the first one was started.
    """

    names: Mapping[int | str, str]
    at_a_time: int
    more: int = 0
    after: float = 0.0
    parts: Mapping[int | str, float] = field(default_factory=dict)
    began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        """Makes a job of each name."""
        self.jobs = {key: Job(name, self.parts.get(key, 1.0)) for key, name in self.names.items()}
        units = {name.partition(" ")[0] for name in self.names.values()}  # `fold` of `fold 0`
        unit = units.pop() if len(units) == 1 else ""
        self.unit = unit if unit.isalpha() else "process"
        self.are_jobs = all(self.names.values())

    def started(self, key: int | str) -> None:
        """A job was started."""
        self.jobs[key].began = time.monotonic()

    def ended(self, key: int | str, has_failed: bool = False) -> None:
        """A job has ended; after a failure no other is started."""
        job = self.jobs[key]
        job.ended, job.has_failed = time.monotonic(), has_failed
        job.took = 0.0 if job.began is None else time.monotonic() - job.began

    def heard(self, key: int | str, status: Status) -> None:
        """A job has said where it is."""
        job = self.jobs[key]
        job.status, job.heard = status.after(job.status), time.monotonic()
        if status.left is not None:
            job.foretold = job.heard + status.left

    def said(self, key: int | str, text: str) -> None:
        """A job that has not told a status yet has written a line of a progress bar, such as that of a download."""
        job = self.jobs[key]
        if text and (job.status is None or not job.status.of):
            job.status, job.heard = Status(job.what, text), time.monotonic()

    def rows(self) -> list[Status]:
        """Where each running job is, now: in the order of the jobs, or by the numbers that processes name."""
        now, found = time.monotonic(), []
        like = self._like(now)
        for job in self.jobs.values():
            if job.is_running:
                told = Status(job.what, STARTING) if job.status is None else job.status.aged(now - job.heard)
                left = job.left(now, like, self._late) if self.are_jobs else told.left
                is_rough = told.is_rough or told.left is None
                found.append(replace(told, left=left, is_rough=is_rough))
        if not self.are_jobs:  # of two processes the second one may have the first trial
            found.sort(key=lambda row: [int(number) for number in re.findall(r"\d+", row.what)])
        return found

    def left(self) -> tuple[float | None, bool]:
        """Seconds until all jobs are done, None if unknown; and whether they are a rough estimate."""
        now = time.monotonic()
        like = self._like(now)
        is_over = any(job.has_failed for job in self.jobs.values())
        waiting = [job for job in self.jobs.values() if job.took is None and (job.is_running or not is_over)]
        more, after = (0, 0.0) if is_over else (self.more, self.after)
        each = [job.left(now, like, self._late) for job in waiting]
        if like is None and (more or None in each):
            return None, True
        known = [value for value in each if value is not None]
        seconds = makespan(known, self.at_a_time) + makespan([like or 0.0] * more, self.at_a_time) + after
        is_rough = any(job.status is None or job.status.is_rough for job in waiting if job.is_running)
        return seconds, is_rough and self._late is None

    def footer(self) -> str:
        """How many jobs are done, how long they took, and the time left for everything."""
        done = sum(job.took is not None and not job.has_failed for job in self.jobs.values())
        many = "processes" if self.unit == "process" else f"{self.unit}s"
        all_of = number_of(len(self.jobs) + self.more, self.unit, many)
        left, is_rough = self.left()
        # A job that ended sooner says what those that wait will take.
        is_most = not done and any(job.status.is_most for job in self.jobs.values() if job.status)
        about = "at most " if is_most else "about " if is_rough else ""
        when = "not yet known" if left is None else f"{about}{format_brief(left, is_rough)}"
        counted = f"{done} of {all_of} done after {format_brief(time.monotonic() - self.began)}"
        if failed := [job.what for job in self.jobs.values() if job.has_failed]:
            return f"left for {many} that run: {when}; {', '.join(failed)} failed, so no other is started; {counted}"
        return f"left for everything: {when}; {counted}"

    @property
    def _done(self) -> list[Job]:
        return [job for job in self.jobs.values() if job.took is not None and not job.has_failed]

    @property
    def _late(self) -> float | None:
        """How much later than they said jobs were done: what follows the last batch is not in their times."""
        late = [job.ended - job.foretold for job in self._done if job.foretold is not None]
        return max(0.0, statistics.median(late)) if late else 0.0 if self._done else None

    def _like(self, now: float) -> float | None:
        """Seconds of a job like these; None if unknown.

        The mean of those that are done, with those that run as far as they are: one that turns out to be slower is the
        latest word on how fast the machine is now. One that may end sooner than it says counts only if none is done.
        """
        done = self._done
        known = [(seconds, math.inf) for job in done if (seconds := job.whole()) is not None]
        for job in self.jobs.values():
            is_guess = job.status is not None and (job.status.is_most or job.status.is_rough)
            if job.is_running and job.began is not None and not (done and is_guess):
                late = self._late or 0.0
                known += [(whole + late, now - job.began) for whole in [job.whole()] if whole is not None]
        if not known:
            return None
        mean = statistics.fmean(seconds for seconds, _ in known)
        weights = [min(1.0, max(1e-6, since / mean if mean > 0 else 1.0)) for _, since in known]
        return statistics.fmean([seconds for seconds, _ in known], weights)


def makespan(seconds: Sequence[float], at_a_time: int) -> float:
    """The time at which all jobs are done, if they are started in order on `at_a_time` slots.

    Args:
        seconds: Duration of each job.
        at_a_time: Jobs that run in parallel.
    """
    ends = [0.0] * max(1, at_a_time)
    for job in seconds:
        heapq.heappush(ends, heapq.heappop(ends) + job)
    return max(ends)
