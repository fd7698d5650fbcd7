"""What runs on a node: an actor that starts one child, and ends it with itself.

Ray gets this module by value, so that a node without swinft can say so. It uses the standard library alone.
"""

import hashlib
import json
import os
import queue
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

SILENCE_SECONDS = 30.0  # without a question from the command: its machine is lost, and the child ends
CHUNK = 65536  # bytes
CHUNKS = 64  # that wait to be fetched; then the child waits, as at a full pipe
LOOK_SECONDS = 150.0  # for all nodes to say what a child would find there
COMPLETE = ".swinft-complete"  # in a copy of the data, once every file of it was compared
DYING_SECONDS = 1.0  # after a kill: where the node is being ended, this process ends too, and the child was lost


class Runner:
    """One child on this node. Its standard input is a pipe of this process, at whose end it ends, too."""

    def __init__(self) -> None:
        self._output: queue.Queue[tuple[str, bytes]] = queue.Queue(CHUNKS)
        self._asked = time.monotonic()
        self._process: Any = None
        self._lock: Any = None
        self._copying: list[threading.Thread] = []

    def start(self, words: list[str], environment: dict[str, str], prefixes: list[str], folder: str) -> str:
        """Starts `python WORDS…` in a folder; returns this node's name, or raises OSError."""
        if self._lock:
            self._lock.close()
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

    def missing(self, to: str, files: dict[str, tuple[int, str]]) -> list[str]:
        """Files that the copy of the data lacks here; its lock is held until the child is started.

        Another child that needs the same copy on this node waits for it.

        Raises:
            OSError: The node has too little space on its disk.
        """
        import fcntl  # not on Windows, where no node is

        done = os.path.join(to, COMPLETE)
        os.makedirs(to, exist_ok=True)
        self._lock = open(f"{to}.lock", "w")  # noqa: SIM115  # closed by `start`, or by the end of this process
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        if os.path.exists(done):
            return []
        self._files, self._to = files, to
        lacking = [
            name for name, (size, digest) in files.items() if not _is_whole(os.path.join(to, name), size, digest)
        ]
        needed, free = sum(files[name][0] for name in lacking), shutil.disk_usage(to).free
        if needed > free:
            raise OSError(f"{to} has {free / 1e9:.1f} GB free, the copy of the data needs {needed / 1e9:.1f} GB")
        return lacking

    def put(self, parts: list[tuple[str, int, bytes]]) -> None:
        """Writes parts of files."""
        for name, offset, content in parts:
            path = os.path.join(self._to, name)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "r+b" if offset else "wb") as file:
                file.seek(offset)
                file.write(content)

    def complete(self, lacking: list[str]) -> None:
        """Compares what was copied with the list.

        Raises:
            OSError: A file is not as the command listed it.
        """
        for name in lacking:
            size, digest = self._files[name]
            if not _is_whole(os.path.join(self._to, name), size, digest):
                raise OSError(f"{name} has changed since the command listed it, or was damaged on its way to this node")
        os.sync()
        with open(os.path.join(self._to, COMPLETE), "w"):
            pass

    def read(self, seconds: float) -> tuple[list[tuple[str, bytes]], int | None]:
        """What the child has written since, after at most some seconds; and its exit code, once all of it is read."""
        self._asked = time.monotonic()
        found = []
        with suppress(queue.Empty):
            found.append(self._output.get(timeout=seconds))
            while len(found) < CHUNKS:
                found.append(self._output.get_nowait())
        self._asked = time.monotonic()
        if not any(thread.is_alive() for thread in self._copying):
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=seconds)
        code, found = self._process.poll(), [each for each in found if each[1]]
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
        self._output.put((name, b""))  # wakes `read`

    def _end_in_silence(self) -> None:
        while time.monotonic() - self._asked < SILENCE_SECONDS:
            time.sleep(min(1.0, SILENCE_SECONDS))
            if self._process.poll() is not None:
                return
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
    found["swinft"] = f"{swinft.__version__} with code {code.hexdigest()[:12]}"
except ImportError as error:
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


def _is_whole(path: str, size: int, digest: str) -> bool:
    return os.path.isfile(path) and os.path.getsize(path) == size and _content(path) == digest


def _content(path: str) -> str:
    try:
        if os.path.isdir(path):
            return "folder"
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"cannot be read: {error.strerror}"
