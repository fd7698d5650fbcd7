"""What runs on a node: an actor that starts one child, and ends it with itself.

Ray gets this module by value, so that a node without swinft can say so. It uses the standard library alone.
"""

import hashlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any

SILENCE_SECONDS = 30.0  # without a question from the command: its machine is lost, and the child ends
CHUNK = 65536  # bytes
CHUNKS = 64  # that wait to be fetched; then the child waits, as at a full pipe
LOOK_SECONDS = 150.0  # for all nodes to say what a child would find there
DYING_SECONDS = 1.0  # after a kill: where the node is being ended, this process ends too, and the child was lost


class Runner:
    """One child on this node. Its standard input is a pipe of this process, at whose end it ends, too."""

    def __init__(self) -> None:
        self._output: queue.Queue[tuple[str, bytes]] = queue.Queue(CHUNKS)
        self._asked = time.monotonic()
        self._process: Any = None
        self._copying: list[threading.Thread] = []

    def start(self, words: list[str], environment: dict[str, str], prefixes: list[str], folder: str) -> str:
        """Starts `python WORDS…` in a folder; returns this node's name, or raises OSError."""
        own = {name: value for name, value in os.environ.items() if not name.startswith((*prefixes, "RAY_"))}
        own.pop("PYTHONBREAKPOINT", None)  # Ray's
        marked = {**own, **environment, "SWINFT_CHILD": str(os.getpid()), "SWINFT_ON_CLUSTER": "1"}
        pipe = subprocess.PIPE
        command = [sys.executable, *words]
        self._process = subprocess.Popen(
            command, env=marked, cwd=folder, stdin=pipe, stdout=pipe, stderr=pipe, bufsize=0
        )
        for name, stream in (("out", self._process.stdout), ("err", self._process.stderr)):
            self._copying.append(threading.Thread(target=self._copy, args=(name, stream), daemon=True))
        for thread in (*self._copying, threading.Thread(target=self._end_in_silence, daemon=True)):
            thread.start()
        return f"{socket.gethostname()} (process {self._process.pid})"

    def read(self, seconds: float) -> tuple[list[tuple[str, bytes]], int | None]:
        """What the child has written since, after at most some seconds; and its exit code, once all of it is read."""
        self._asked = time.monotonic()
        found = []
        try:
            found.append(self._output.get(timeout=seconds))
            while len(found) < CHUNKS:
                found.append(self._output.get_nowait())
        except queue.Empty:
            pass
        self._asked = time.monotonic()
        code = self._process.poll()
        if found or code is None:
            return found, None
        for thread in self._copying:  # with a timeout: a process that the child started may keep the pipe open
            thread.join(timeout=1)
        if not self._output.empty():
            return [], None
        if code == -signal.SIGKILL:
            time.sleep(DYING_SECONDS)
        return [], code

    def signal(self, number: int) -> None:
        """Sends a signal to the child."""
        if self._process is not None:
            self._process.send_signal(number)

    def _copy(self, name: str, stream: Any) -> None:
        while content := stream.read(CHUNK):
            self._output.put((name, content))

    def _end_in_silence(self) -> None:
        while time.monotonic() - self._asked < SILENCE_SECONDS:
            time.sleep(1)
        self._process.kill()
        os._exit(1)


PROBE = """
import hashlib, json, pathlib, platform
from importlib.metadata import PackageNotFoundError, version
found = {"python": platform.python_version()}
for name in ("torch", "timm", "lightning", "numpy", "albumentations", "opencv-python-headless", "pillow"):
    try:
        found[name] = version(name).partition("+")[0]
    except PackageNotFoundError:
        found[name] = "not installed"
try:
    import swinft
    root = pathlib.Path(swinft.__file__).parent
    files = sorted(root.rglob("*.py"))
    code = hashlib.sha256(b"".join(str(p.relative_to(root)).encode() + p.read_bytes() for p in files))
    found["swinft"] = f"{version('swinft')} with code {code.hexdigest()[:12]}"
except (ImportError, PackageNotFoundError) as error:
    found["swinft"] = f"not importable: {error}"
print(json.dumps(found))
"""


def look(environment: dict[str, str], prefixes: list[str], folder: str, paths: list[str]) -> dict[str, Any]:
    """What a child would find on this node.

    Returns:
        `host`; `versions` of packages; `files`: SHA-256 of a file, `folder`, or why it cannot be read, by path; and
        `problem` if there is no working folder.
    """
    host = socket.gethostname()
    if not os.path.isdir(folder):
        return {"host": host, "problem": f"there is no folder {folder}, the working folder of the command"}
    own = {name: value for name, value in os.environ.items() if not name.startswith((*prefixes, "RAY_"))}
    command = [sys.executable, "-c", PROBE]
    done = subprocess.run(command, env={**own, **environment}, cwd=folder, capture_output=True, text=True, timeout=120)
    if done.returncode:
        return {"host": host, "problem": f"python fails there: {done.stderr.strip().splitlines()[-1:]}"}
    return {"host": host, "versions": json.loads(done.stdout), "files": {path: _content(path) for path in paths}}


def _content(path: str) -> str:
    try:
        if os.path.isdir(path):
            return "folder"
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
