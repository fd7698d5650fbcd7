"""A live view of progress, of this process or its children: on a terminal or in a notebook, in no pipe and no log."""

import os
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TextIO

from swinft.system.orphans import is_child
from swinft.system.status import SEPARATOR, Status

LIVE = "SWINFT_LIVE"  # in the environment of a child whose parent shows its progress: the word of its messages
REDRAW_SECONDS = 0.25
NOTEBOOK_SECONDS = 1.0  # every update of a notebook's display goes to the browser
TALK_SECONDS = 0.5  # between the messages of a child
ERASE_BELOW, ERASE_RIGHT = "\x1b[J", "\x1b[K"
LONGEST_LINE = 65536  # characters; longer text without a line end is passed on in parts of at least this size
# Escape sequences for colours, cursor and titles, and every control character except the tab.
_CONTROLS = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-_]|[\x00-\x08\x0a-\x1f\x7f-\x9f]"
)
# Columns, rows and encoding of a terminal to the lines to draw, with colours.
View = Callable[[int, int, str], list[str]]


def unlogged(stream: TextIO) -> TextIO:
    """The stream below one whose lines are also appended to a log: views are drawn there."""
    found: TextIO = getattr(stream, "unlogged", stream)
    return found


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a stream is a terminal that supports ANSI escapes, and not a notebook.

    A notebook's `!swinft fit` runs on a pseudo-terminal too, and the notebook saves everything that is written there;
    Jupyter sets JPY_PARENT_PID in the environment of its kernels.
    """
    with suppress(AttributeError, ValueError):  # there is none, or it is closed
        can_draw = os.name == "posix" and os.environ.get("TERM") != "dumb" and "JPY_PARENT_PID" not in os.environ
        return can_draw and stream is not None and stream.isatty()
    return False


def is_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


class Screen:
    """Standard output and error of a process: whole lines, and below them a view that is drawn again and again.

    On a terminal the cursor is always at the start of the view's first line. Text that is printed without this class
    then overwrites the view and not the other way round, a terminal may change its size at any time, and whatever ends
    the process leaves nothing behind but a view that the next line overwrites: no hidden cursor, no scroll region. (A
    live display of rich, which draws the lines here, moves the cursor up by the lines that it remembers.)

    In a notebook the view is one display, which is updated; the notebook saves its last state, which is empty.

    Thread-safe, but a notebook's display must be updated by the thread of its cell.

    The view stays on what was standard output when this object was made, wherever later text is sent to.

    Attributes:
        is_live: Whether there is anything to draw on.
    """

    def __init__(self) -> None:
        self._out = sys.stdout and unlogged(sys.stdout)
        self._is_notebook = is_notebook()
        self.is_live = self._is_notebook or is_terminal(self._out)
        self.seconds = NOTEBOOK_SECONDS if self._is_notebook else REDRAW_SECONDS
        self._lines: list[str] = []
        self._fits = (0, 0)  # columns and rows for which they were made
        self._display: Any = None  # of the notebook, once there is one
        self._lock = threading.Lock()

    def write(self, stream: TextIO | None, text: str) -> None:
        """Writes whole lines to a stream, above the view."""
        with self._lock:
            if self._lines and not self._is_notebook:
                self._put(self._out, ERASE_BELOW)
            self._put(stream, text)
            if self._lines and not self._is_notebook and _size() != self._fits:
                self._lines = []  # wrapped in a narrower terminal they would take more lines than are erased
            if not self._is_notebook:  # whose display stays where it is, and is updated by the thread of its cell alone
                self._draw()

    def show(self, view: View) -> None:
        """Draws a view in the place of the last one."""
        if not self.is_live:
            return
        columns, rows = _size()
        lines = view(columns - 1, max(1, rows - 1), getattr(self._out, "encoding", None) or "utf-8")
        with self._lock:
            self._lines, self._fits = lines, (columns, rows)
            self._draw()

    def clear(self) -> None:
        """Removes the view."""
        with self._lock:
            had, self._lines = bool(self._lines), []
            if had and self._is_notebook:
                self._draw()
            elif had:
                self._put(self._out, ERASE_BELOW)

    def _draw(self) -> None:
        if self._is_notebook:
            self._display = _displayed(self._lines, self._display)
        elif self._lines:
            up = f"\x1b[{len(self._lines) - 1}A" if len(self._lines) > 1 else ""
            self._put(self._out, f"{ERASE_RIGHT}\n".join(self._lines) + ERASE_BELOW + up + "\r")

    def _put(self, stream: TextIO | None, text: str) -> None:
        with suppress(OSError, ValueError):  # the reader is gone, or the stream is closed
            if stream:
                encoding = getattr(stream, "encoding", None) or "utf-8"
                stream.write(text.encode(encoding, "replace").decode(encoding))
                stream.flush()


def _size() -> tuple[int, int]:
    """Columns and rows of the terminal; of a notebook, what a cell has room for."""
    import shutil

    return (100, 24) if is_notebook() else shutil.get_terminal_size()


def _displayed(lines: list[str], display: Any) -> Any:
    """Shows lines in a notebook; returns the display, which a later call updates."""
    import IPython.display as notebook

    from swinft.system.view import as_html

    page = notebook.HTML(as_html(lines))  # type: ignore[no-untyped-call]
    if display is None:
        return notebook.display(page, display_id=True) if lines else None  # type: ignore[no-untyped-call]
    display.update(page)
    return display


class LiveLine:
    """The progress of this process: on its own screen, or told to its parent.

    Attributes:
        is_shown: Whether somebody shows it; if not, `show` does nothing.
        is_told: Whether the parent shows it: one row, without a last line.
    """

    def __init__(self) -> None:
        screen, self._out = Screen(), sys.stdout
        # What is printed to a file, as by a trial of a search, does not come to the parent.
        self._word = os.environ.get(LIVE, "") if is_child() and self._out is sys.__stdout__ else ""
        self._screen = screen if screen.is_live else None
        self.is_told = self._screen is None and bool(self._word)
        self.is_shown = self._screen is not None or self.is_told
        self._drawn: float | None = None  # `time.monotonic` of the last drawing; None while there is no line

    def is_due(self) -> bool:
        """Whether `show` would show something now."""
        seconds = self._screen.seconds if self._screen else TALK_SECONDS
        return self.is_shown and (self._drawn is None or time.monotonic() - self._drawn >= seconds)

    def show(self, status: Status | str | Sequence[Status], footer: str = "") -> None:
        """Replaces what is shown, now and then.

        Args:
            status: Where this process is, in one row or several; a text is a status without numbers.
            footer: A last line.
        """
        if not self.is_due():
            return
        given = Status(status) if isinstance(status, str) else status
        rows = [given] if isinstance(given, Status) else given
        self._drawn = time.monotonic()
        if self._screen:
            from swinft.system.view import drawn  # rich is imported where it draws

            self._screen.show(partial(drawn, rows, footer))
        else:
            self._tell(rows[0])

    def clear(self) -> None:
        """Removes it: call it before printing, and at the end."""
        if self._drawn is not None and self._screen:
            self._screen.clear()
        self._drawn = None

    def _tell(self, status: Status) -> None:
        with suppress(OSError, ValueError):  # the parent is gone
            self._out.write(status.message(self._word))
            self._out.flush()


class LineSplitter:
    """Splits the output of a process into lines, live lines and messages; the first two without control characters.

    Text that ends with a line feed is a line. Text that ends with a carriage return is a live line, which the next one
    will overwrite, as most progress bars write them. A message may start within a line: the output's other threads do
    not wait for it.

    Args:
        word: The word of the messages; empty if there are none.
    """

    def __init__(self, word: str = "") -> None:
        self._mark = f"{SEPARATOR}{word}" if word else ""
        self._pending = ""
        self._returned: str | None = None  # the last live line, until other text follows: a line feed makes it a line

    def split(self, text: str, is_end: bool = False) -> Iterator[tuple[str, str]]:
        """Yields pieces and what they are: `line`, `live` or `message`; text without a line end is kept.

        Args:
            text: Any part of the output.
            is_end: Whether this is the last part.
        """
        pieces = re.split(r"([\r\n])", text)
        for piece, end in zip(pieces[::2], [*pieces[1::2], ""], strict=True):
            self._pending += piece
            start = self._pending.rfind(self._mark) if self._mark else -1
            if start >= 0 and end == "\n":
                message, self._pending = self._pending[start + len(self._mark) :], self._pending[:start]
                yield message, "message"
            elif end == "\r":
                yield from self._live_line()
            elif end or len(self._pending) >= LONGEST_LINE or (is_end and self._pending):
                yield from self._line(is_feed=bool(end))

    def _live_line(self) -> Iterator[tuple[str, str]]:
        self._returned, self._pending = self._pending, ""
        yield cleaned(self._returned), "live"

    def _line(self, is_feed: bool) -> Iterator[tuple[str, str]]:
        written = self._returned if self._returned and not self._pending and is_feed else self._pending
        self._returned, self._pending = None, ""
        text = cleaned(written)
        if text or not written:  # lines of only control characters are dropped
            yield text, "line"


def cleaned(text: str) -> str:
    """A line without escape sequences and control characters."""
    return _CONTROLS.sub("", text)
