"""Progress of a pass over batches: images per second and the time left."""

import time
from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

from swinft.printing import format_brief, format_rate
from swinft.system.live import LiveLine
from swinft.system.pace import Pace
from swinft.system.status import Status

LINE_SECONDS = 300.0  # between lines where there is no terminal for a live one


class Progress:
    """Counts batches and shows progress, from the second batch on with images per second and the time left.

    The first batch is counted and not timed: it includes memory allocation and compilation. On a terminal and in a
    notebook this is a live line, or the parent shows it; elsewhere a line is printed every five minutes.

    Args:
        what: Printed before the numbers, such as `fold 0  epoch 1/10`: a job, and after two blanks its stage.
        num_batches: Batches of the pass.
        first_line: Seconds until the first line is printed where there is no terminal.
    """

    def __init__(self, what: str, num_batches: int, first_line: float = LINE_SECONDS) -> None:
        self.live = LiveLine()
        self.begin(what, num_batches, first_line)

    def begin(self, what: str, num_batches: int, first_line: float = LINE_SECONDS) -> None:
        """Starts another pass; the arguments are those of the constructor."""
        self._what, self._num_batches = what, num_batches
        self._pace, self._images = Pace(), 0
        self._next_line = time.monotonic() + first_line

    def add(self, num_images: int, completed: Callable[[Status], Status] = lambda status: status) -> None:
        """Counts a finished batch.

        Args:
            num_images: Images in the batch.
            completed: Adds what else is known to a status; called only where it is shown.
        """
        now = time.monotonic()
        self._pace.add(now)
        self._images += num_images
        if self.live.is_due():
            self.live.show(completed(self._status()))
        elif not self.live.is_shown and now >= self._next_line and self._pace.done > 1:
            self._next_line = now + LINE_SECONDS
            print(_text(completed(self._status())), flush=True)

    def close(self) -> None:
        """Removes the live line."""
        self.live.clear()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _status(self) -> Status:
        what, _, stage = self._what.partition("  ")
        done = self._pace.done
        found = Status(what, stage, done, self._num_batches)
        if not (seconds := self._pace.seconds):
            return found
        left = max(0, self._num_batches - done) * seconds
        return replace(found, rate=self._images / done / seconds, stage_left=left, is_rough=True)


def _text(status: Status) -> str:
    """A status as a line."""
    counted = f"{'  '.join(filter(None, (status.what, status.stage)))}  batch {status.done}/{status.of}"
    if status.rate is None or status.stage_left is None:
        return counted
    times = {"": status.stage_left, f", {status.what.partition(' ')[0]} ": status.left}
    said = [f"{name}about {format_brief(left, is_rough=True)}" for name, left in times.items() if left is not None]
    return f"{counted}  {format_rate(status.rate)} img/s  left: {''.join(said)}"
