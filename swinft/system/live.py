"""Live lines: overwritten in place on a terminal, and never part of a log, a pipe or a notebook's saved output."""

import os
import re
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, TextIO

from swinft.system.orphans import is_child

LIVE = "SWINFT_LIVE"  # in the environment of a child whose parent shows its live lines
REDRAW_SECONDS = 0.1
ERASE_BELOW = "\x1b[J"
LONGEST_LINE = 65536  # characters: what a process writes without a line end is passed on in parts of at least this size
# Colours, cursor movements and titles, and every control character but the tabulator.
_CONTROLS = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-_]|[\x00-\x08\x0a-\x1f\x7f-\x9f]"
)


def is_terminal() -> bool:
    """Whether a person watches standard output on a terminal that understands ANSI escapes.

    A notebook's `!swinft fit` runs on a pseudo-terminal too, and the notebook saves everything that is written there;
    Jupyter sets JPY_PARENT_PID in the environment of its kernels.
    """
    with suppress(AttributeError, ValueError):  # there is no standard output, or it is closed
        can_draw = os.name == "posix" and os.environ.get("TERM") != "dumb" and "JPY_PARENT_PID" not in os.environ
        return can_draw and sys.stdout.isatty()
    return False


class LiveLine:
    """One line of progress: on this process's terminal, or through the parent on the parent's.

    A child writes its live line to standard output with a carriage return behind it, and `LineSplitter` in the parent
    recognises it by that.

    Attributes:
        is_shown: Whether there is a terminal to show it on; `show` does nothing otherwise.
    """

    def __init__(self) -> None:
        self._screen = Screen() if is_terminal() else None
        self.is_shown = self._screen is not None or (is_child() and os.environ.get(LIVE) == "1")
        self._drawn: float | None = None  # when, in seconds of `time.monotonic`; None while there is no line

    def show(self, text: str) -> None:
        """Replaces the line, at most every `REDRAW_SECONDS`."""
        now = time.monotonic()
        if self.is_shown and (self._drawn is None or now - self._drawn >= REDRAW_SECONDS):
            self._drawn = now
            self._draw(text)

    def clear(self) -> None:
        """Removes the line: before something is printed, and at the end."""
        if self._drawn is not None:
            self._drawn = None
            self._draw("")

    def _draw(self, text: str) -> None:
        if self._screen:
            self._screen.show(0, text)
        else:
            with suppress(OSError, ValueError):  # the parent is gone
                sys.stdout.write(f"{text}\r")
                sys.stdout.flush()


class Screen:
    """Standard output and error of a process: whole lines, and below them the live lines of its children.

    The cursor always stands at the start of the first live line, so that anything printed without this class overwrites
    the live lines and not the other way round. Safe to use from several threads.
    """

    def __init__(self) -> None:
        self.is_live = is_terminal()
        self._live = dict[Any, str]()
        self._lock = threading.Lock()

    def write(self, stream: TextIO | None, text: str) -> None:
        """Writes whole lines to a stream, above the live lines."""
        with self._lock:
            if self._live:
                self._put(sys.stdout, ERASE_BELOW)
            self._put(stream, text)
            self._draw()

    def show(self, key: Any, text: str) -> None:
        """Shows the live line of one writer in place of its last one; an empty text removes it."""
        if not self.is_live:
            return
        with self._lock:
            if not text and key not in self._live:
                return
            self._live[key] = text
            if not text:
                del self._live[key]
            self._put(sys.stdout, ERASE_BELOW)
            self._draw()

    def _draw(self) -> None:
        if not self._live:
            return
        columns, rows = shutil.get_terminal_size()
        lines = [line[: columns - 1] for _, line in sorted(self._live.items())][: max(1, rows - 1)]
        up = f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else ""
        self._put(sys.stdout, "\n".join(lines) + up + "\r")

    def _put(self, stream: TextIO | None, text: str) -> None:
        with suppress(OSError, ValueError):  # the other end is gone, or the stream is closed
            if stream:
                stream.write(text)
                stream.flush()


class LineSplitter:
    """Splits what a process writes into lines and live lines, both without control characters.

    What ends with a line feed is a line. What ends with a carriage return is live: something else is going to be
    written over it, as `LiveLine` and most progress bars do.
    """

    def __init__(self) -> None:
        self._pending = ""
        self._returned: str | None = None  # a live line, while nothing has followed it: a line feed makes it a line

    def split(self, text: str, is_end: bool = False) -> Iterator[tuple[str, bool]]:
        """Yields text and whether it is live; what has no end yet is kept for the next call.

        Args:
            text: Any part of what the process wrote.
            is_end: Nothing follows.
        """
        pieces = re.split(r"([\r\n])", text)
        for piece, end in zip(pieces[::2], [*pieces[1::2], ""], strict=True):
            self._pending += piece
            if end == "\r":
                yield from self._live_line()
            elif end or len(self._pending) >= LONGEST_LINE or (is_end and self._pending):
                yield from self._line(is_feed=bool(end))

    def _live_line(self) -> Iterator[tuple[str, bool]]:
        self._returned, self._pending = self._pending, ""
        yield cleaned(self._returned), True

    def _line(self, is_feed: bool) -> Iterator[tuple[str, bool]]:
        written = self._returned if self._returned and not self._pending and is_feed else self._pending
        self._returned, self._pending = None, ""
        text = cleaned(written)
        if text or not written:  # not what was nothing but control characters
            yield text, False


def cleaned(text: str) -> str:
    """A line without escape sequences and control characters."""
    return _CONTROLS.sub("", text)
