"""Children of a command: they run its code, their output is shown and kept, and they end with it."""

import codecs
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO, TextIO

from swinft.errors import InputError
from swinft.system.live import LIVE, LineSplitter, Screen
from swinft.system.orphans import CHILD

Slot = dict[str, str]  # devices of one child, as variables of its environment

# In the environment of a child: where its parent, a notebook or a program of the user's, imports from.
IMPORT_PATHS = "SWINFT_IMPORT_PATHS"
POLL_SECONDS = 0.05
INTERRUPTED_SECONDS = 2.0  # for children to end by themselves: a terminal sends Ctrl-C to them as well
TERMINATED_SECONDS = 10.0  # for children to end after SIGTERM, loader processes included; then they are killed


@dataclass(frozen=True)
class Child:
    """A `swinft` command to run in a process of its own.

    Args:
        words: After `swinft`.
        environment: Variables besides those of this process.
        log: Where its output is added besides being shown; None to show it only.
    """

    words: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    log: Path | None = None


def run_children(children: Mapping[int, Child], slots: Sequence[Slot], together: bool = False) -> dict[int, int]:
    """Runs children, as many at once as there are slots.

    Args:
        children: By a number of the caller's.
        slots: Devices of those that run at the same time.
        together: What they make is of use only together: after a failure the others are ended. Otherwise no other is
            started, and those that run are left to end.

    Returns:
        The exit code of each child that was started; 128 + signal where one ended it.

    Raises:
        KeyboardInterrupt: Ctrl-C. No child is left.
        SystemExit: SIGTERM, with the code 143. No child is left.
    """
    waiting, free, codes = list(children), list(slots), dict[int, int]()
    running: dict[int, tuple[_Process, Slot]] = {}
    screen = Screen()
    with _none_left(running):
        while running or (waiting and not any(codes.values())):
            while waiting and free and not any(codes.values()):
                number, slot = waiting.pop(0), free.pop(0)
                running[number] = (_Process(number, children[number], slot, screen), slot)
            time.sleep(POLL_SECONDS)
            for number, (process, slot) in list(running.items()):
                if (code := process.poll()) is not None:
                    codes[number] = code
                    free.append(slot)
                    del running[number]
            if together and any(codes.values()):
                _end([process for process, _ in running.values()], 0)
    return codes


def answer_of(module: str, words: Sequence[str], seconds: float) -> tuple[str, str]:
    """Runs a module in a short process of its own, and shows nothing of it.

    Args:
        module: As `python -m` takes it.
        words: Its arguments.
        seconds: How long it may take.

    Returns:
        What it printed, and how it ended in words, such as `ended with exit code 1: RuntimeError: …`.
    """
    command = [sys.executable, "-m", module, *words]
    try:
        done = subprocess.run(
            command, env=same_code(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return "", f"did not answer within {seconds:.0f} s"
    last = (done.stderr.strip().splitlines() or [""])[-1]
    return done.stdout, f"ended with exit code {done.returncode}: {last}"


def same_code() -> dict[str, str]:
    """The environment of a process that must run the code that this one runs, whatever lies in the working folder.

    `python -m swinft` would import a folder called `swinft`, such as a clone, instead of the installed package.
    """
    package = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    if Path(package).name not in ("site-packages", "dist-packages"):  # there it is found anyway, behind Python's own
        before = os.environ.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([package, before] if before else [package])
    return environment


def find_code_of_parent() -> None:
    """Imports from where the parent of this process does, and from the working folder.

    Both come last: nothing there may take the place of an installed package.
    """
    for path in [*os.environ.get(IMPORT_PATHS, "").split(os.pathsep), os.getcwd()]:
        if path and path not in sys.path:
            sys.path.append(path)


def rank() -> int:
    """This process's place among those that fit one fold together, from what their launcher put into the environment.

    Raises:
        InputError: One of the variables is no whole number.
    """
    return next((int(value) for _, value in launcher_ranks()), 0)


def launcher_ranks() -> Iterator[tuple[str, str]]:
    """Name and value of the variables that Lightning asks, in its order; asking it would take seconds of imports.

    Empty ones are removed: Lightning takes them for numbers as soon as it is imported.

    Raises:
        InputError: One of them is no whole number.
    """
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "JSM_NAMESPACE_RANK"):
        value = os.environ.get(name)
        if value is None:
            continue
        if not value.strip():
            del os.environ[name]
        elif not value.strip().isdecimal():
            raise InputError(f"the environment's {name} is '{value}', no place among processes: unset {name}.")
        else:
            yield name, value


class _Process:
    """A child that runs, and the threads that pass on what it says."""

    def __init__(self, number: int, child: Child, slot: Slot, screen: Screen) -> None:
        environment = {**same_code(), **child.environment, **slot, CHILD: str(os.getpid())}
        environment[IMPORT_PATHS] = os.pathsep.join(os.path.abspath(path) for path in sys.path)
        environment["PYTHONUNBUFFERED"] = "1"  # else a killed child takes its last lines with it
        environment[LIVE] = "1" if screen.is_live else "0"
        if child.log:
            child.log.parent.mkdir(parents=True, exist_ok=True)
            if child.log.is_symlink():  # as a run from elsewhere may hold: what it names is none of the run's files
                child.log.unlink()
        command = [sys.executable, "-m", "swinft", *child.words]
        # Standard input is never written to: its end tells the child that this process is gone.
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0)
        self._copying = [
            threading.Thread(target=_copy, args=(stream, shown, child.log, screen, (number, name)), daemon=True)
            for name, stream, shown in (
                ("out", self._process.stdout, sys.stdout),
                ("err", self._process.stderr, sys.stderr),
            )
        ]
        for thread in self._copying:
            thread.start()

    def poll(self) -> int | None:
        """The exit code, once all that the child said is shown; None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        for thread in self._copying:
            thread.join(timeout=1)  # not for ever: a process of the child's may hold the other end
        assert self._process.stdin
        self._process.stdin.close()
        return 128 - code if code < 0 else code  # a signal that ended it is a negative number

    def terminate(self) -> None:
        """Asks it to end."""
        self._process.terminate()

    def kill(self) -> None:
        """Ends it."""
        self._process.kill()
        self._process.wait()


@contextmanager
def _none_left(running: Mapping[int, tuple[_Process, Slot]]) -> Iterator[None]:
    """Ends the children when this process is told to end, by a signal or by an exception."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    is_main = threading.current_thread() is threading.main_thread()  # no other can set what a signal does
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
    """Waits for processes, then asks them to end, then kills them; a second signal kills them at once."""
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


def _copy(stream: IO[bytes], shown: TextIO | None, log: Path | None, screen: Screen, writer: tuple[int, str]) -> None:
    """Shows what a child says, line by line as it comes, and adds it to its log, without its live lines.

    Where it can no longer be shown or kept, such as on a full disk, it is read all the same: the child must not wait.

    Args:
        stream: The child's end.
        shown: This process's standard output or error.
        log: None to show it only.
        screen: Shared by all children.
        writer: Whose live line it is.
    """
    decoder, splitter = codecs.getincrementaldecoder("utf-8")("replace"), LineSplitter()
    with log.open("ab", buffering=0) if log else nullcontext() as file:
        while True:
            content = stream.read(65536)
            lines = []
            for text, is_live in splitter.split(decoder.decode(content, final=not content), is_end=not content):
                if is_live:
                    screen.show(writer, text)
                else:
                    lines.append(f"{text}\n")
            if lines:
                with suppress(OSError):
                    if file:
                        file.write("".join(lines).encode())
                screen.write(shown, "".join(lines))
            if not content:
                break
    screen.show(writer, "")
