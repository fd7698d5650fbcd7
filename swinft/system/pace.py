"""How fast a pass over batches is, by the later half of those that are done: the first ones are often slow."""

MOST_MARKS = 1024  # times that are kept; of a longer pass those of every second, fourth … batch


class Pace:
    """The times at which the batches of a pass were done.

    Attributes:
        done: Batches that are done.
        last: When the last one was done; None before the first one.
    """

    def __init__(self) -> None:
        self.done = 0
        self.last: float | None = None
        self._marks: list[float] = []
        self._every = 1

    def add(self, now: float) -> None:
        """Counts a batch that is done now."""
        self.done, self.last = self.done + 1, now
        if self.done % self._every == 0:
            self._marks.append(now)
        if len(self._marks) > MOST_MARKS:
            self._marks, self._every = self._marks[1::2], 2 * self._every

    @property
    def seconds(self) -> float | None:
        """Seconds of a batch, those of the later half; None before the second one. The first one is never timed."""
        last = len(self._marks) - 1
        first = last // 2
        taken = self._marks[-1] - self._marks[first] if last > 0 else 0.0
        return taken / ((last - first) * self._every) if taken > 0 else None
