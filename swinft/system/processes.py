"""Child processes of a command: they run the same code, their output is shown and logged, and they end with it."""

import codecs
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING, TextIO, TypeVar

from swinft.errors import InputError
from swinft.system.cluster.place import LOCAL
from swinft.system.import_paths import IMPORT_PATHS, child_environment
from swinft.system.live import LIVE, LineSplitter
from swinft.system.log import Log
from swinft.system.orphans import CHILD
from swinft.system.shown import ALONE, Following, Shown
from swinft.system.status import read_status

if TYPE_CHECKING:
    from swinft.system.cluster.remote import RemoteProcess

K = TypeVar("K", int, str, int | str)
Slot = dict[str, str]  # devices of one child, as environment variables

POLL_SECONDS = 0.05
INTERRUPTED_SECONDS = 2.0  # for children to end by themselves: a terminal sends Ctrl-C to them too
TERMINATED_SECONDS = 10.0  # for children and their loader workers to end after SIGTERM; then they are killed


@dataclass(frozen=True)
class Child:
    """A `swinft` command to run in a separate process.

    Args:
        words: Arguments after `swinft`.
        environment: Environment variables, added to those of this process.
        log: File to which its output is appended, each line with its time; None to show it only.
        name: What its progress is called, such as `fold 0`; empty for a process that is not one of several jobs.
        part: What of the job is still to be done, from 0 to 1; the time left is estimated by it until it says more.
    """

    words: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None
    name: str = ""
    part: float = 1.0


def run_children(
    children: Mapping[K, Child],
    slots: Sequence[Slot],
    together: bool = False,
    on: str = LOCAL,
    following: Following = ALONE,
) -> dict[K, int]:
    """Runs children, as many at a time as there are slots.

    On a cluster, a child that is lost with its node is started again there: its command must continue where it ended,
    as `fit --resume` does, or write its files again.

    Args:
        children: By a number or a name that the caller chooses.
        slots: Devices of the children that run at the same time.
        together: Whether a failure ends the other children. Otherwise those that run continue, and no other is started.
        on: Where they run, as `check_place` returns it; on a cluster, slots are those of `cluster_slots`.
        following: What else is shown.

    Returns:
        The exit code of each child that was started; 128 + signal if a signal ended it.

    Raises:
        KeyboardInterrupt: Ctrl-C. No child is left.
        SystemExit: SIGTERM, with the code 143. No child is left.
        InputError: There is no such cluster.
    """
    waiting, free, codes = list(children), list(slots), dict[K, int]()
    running: dict[K, tuple[_Process, Slot]] = {}
    names: dict[int | str, str] = {key: child.name for key, child in children.items()}
    parts: dict[int | str, float] = {key: child.part for key, child in children.items()}
    shown = Shown(names, parts, len(slots), following)
    with shown, _end_children_on_error(running):
        while running or (waiting and not any(codes.values())):
            while waiting and free and not any(codes.values()):
                number, slot = waiting.pop(0), free.pop(0)
                shown.overview.started(number)
                running[number] = (_Process(number, children[number], slot, shown, on), slot)
            time.sleep(POLL_SECONDS)
            for number, (process, slot) in list(running.items()):
                if (code := process.poll()) is not None:
                    codes[number] = code
                    shown.overview.ended(number, has_failed=code != 0)
                    free.append(slot)
                    del running[number]
            if together and any(codes.values()):
                _end([process for process, _ in running.values()], 0)
            shown.draw()
    return codes


def run_module(module: str, words: Sequence[str], seconds: float) -> tuple[str, str]:
    """Runs a module in a separate process without showing its output.

    Args:
        module: Its name, as for `python -m`.
        words: Its arguments.
        seconds: Timeout.

    Returns:
        Its standard output, and how it ended, such as `ended with exit code 1: RuntimeError: …`.
    """
    command = [sys.executable, "-m", module, *words]
    try:
        done = subprocess.run(
            command, env=child_environment(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return "", f"did not answer within {seconds:.0f} s"
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return done.stdout, f"ended with exit code {done.returncode}: {last}"


def rank() -> int:
    """This process's rank among those that fit one fold together, from the launcher's environment variables.

    Raises:
        InputError: One of the variables is not a whole number.
    """
    return next((int(value) for _, value in launcher_ranks()), 0)


def launcher_ranks() -> Iterator[tuple[str, str]]:
    """Names and values of the rank variables that Lightning reads, in its order; importing it would take seconds.

    Empty ones are removed: Lightning parses them as numbers when it is imported.

    Raises:
        InputError: One of them is not a whole number.
    """
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        value = os.environ.get(name)
        if value is None:
            continue
        if not value.strip():
            del os.environ[name]
        elif not value.strip().isdecimal():
            raise InputError(f"the environment's {name} is '{value}', which is not a rank: unset {name}.")
        else:
            yield name, value


class _Process:
    """A running child, and the threads that copy its output."""

    def __init__(self, number: int | str, child: Child, slot: Slot, shown: Shown, on: str) -> None:
        environment = {**child_environment(), **child.environment, **slot, CHILD: str(os.getpid())}
        environment[IMPORT_PATHS] = os.pathsep.join(os.path.abspath(path) for path in sys.path)
        environment["PYTHONUNBUFFERED"] = "1"  # otherwise the last lines of a killed child are lost
        word = environment[LIVE] = secrets.token_hex(8) if shown.is_shown else ""
        self._log = Log(child.log) if child.log else None
        if self._log:
            self._log.began(child.words)
        self._process = _start(on, ["-m", "swinft", *child.words], environment)
        self._copying = [
            threading.Thread(target=_copy, args=(source, target, self._log, shown, number, word), daemon=True)
            for source, target in ((self._process.stdout, sys.stdout), (self._process.stderr, sys.stderr))
        ]
        for thread in self._copying:
            thread.start()

    def poll(self) -> int | None:
        """The exit code, once all output of the child is shown; None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        for thread in self._copying:
            thread.join(timeout=1)  # with a timeout: a process that the child started may keep the pipe open
        assert self._process.stdin
        self._process.stdin.close()
        code = 128 - code if code < 0 else code  # a signal that ended it is a negative number
        if self._log:
            self._log.ended(code)
            self._log = None
        return code

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self._process.terminate()

    def kill(self) -> None:
        """Sends SIGKILL."""
        self._process.kill()
        self._process.wait()


def _start(on: str, words: list[str], environment: Mapping[str, str]) -> "subprocess.Popen[bytes] | RemoteProcess":
    """Starts `python WORDS…` here or on a cluster."""
    if on != LOCAL:
        from swinft.system.cluster.remote import start_remote  # most commands, and --help, need none of its imports

        return start_remote(on, words, environment)
    # Standard input is never written to: when it closes, the child knows that this process has ended.
    pipe = subprocess.PIPE
    command = [sys.executable, *words]
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)


@contextmanager
def _end_children_on_error(running: Mapping[K, tuple[_Process, Slot]]) -> Iterator[None]:
    """Ends the children when a signal or an exception ends this process."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    is_main = threading.current_thread() is threading.main_thread()  # only this thread can set signal handlers
    previous = signal.signal(signal.SIGTERM, leave) if is_main else None
    try:
        yield
    except BaseException as error:
        patience = INTERRUPTED_SECONDS if isinstance(error, KeyboardInterrupt) else 0
        _end([process for process, _ in running.values()], patience)
        raise
    finally:
        if is_main:
            signal.signal(signal.SIGTERM, previous)


def _end(processes: Sequence[_Process], patience: float) -> None:
    """Waits for processes, then sends SIGTERM, then SIGKILL; a second signal kills them at once."""
    try:
        _wait(processes, patience)
        for process in _alive(processes):
            process.terminate()
        _wait(processes, TERMINATED_SECONDS)
    finally:
        for process in _alive(processes):
            process.kill()


def _wait(processes: Sequence[_Process], seconds: float) -> None:
    until = time.monotonic() + seconds
    while _alive(processes) and time.monotonic() < until:
        time.sleep(POLL_SECONDS)


def _alive(processes: Iterable[_Process]) -> list[_Process]:
    return [process for process in processes if process.poll() is None]


def _copy(source: IO[bytes], target: TextIO | None, log: Log | None, shown: Shown, key: int | str, word: str) -> None:
    """Shows the output of a child line by line, and appends it to its log without live lines and messages.

    It is read even where it cannot be shown or logged, so that the child does not block.

    Args:
        source: The child's output.
        target: This process's standard output or error.
        log: Its log; None to show the output only.
        shown: Shared by all children.
        key: The child's.
        word: Of its messages.
    """
    decoder, splitter = codecs.getincrementaldecoder("utf-8")("replace"), LineSplitter(word)
    while True:
        content = source.read(65536)
        lines = []
        for text, kind in splitter.split(decoder.decode(content, final=not content), is_end=not content):
            if kind == "line":
                lines.append(text)
            elif kind == "message" and (status := read_status(text)):
                shown.overview.heard(key, status)
            elif kind == "live":  # of a progress bar of another library
                shown.overview.said(key, text)
        if lines:
            if log:
                log.write(lines)
            shown.screen.write(target, "".join(f"{line}\n" for line in lines))
        if not content:
            break
