"""Live progress lines: overwritten in place on a terminal, never written to a log, a pipe or a notebook."""

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
LONGEST_LINE = 65536  # characters; longer text without a line end is passed on in parts of at least this size
# Escape sequences for colours, cursor and titles, and every control character except the tab.
_CONTROLS = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-_]|[\x00-\x08\x0a-\x1f\x7f-\x9f]"
)


def is_terminal() -> bool:
    """Whether standard output is a terminal that supports ANSI escapes, and not a notebook.

    A notebook's `!swinft fit` runs on a pseudo-terminal too, and the notebook saves everything that is written there;
    Jupyter sets JPY_PARENT_PID in the environment of its kernels.
    """
    with suppress(AttributeError, ValueError):  # standard output is missing or closed
        can_draw = os.name == "posix" and os.environ.get("TERM") != "dumb" and "JPY_PARENT_PID" not in os.environ
        return can_draw and sys.stdout.isatty()
    return False


class LiveLine:
    """One line of progress, on the terminal of this process or of its parent.

    A child writes its live line to standard output, ended by a carriage return. `LineSplitter` in the parent recognises
    the line by this.

    Attributes:
        is_shown: Whether there is a terminal; without one, `show` does nothing.
    """

    def __init__(self) -> None:
        self._screen = Screen() if is_terminal() else None
        self.is_shown = self._screen is not None or (is_child() and os.environ.get(LIVE) == "1")
        self._drawn: float | None = None  # `time.monotonic` of the last drawing; None while there is no line

    def show(self, text: str) -> None:
        """Replaces the line, at most every `REDRAW_SECONDS`."""
        now = time.monotonic()
        if self.is_shown and (self._drawn is None or now - self._drawn >= REDRAW_SECONDS):
            self._drawn = now
            self._draw(text)

    def clear(self) -> None:
        """Removes the line: call it before printing, and at the end."""
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

    The cursor is always at the start of the first live line, so that text printed without this class overwrites the
    live lines and not the other way round. Thread-safe.
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
        """Replaces the live line of one writer; an empty text removes it."""
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
        with suppress(OSError, ValueError):  # the reader is gone, or the stream is closed
            if stream:
                stream.write(text)
                stream.flush()


class LineSplitter:
    """Splits the output of a process into lines and live lines, both without control characters.

    Text that ends with a line feed is a line. Text that ends with a carriage return is a live line, which the next one
    will overwrite: `LiveLine` and most progress bars write such lines.
    """

    def __init__(self) -> None:
        self._pending = ""
        self._returned: str | None = None  # the last live line, until other text follows: a line feed makes it a line

    def split(self, text: str, is_end: bool = False) -> Iterator[tuple[str, bool]]:
        """Yields text and whether it is live; text without a line end is kept for the next call.

        Args:
            text: Any part of the output.
            is_end: Whether this is the last part.
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
        if text or not written:  # lines of only control characters are dropped
            yield text, False


def cleaned(text: str) -> str:
    """A line without escape sequences and control characters."""
    return _CONTROLS.sub("", text)
