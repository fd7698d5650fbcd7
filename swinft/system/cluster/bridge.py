"""The process that is connected to a cluster: `python -m swinft.system.cluster.bridge ADDRESS`.

It reads requests from its standard input and writes what happens to its standard output, a line of JSON each. When its
input ends, it ends its children, and a cluster that it has started.
"""

import base64
import json
import os
import queue
import re
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from swinft.errors import number_of
from swinft.system.cluster import runner
from swinft.system.cluster.bridge_process import end_session
from swinft.system.cluster.copies import batches, read_listing
from swinft.system.cluster.place import OWN
from swinft.system.cluster.watch import end_without_cluster

READ_SECONDS = 5.0  # that a node waits for output before it answers without any
WAIT_SECONDS = 0.1
HANG_SECONDS = 15.0  # for Ray to end, before this process is ended without it
PATIENCE = 30.0  # until a child that no node has room for is said to wait
STORE_BYTES = 80 * 1024**2  # the least that Ray accepts; nothing is stored
PREFIX = "swinft-ray-"
OUT_OF_MEMORY = re.compile(r"low on memory|out of memory|OutOfMemory|\bOOM\b", re.IGNORECASE)  # in Ray's reasons


class Bridge:
    """The children of one command.

    Args:
        ray: The package.
        say: Writes a line.
    """

    def __init__(self, ray: Any, say: Callable[[dict[str, Any]], None]) -> None:
        self._ray, self._say = ray, say
        self._children = dict[int, Any]()  # actors, by key
        self._starting = dict[Any, tuple[int, float]]()  # key and time, by reference
        self._reading = dict[Any, int]()  # key, by reference
        self._copying = dict[Any, _Copying]()
        ray.cloudpickle.register_pickle_by_value(runner)
        self._actor = ray.remote(runner.Runner)

    def run(self, requests: "queue.Queue[dict[str, Any] | None]") -> None:
        """Answers requests and passes on output, until there are no more requests."""
        while True:
            with suppress(queue.Empty):
                while True:
                    idle = not (self._starting or self._reading or self._copying)
                    request = requests.get(timeout=WAIT_SECONDS) if idle else requests.get_nowait()
                    if request is None:
                        return
                    self._handle(request)
            if waiting := [*self._starting, *self._reading, *self._copying]:
                for ref in self._ray.wait(waiting, timeout=WAIT_SECONDS)[0]:
                    self._arrived(ref)
                self._mention_waiting()

    def end_all(self) -> None:
        """Ends every child."""
        for actor in self._children.values():
            with suppress(Exception):  # it or the cluster is gone
                self._ray.kill(actor)

    def _handle(self, request: dict[str, Any]) -> None:
        if request["do"] == "start" and request["key"] not in self._children:
            self._start(request)
        elif request["do"] == "signal" and (actor := self._children.get(request["key"])):
            actor.signal.remote(request["signal"])
            if request["signal"] == signal.SIGKILL or request["key"] not in self._reading.values():
                self._ray.kill(actor)
        elif request["do"] == "nodes":
            self._say({"number": request["number"], "answer": self._nodes()})
        elif request["do"] == "look":
            self._say({"number": request["number"], "answer": self._look(request)})

    def _start(self, request: dict[str, Any]) -> None:
        needs = {"num_gpus": request["gpus"], "num_cpus": request["cpus"], "scheduling_strategy": "SPREAD"}
        actor = self._actor.options(max_concurrency=4, max_restarts=0, **needs).remote()
        self._children[request["key"]] = actor
        listing = read_listing(request["environment"])
        if listing is None:
            self._start_on(actor, request)
        else:
            copying = _Copying(request, Path(listing["root"]))
            self._copying[actor.missing.remote(listing["to"], listing["files"])] = copying

    def _start_on(self, actor: Any, request: dict[str, Any]) -> None:
        given = [request[name] for name in ("words", "environment", "prefixes", "folder")]
        self._starting[actor.start.remote(*given)] = request["key"], time.monotonic()

    def _arrived(self, ref: Any) -> None:
        """Handles an answer of a node, or its loss."""
        copying = self._copying.pop(ref, None)
        is_start = ref in self._starting
        key = copying.request["key"] if copying else self._starting.pop(ref)[0] if is_start else self._reading.pop(ref)
        actor = self._children[key]
        try:
            answer = self._ray.get(ref)
            if copying:
                self._copy(actor, copying, answer)
                return
        except (self._ray.exceptions.RayTaskError, OSError) as error:  # raised by our code there, or by the data here
            self._drop(key)
            self._say({"key": key, "refused": f"it cannot be started: {getattr(error, 'cause', error)}"})
            return
        except self._ray.exceptions.RayError as error:
            self._drop(key)
            if OUT_OF_MEMORY.search(str(error)):  # as if the system had killed it: it would need as much again
                self._say({"key": key, "note": f"Ray killed it, because its node lacks memory: {reason(error)}"})
                self._say({"key": key, "code": -signal.SIGKILL})
            else:
                self._say({"key": key, "lost": reason(error)})
            return
        if is_start:
            self._say({"key": key, "note": f"on {answer}"})
        if is_start or not self._is_end(key, *answer):
            self._reading[actor.read.remote(READ_SECONDS)] = key

    def _is_end(self, key: int, output: list[tuple[str, bytes]], code: int | None) -> bool:
        """Passes on what a child has written; whether it has ended."""
        for stream, content in output:
            self._say({"key": key, "stream": stream, "data": base64.b64encode(content).decode()})
        if code is None:
            return False
        self._drop(key)
        lost = code == -signal.SIGTERM  # nobody here has sent it, or it would be known
        self._say({"key": key, "lost": "its node ended it (SIGTERM)"} if lost else {"key": key, "code": code})
        return True

    def _copy(self, actor: Any, copying: "_Copying", answer: Any) -> None:
        """Sends the next part of the data to a node; starts the child once the node has all of it."""
        if copying.parts is None:
            copying.lacking = answer
            copying.parts = batches(copying.root, answer)
            if answer:
                note = f"copying {number_of(len(answer), 'file')} of the data to its node"
                self._say({"key": copying.request["key"], "note": note})
        if (part := next(copying.parts, None)) is not None:
            self._copying[actor.put.remote(part)] = copying
        elif copying.lacking:
            self._copying[actor.complete.remote(copying.lacking)] = copying
            copying.lacking = []
        else:
            self._start_on(actor, copying.request)

    def _drop(self, key: int) -> None:
        with suppress(Exception):  # it is gone
            self._ray.kill(self._children.pop(key))

    def _mention_waiting(self) -> None:
        for ref, (key, since) in self._starting.items():
            if 0 < since < time.monotonic() - PATIENCE:
                self._starting[ref] = key, 0.0
                self._say({"key": key, "note": "waiting for a node with free CPUs and GPUs"})

    def _nodes(self) -> list[dict[str, Any]]:
        found = []
        for each in self._ray.nodes():
            if each["Alive"]:
                name = each["NodeManagerHostname"], each["NodeManagerAddress"]
                resources = {kind: each["Resources"].get(kind.upper()[:3], 0.0) for kind in ("cpus", "gpus")}
                found.append({"id": each["NodeID"], "name": f"{name[0]} ({name[1]})", **resources})
        return found

    def _look(self, request: dict[str, Any]) -> list[dict[str, Any]]:
        """What a child would find on each node that can have one."""
        given = [request[name] for name in ("environment", "prefixes", "folder", "paths")]
        look = self._ray.remote(runner.look)
        pinned = self._ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy
        nodes = [node for node in self._nodes() if node["cpus"] or node["gpus"]]
        refs = [
            look.options(num_cpus=0, scheduling_strategy=pinned(node["id"], soft=False)).remote(*given)
            for node in nodes
        ]
        answers = []
        for node, ref in zip(nodes, refs, strict=True):
            try:
                answers.append({"node": node["name"], **self._ray.get(ref, timeout=runner.LOOK_SECONDS)})
            except self._ray.exceptions.RayError as error:
                answers.append({"node": node["name"], "problem": reason(error)})
        return answers


@dataclass
class _Copying:
    """A child whose node is getting the data.

    Args:
        request: What starts it.
        root: The data's folder here.
        lacking: Files that the node lacked.
        parts: Their content; None before the node has said what it lacks.
    """

    request: dict[str, Any]
    root: Path
    lacking: list[str] = field(default_factory=list)
    parts: Iterator[list[tuple[str, int, bytes]]] | None = None


def reason(error: Exception) -> str:
    """Ray's error in one sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if "died" in line or "dead" in line or "OOM" in line or "memory" in line]
    first = (causes or lines or ["no reason is known"])[0].split(". ")[0]
    return f"{type(error).__name__}: {first[:160].rstrip('.')}"


def connect(ray: Any, address: str) -> None:
    """Connects to a cluster, or starts one on this machine, which listens to 127.0.0.1 alone."""
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == OWN:
        ray.init(
            address="local",
            include_dashboard=False,
            object_store_memory=STORE_BYTES,
            _temp_dir=own_folder(),
            **quiet,
        )
    else:
        ray.init(address=address, **quiet)
    end_listener(ray)


def end_listener(ray: Any) -> None:
    """Ends Ray's thread that prints a cluster's errors: this process shows them nowhere.

    Where the head is gone, Ray's question for the next error returns at once, and this thread would ask without a pause
    until this process ends. `ray.shutdown()` ends it in the same way.
    """
    with suppress(AttributeError):  # by Ray Client there is no such thread
        worker = ray._private.worker.global_worker
        worker.threads_stopped.set()
        worker.gcs_error_subscriber.close()


def own_folder() -> str:
    """A folder for the files of a cluster on this machine; those of clusters that were killed are deleted."""
    parent = Path(tempfile.gettempdir())
    parent = parent if len(str(parent)) < 20 else Path("/tmp")  # a socket's path in it has 107 characters at most
    for left in parent.glob(f"{PREFIX}*"):
        pid = left.name.removeprefix(PREFIX).partition("-")[0]
        with suppress(PermissionError, ValueError):  # another user's, or another program's
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                shutil.rmtree(left, ignore_errors=True)
    return tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=parent)


def explained(error: Exception, address: str) -> str:
    """Why there is no connection, and what to do."""
    text = str(error)
    if re.search(r"versions? (mismatch|differ)", text, re.IGNORECASE):
        return f"this machine and the cluster have different versions: {' '.join(text.split())[:600]}"
    if "Ray Client requires" in text:
        return "ray:// needs Ray Client: pip install 'ray[client]'"
    if "AuthenticationError" in text or "Auth" in type(error).__name__:
        return "the cluster wants a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN as on its nodes"
    if address == OWN:
        return f"Ray does not start on this machine: {' '.join(text.split())[-600:]}"
    joins = "" if address.startswith("ray://") else " This machine must be a node of it: `ray start --address`."
    return f"there is no cluster: {type(error).__name__}: {text.strip().splitlines()[0][:300]}.{joins}"


def main(address: str) -> None:
    """Connects, and answers requests until there are none."""
    said = os.fdopen(os.dup(1), "w", buffering=1, encoding="utf-8")
    os.dup2(2, 1)  # what Ray prints must not be between our lines
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def say(frame: dict[str, Any]) -> None:
        with suppress(OSError, ValueError):  # nobody listens: the input has ended, too
            said.write(json.dumps(frame) + "\n")
            said.flush()

    threading.Thread(target=_read_requests, args=(requests,), daemon=True).start()
    if address == OWN:
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # Ray's word for: listen to 127.0.0.1 alone
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    import ray

    try:
        connect(ray, address)
    except Exception as error:
        say({"error": explained(error, address)})
        os._exit(2)
    bridge = Bridge(ray, say)
    say({"ready": True})
    threading.Thread(target=end_without_cluster, args=(ray, _exit), daemon=True).start()
    try:
        bridge.run(requests)
    finally:
        _end(ray, bridge, address)


def _read_requests(requests: "queue.Queue[dict[str, Any] | None]") -> None:
    for line in sys.stdin:
        requests.put(json.loads(line))
    requests.put(None)
    time.sleep(HANG_SECONDS)
    _exit()


def _end(ray: Any, bridge: Bridge, address: str) -> None:
    bridge.end_all()
    if address == OWN:
        folder = Path(ray._private.worker._global_node.get_temp_dir_path())
        if not _end_own_session():
            ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
    else:
        ray.shutdown()
    _exit()


def _exit() -> None:
    _end_own_session()
    os._exit(0)


def _end_own_session() -> bool:
    """Ends what this process has started; False where it has no session of its own, or the system does not list it."""
    if os.getsid(0) != os.getpid() or not Path("/proc/self/stat").exists():
        return False
    end_session(os.getpid())
    return True


if __name__ == "__main__":
    main(sys.argv[1])
