"""Progress of a pass over batches: images per second and the time left."""

import time
from types import TracebackType

from swinft.printing import format_brief, format_rate
from swinft.system.live import LiveLine

LINE_SECONDS = 300.0  # between lines where there is no terminal for a live one


class Progress:
    """Counts batches and shows progress, from the second batch on with images per second and the time left.

    The first batch is counted and not timed: it includes memory allocation and compilation. On a terminal this is a
    live line; elsewhere a line is printed every five minutes.

    Args:
        what: Printed before the numbers, such as `fold 0  epoch 1/10`.
        num_batches: Batches of the pass.
        first_line: Seconds until the first line is printed where there is no terminal.
    """

    def __init__(self, what: str, num_batches: int, first_line: float = LINE_SECONDS) -> None:
        self.live = LiveLine()
        self.begin(what, num_batches, first_line)

    def begin(self, what: str, num_batches: int, first_line: float = LINE_SECONDS) -> None:
        """Starts another pass; the arguments are those of the constructor."""
        self._what, self._num_batches = what, num_batches
        self._batches = self._images = 0
        self._first = self._last = 0.0
        self._next_line = time.monotonic() + first_line

    def add(self, num_images: int, more: str = "") -> None:
        """Counts a finished batch.

        Args:
            num_images: Images in the batch.
            more: Shown after the time left, such as `, fold about 12m`.
        """
        self._batches, self._last = self._batches + 1, time.monotonic()
        if self._batches == 1:
            self._first = self._last
        else:
            self._images += num_images
        if self.live.is_shown:
            self.live.show(self._text(more))
        elif self._last >= self._next_line and self._batches > 1:
            self._next_line = self._last + LINE_SECONDS
            print(self._text(more), flush=True)

    def close(self) -> None:
        """Removes the live line."""
        self.live.clear()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _text(self, more: str) -> str:
        counted = f"{self._what}  batch {self._batches}/{self._num_batches}"
        timed, taken = self._batches - 1, self._last - self._first
        if not taken > 0:
            return counted
        left = max(0, self._num_batches - self._batches) * taken / timed
        rate = format_rate(self._images / taken)
        return f"{counted}  {rate} img/s  left: about {format_brief(left, is_rough=True)}{more}"
