"""The log of a job: the lines that its processes print, each with its time, between a beginning and an end."""

import os
import re
import shlex
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from swinft.errors import InputError, RunError
from swinft.system.live import LineSplitter, unlogged

STARTED, ENDED = "--- started: swinft ", "--- ended with exit code "
_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ")


class Log:
    """The log of a job. Thread-safe, and several processes may append to it.

    What cannot be written, for example on a full disk, is left out.

    Args:
        path: The file; created, or appended to.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():  # a run from elsewhere may hold one that points outside the run
            path.unlink()

    def write(self, lines: Sequence[str]) -> None:
        """Appends lines."""
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        content = "".join(f"{now}  {line}\n" for line in lines)
        with suppress(OSError), self._lock, self.path.open("ab", buffering=0) as file:
            file.write(content.encode(errors="replace"))

    def began(self, words: Sequence[str]) -> None:
        """Appends that a process was started, with the arguments after `swinft`."""
        self.write([f"{STARTED}{shlex.join(words)}"])

    def ended(self, code: int) -> None:
        """Appends that the process has ended."""
        self.write([f"{ENDED}{code}"])


@contextmanager
def logged(path: Path, words: Sequence[str]) -> Iterator[None]:
    """Appends what this process prints inside to a log, as its parent would, and how the block ended.

    An error is appended as the command line will print it, with the traceback of one that is no user's. SIGTERM ends
    the block with exit code 143. Live views, and what libraries of C print, are not in the log.

    Args:
        path: The log.
        words: The command that this process runs: arguments after `swinft`.
    """
    log = Log(path)
    log.began(words)
    streams = [_Teed(stream, log) for stream in (sys.stdout, sys.stderr)]
    own, code = os.getpid(), 0
    try:
        with redirect_stdout(streams[0]), redirect_stderr(streams[1]), _exit_on_sigterm():
            yield
    except BaseException as error:
        code, said = _outcome(error)
        streams[1].log_only(said)
        raise
    finally:
        if os.getpid() == own:
            for stream in streams:
                stream.end()
            log.ended(code)


def last_lines(path: Path) -> list[str]:
    """What the last process of a log has printed, without times; empty if there is no log."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    lines = [_TIME.sub("", line, count=1) for line in lines]
    starts = [number for number, line in enumerate(lines) if line.startswith(STARTED)]
    return [line for line in lines[starts[-1] + 1 if starts else 0 :] if not line.startswith(ENDED)]


class _Teed:
    """A stream whose whole lines are appended to a log, too.

    Args:
        stream: Where text is written to as it is; None where a process has no such stream.
        log: The log.
    """

    def __init__(self, stream: TextIO | None, log: Log) -> None:
        self.unlogged = stream and unlogged(stream)
        self._stream, self._log, self._lock, self._splitter = stream, log, threading.Lock(), LineSplitter()
        self._process = os.getpid()

    def write(self, text: str) -> int:
        """Writes text."""
        if self._stream:
            self._stream.write(text)
        self.log_only(text)
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        """Writes several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Flushes the stream; the log needs none."""
        if self._stream:
            self._stream.flush()

    def log_only(self, text: str, is_end: bool = False) -> None:
        """Appends text to the log; what is no whole line yet waits."""
        if os.getpid() != self._process:  # a loader process; when it was forked, another thread may have held the locks
            self._process, self._lock, self._splitter = os.getpid(), threading.Lock(), LineSplitter()
            self._log = Log(self._log.path)
        with self._lock:
            lines = [line for line, kind in self._splitter.split(text, is_end) if kind == "line"]
        if lines:
            self._log.write(lines)

    def end(self) -> None:
        """Appends what has no line end."""
        self.log_only("", is_end=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _outcome(error: BaseException) -> tuple[int, str]:
    """The exit code of a command that ends with an error, and what is printed of it."""
    if isinstance(error, SystemExit):
        return (error.code if isinstance(error.code, int) else int(error.code is not None)), ""
    if isinstance(error, KeyboardInterrupt):
        return 130, "swinft: interrupted\n"
    if isinstance(error, InputError | RunError):
        return (error.code if isinstance(error, RunError) else 2), f"swinft fit: {error}\n"
    return 1, "".join(traceback.format_exception(error))


@contextmanager
def _exit_on_sigterm() -> Iterator[None]:
    """Ends the block by SystemExit at SIGTERM, which would end the process without a word in its log."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    is_default = signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    if not is_default or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
