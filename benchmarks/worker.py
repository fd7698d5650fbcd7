"""A worker process for measurements: one that hangs is killed, and a failure does not affect the main process."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import Any

START_SECONDS = 120.0  # first import of torch from a cold disk, and the GPU's context


def _serve(pipe: Connection) -> None:
    """Runs the received functions, one after another."""
    os.setsid()  # compilers and loader processes are killed with it
    Thread(target=_end_with_parent, daemon=True).start()
    pipe.send(None)
    while True:
        work = pipe.recv()
        try:
            answer = work()
        except Exception as error:  # any error is the result
            lines = str(error).splitlines() or [""]
            answer = {"error": f"{type(error).__name__}: {lines[0]}"}
        pipe.send(answer)


def _end_with_parent() -> None:
    """Kills this process and its children if the parent process ends."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.killpg(os.getpid(), signal.SIGKILL)


class Worker:
    """Runs functions in a worker process, which is replaced after a failure or timeout."""

    def __init__(self) -> None:
        self._process: Any = None
        self._pipe: Any = None

    def ask(self, work: Callable[[], dict[str, Any]], seconds: float) -> dict[str, Any]:
        """The result of a function.

        Args:
            work: A function of an importable module; its arguments and result are pickled.
            seconds: Timeout.

        Returns:
            The result; `error` with a message if it failed.

        Raises:
            TimeoutError: It took longer, and was killed with its children.
        """
        if self._process is None:
            self._start()
        try:
            self._pipe.send(work)
            if not self._pipe.poll(seconds):
                raise TimeoutError(f"ended after {seconds:.0f} s")
            answer: dict[str, Any] = self._pipe.recv()
        except (EOFError, ConnectionError):
            self._process.join(5)
            answer = {"error": f"the process died with exit code {self._process.exitcode}"}
        except TimeoutError:
            self.end()
            raise
        if "error" in answer:  # a CUDA error leaves the context unusable
            self.end()
        return answer

    def end(self) -> None:
        """Kills the process and its children."""
        if self._process is None:
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            self._process.kill()
        self._process.join()
        self._process = self._pipe = None

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,))
        self._process.start()
        theirs.close()
        if not self._pipe.poll(START_SECONDS):
            self.end()
            raise TimeoutError("a process did not start")
        self._pipe.recv()
