"""A process that measures: what hangs is killed, and what fails takes nobody's memory or context along."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from threading import Thread
from typing import Any

START_SECONDS = 120.0  # torch's first import from a cold disk, and the GPU's context


def _serve(pipe: Connection) -> None:
    """Does what comes, one after another."""
    os.setsid()  # compilers and loader processes are killed with it
    Thread(target=_end_with_parent, daemon=True).start()
    pipe.send(None)
    while True:
        work = pipe.recv()
        try:
            answer = work()
        except Exception as error:  # whatever it is, it is the finding
            lines = str(error).splitlines() or [""]
            answer = {"error": f"{type(error).__name__}: {lines[0]}"}
        pipe.send(answer)


def _end_with_parent() -> None:
    """Kills this process and all that it has started when the one that it measures for is gone, however it went."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.killpg(os.getpid(), signal.SIGKILL)


class Worker:
    """Does one piece of work after another in a process, which is replaced after one that failed or was killed."""

    def __init__(self) -> None:
        self._process: Any = None
        self._pipe: Any = None

    def ask(self, work: Callable[[], dict[str, Any]], seconds: float) -> dict[str, Any]:
        """What a function answers.

        Args:
            work: Of a module that can be imported; its arguments and its answer are sent.
            seconds: It may take.

        Returns:
            The answer; `error` in words where it failed.

        Raises:
            TimeoutError: It took longer, and was killed with all that it had started.
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
        """Kills the process and all that it has started."""
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
