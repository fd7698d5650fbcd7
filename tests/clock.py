"""Time that stands still until a test advances it."""


class Clock:
    """In the place of the module `time` where a module imports that.

    Attributes:
        now: Seconds.
    """

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    time = monotonic
