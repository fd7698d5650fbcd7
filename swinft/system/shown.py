"""What a parent shows of its children: their lines, and below them a view of where each of them is."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from swinft.system.live import Screen
from swinft.system.overview import STARTING, Overview
from swinft.system.status import Status


class Watch(Protocol):
    """Shows the progress of children in the place of their parent's own view.

    Attributes:
        is_shown: Whether somebody looks at it.
    """

    is_shown: bool

    def show(self, overview: Overview) -> None:
        """Shows where the children are; called several times a second."""
        ...


@dataclass(frozen=True)
class Following:
    """What a view of children says besides where each of them is.

    Args:
        more: Children like these that the caller will run afterwards: they are part of the time left.
        after: Seconds of what else the caller does afterwards.
        footer: The last line, of the rows above it; None for the time left for everything.
        watch: Shows the children in the place of the view; None for the view.
    """

    more: int = 0
    after: float = 0.0
    footer: Callable[[Sequence[Status]], str] | None = None
    watch: Watch | None = None


ALONE = Following()  # nothing follows, and the view is the usual one


class Shown:
    """What is shown of children: their lines, and below them where each of them is.

    Args:
        names: Their names, as of `Overview`.
        parts: What of each is still to be done, as of `Overview`.
        at_a_time: How many of them run at the same time.
        following: What else is shown.
    """

    def __init__(
        self, names: Mapping[int | str, str], parts: Mapping[int | str, float], at_a_time: int, following: Following
    ) -> None:
        self.overview = Overview(names, at_a_time, following.more, following.after, parts)
        self.screen, self._following = Screen(), following
        watch = following.watch
        self.is_shown = self.screen.is_live if watch is None else watch.is_shown
        self._drawn: float | None = None

    def __enter__(self) -> "Shown":
        return self

    def __exit__(self, *_: object) -> None:
        self.screen.clear()

    def draw(self) -> None:
        """Draws where the children are, now and then; called by the thread that waits for them."""
        now = time.monotonic()
        if not self.is_shown or (self._drawn is not None and now - self._drawn < self.screen.seconds):
            return
        self._drawn = now
        if self._following.watch:
            self._following.watch.show(self.overview)
            return
        from swinft.system.view import drawn  # rich is imported where it draws

        rows, footer = self.overview.rows(), self._following.footer
        if not self.overview.are_jobs:
            rows = [row for row in rows if row.stage != STARTING]
        last = footer(rows) if footer else self.overview.footer() if self.overview.are_jobs else ""
        if rows or footer:
            self.screen.show(partial(drawn, rows, last))
