"""This command's side of a cluster: children that look like local processes, started again when a node is lost.

Ray is never imported here: a process of its own, the bridge, is the one that is connected. What Ray does to a process
(threads, signal handlers, an exit when the cluster's head is gone) happens there, and a lost bridge is replaced.
"""

import atexit
import base64
import itertools
import json
import os
import signal
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from swinft.errors import InputError, RunError
from swinft.extras import check_extra
from swinft.system.cluster.bridge_process import check_listens, end_bridge, start_bridge
from swinft.system.cluster.environment import CPUS, GPUS, SHARED, shared

CONNECT_SECONDS = 120.0  # for a bridge to connect; a cluster of this machine starts in 5 to 20 s
MOST_LOSSES = 10  # of one child, after which it is not started again
RECONNECTS = 10  # attempts to reach a cluster whose head is gone, PAUSE_SECONDS apart
PAUSE_SECONDS = 6.0


@dataclass(frozen=True)
class Node:
    """A node of a cluster.

    Args:
        id: Ray's name of the node.
        name: Host name and address.
        cpus: Its CPUs, as it was started with.
        gpus: Its GPUs.
    """

    id: str
    name: str
    cpus: float
    gpus: float


class Cluster:
    """A connection to a cluster, by a bridge process that ends with this one.

    Args:
        on: `ray`, `HOST:PORT` or `ray://HOST:PORT`.

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """

    def __init__(self, on: str) -> None:
        check_extra("ray", "ray", "ray, which runs children on several machines,")
        self.on = on
        self._children = dict[int, RemoteProcess]()
        self._answers = dict[int, Any]()
        self._numbers = itertools.count()
        self._lock, self._answered = threading.RLock(), threading.Condition()
        self._is_closed = False
        self._connect()
        threading.Thread(target=self._read, name="cluster", daemon=True).start()

    def ask(self, request: Mapping[str, Any], seconds: float) -> Any:
        """The bridge's answer to a question.

        Raises:
            RunError: There is none.
        """
        number = next(self._numbers)
        self.send({**request, "number": number})
        with self._answered:
            if not self._answered.wait_for(lambda: number in self._answers, seconds):
                raise RunError(f"the cluster at {self.on} does not answer within {seconds:.0f} s.")
            return self._answers.pop(number)

    def nodes(self) -> list[Node]:
        """The nodes that are alive, with their resources."""
        return [Node(**each) for each in self.ask({"do": "nodes"}, CONNECT_SECONDS)]

    def start(self, words: Sequence[str], environment: Mapping[str, str]) -> "RemoteProcess":
        """Starts `python WORDS…` on a node that has what the environment's slot takes."""
        needs = {"gpus": float(environment.get(GPUS, 0)), "cpus": float(environment.get(CPUS, 1))}
        request = {"do": "start", "words": list(words), "environment": shared(environment), **needs}
        request |= {"folder": os.getcwd(), "prefixes": SHARED}
        child = RemoteProcess(self, next(self._numbers), request)
        with self._lock:
            self._children[child.number] = child
        self.send({**request, "key": child.number})
        return child

    def send(self, request: Mapping[str, Any]) -> None:
        """Sends a request; nothing happens if the bridge is gone, and its children with it."""
        with self._lock, suppress(OSError, ValueError):  # the reader replaces it
            assert self._bridge.stdin
            self._bridge.stdin.write(json.dumps(request).encode() + b"\n")
            self._bridge.stdin.flush()

    def close(self) -> None:
        """Ends the bridge, its children and a cluster of this machine."""
        self._is_closed = True
        end_bridge(self._bridge)

    def _connect(self) -> None:
        """Starts a bridge and waits until it is connected.

        Raises:
            InputError: There is no such cluster, or it is another version of Ray or Python.
        """
        check_listens(self.on)
        self._log = tempfile.TemporaryFile()  # noqa: SIM115  # what Ray writes; shown only where the bridge fails
        self._bridge = start_bridge(self.on, self._log)
        late = threading.Timer(CONNECT_SECONDS, self._bridge.kill)
        late.start()
        first = self._next()
        late.cancel()
        if first is None or "error" in first:
            end_bridge(self._bridge)
            problem = first["error"] if first else f"it did not answer.\n{self._last_words()}"
            raise InputError(f"--on {self.on}: {problem}")

    def _next(self) -> dict[str, Any] | None:
        assert self._bridge.stdout
        line = self._bridge.stdout.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def _last_words(self) -> str:
        self._log.seek(0)
        return self._log.read().decode(errors="replace")[-2000:].strip()

    def _read(self) -> None:
        """Passes on what the bridge says, and replaces a bridge that has ended."""
        while True:
            frame = self._next()
            if frame is not None:
                self._handle(frame)
            elif self._is_closed or not self._reconnect():
                break
        with self._lock:
            for child in list(self._children.values()):
                child.end(1, f"the cluster at {self.on} is lost")

    def _handle(self, frame: dict[str, Any]) -> None:
        if "number" in frame:
            with self._answered:
                self._answers[frame["number"]] = frame["answer"]
                self._answered.notify_all()
            return
        with self._lock:
            child = self._children.get(frame["key"])
        if child is None:
            return
        if "data" in frame:
            child.write(frame["stream"], base64.b64decode(frame["data"]))
        elif "code" in frame:
            self._forget(child)
            child.end(frame["code"])
        elif "lost" in frame:
            self._lose(child, frame["lost"])
        elif "refused" in frame:
            self._forget(child)
            child.end(2, frame["refused"])
        elif "note" in frame:
            child.say(frame["note"])

    def _lose(self, child: "RemoteProcess", reason: str) -> None:
        """Starts a lost child again, unless it was to end or was lost too often."""
        if not child.may_start_again(reason):
            self._forget(child)
            return
        self.send({**child.request, "key": child.number})

    def _reconnect(self) -> bool:
        """Replaces a bridge that has ended; its children are lost, and are started again."""
        end_bridge(self._bridge)
        for _ in range(RECONNECTS):
            if self._is_closed:
                return False
            try:
                self._connect()
            except InputError:
                time.sleep(PAUSE_SECONDS)
                continue
            with self._lock:
                children = list(self._children.values())
            for child in children:
                self._lose(child, "the connection to the cluster was lost")
            return True
        return False

    def _forget(self, child: "RemoteProcess") -> None:
        with self._lock:
            self._children.pop(child.number, None)


class RemoteProcess:
    """A child on a node, with what a `subprocess.Popen` has that a caller here needs.

    Args:
        cluster: The cluster.
        number: Its number there.
        request: What starts it.
    """

    def __init__(self, cluster: Cluster, number: int, request: dict[str, Any]) -> None:
        self.number, self.request = number, request
        self._label = label(request["words"])
        self._cluster = cluster
        self._code: int | None = None
        self._losses = 0
        self._signalled: int | None = None
        self._done = threading.Event()
        self.stdin: IO[bytes] = open(os.devnull, "wb")  # noqa: SIM115  # the caller closes it
        ends = {name: os.pipe() for name in ("out", "err")}
        self.stdout, self.stderr = (os.fdopen(ends[name][0], "rb", buffering=0) for name in ("out", "err"))
        self._writes = {name: os.fdopen(ends[name][1], "wb", buffering=0) for name in ends}

    def poll(self) -> int | None:
        """The exit code, negative if a signal ended it; None while it runs."""
        return self._code

    def terminate(self) -> None:
        """Sends SIGTERM."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Sends SIGKILL."""
        self._signal(signal.SIGKILL)

    def wait(self, timeout: float = 15.0) -> int | None:
        """Waits until it has ended."""
        self._done.wait(timeout)
        return self._code

    def write(self, stream: str, content: bytes) -> None:
        """Passes on a part of its output."""
        with suppress(OSError, ValueError):
            self._writes[stream].write(content)

    def say(self, text: str) -> None:
        """Writes a line to its standard error."""
        self.write("err", f"{self._label}: {text}\n".encode())

    def end(self, code: int, problem: str = "") -> None:
        """Ends it here, where it has ended there or cannot be reached any more."""
        if problem:
            self.say(problem)
        for stream in self._writes.values():
            stream.close()
        self._code = code
        self._done.set()

    def may_start_again(self, reason: str) -> bool:
        """Whether a lost child is to be started again; if not, it has ended."""
        if self._signalled is not None:
            self.end(-self._signalled)
            return False
        self._losses += 1
        if self._losses > MOST_LOSSES:
            self.end(1, f"lost {self._losses} times, the last time because {reason}: not started again")
            return False
        self.say(f"lost, because {reason}; it is started again ({self._losses} of at most {MOST_LOSSES} times)")
        return True

    def _signal(self, number: int) -> None:
        self._signalled = number
        self._cluster.send({"do": "signal", "key": self.number, "signal": number})


def label(words: Sequence[str]) -> str:
    """What a child is called where something is said about it: `fold 3`, `part 0/4`, or its command."""
    named = [f"{option[2:]} {value}" for option, value in itertools.pairwise(words) if option in ("--fold", "--part")]
    return (*named, *words[2:3], "child")[0]


_clusters = dict[str, Cluster]()


def connected(on: str) -> Cluster:
    """The connection to a cluster, made once per process; it ends with the process.

    Raises:
        InputError: Ray is not installed, or there is no such cluster.
    """
    if on not in _clusters:
        if not _clusters:
            atexit.register(close_all)
        _clusters[on] = Cluster(on)
    return _clusters[on]


def close_all() -> None:
    """Ends every connection, and the cluster that `--on ray` has started."""
    while _clusters:
        _clusters.popitem()[1].close()


def start_remote(on: str, words: Sequence[str], environment: Mapping[str, str]) -> RemoteProcess:
    """Starts `python WORDS…` on a cluster.

    Raises:
        InputError: There is no such cluster.
    """
    return connected(on).start(words, environment)
