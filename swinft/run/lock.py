"""File locks: one process per run folder and per fold; a second one fails and names the first.

The operating system releases a lock when its process ends. Some file systems that machines share do not show a lock to
other machines: there, the holder's sign of life counts, a file that it touches every few seconds.
"""

import errno
import json
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from swinft.errors import InputError

BEAT_SECONDS = 4.0  # between two signs of life
LEASE_SECONDS = 20.0  # without a sign of life: the holder's machine is gone, or its process is


@contextmanager
def hold(
    path: Path,
    patience: float = 0,
    advice: str = "Wait for it, or give another --name.",
    root: Path | None = None,
) -> Iterator[None]:
    """Holds a lock while the block runs. The operating system releases it when the process ends in any way.

    Args:
        path: The lock file; a JSON beside it describes the holder.
        patience: Seconds to wait for a process that is ending.
        advice: What to do if another process holds it.
        root: The run's folder; if it does not exist at the end, the lock file is deleted.

    Raises:
        InputError: Another process holds it; the message names pid, host and start.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = path.with_suffix(".json")
    if path.is_symlink():
        raise InputError(f"{path} is a symbolic link, and a lock must be a file: delete it.")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise InputError(f"{path.stem} is in use by {_describe(holder)}. {advice}") from None
    try:
        _wait_for_other_machine(path, holder, patience, advice)
        with _signs_of_life(holder):
            yield
    finally:
        if root and not root.exists():
            with suppress(OSError):  # Windows cannot delete an open file
                path.unlink()
        lock.release()
        with suppress(OSError):  # it contains other locks
            path.parent.rmdir()


@contextmanager
def hold_if_writable(path: Path) -> Iterator[None]:
    """Holds a lock to read a run; on a read-only disk, continues without it and prints so.

    Raises:
        InputError: Another process holds it.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(hold(path, advice="Wait for it."))
        except OSError as error:
            if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
            print(f"{path.stem} is read without its lock: {error.strerror}", file=sys.stderr)
        yield


def refuse_if_held(path: Path) -> None:
    """Checks that no other process holds a lock, and releases it at once.

    Raises:
        InputError: Another process holds it.
    """
    if path.is_file():
        with hold(path):
            pass


def _wait_for_other_machine(path: Path, holder: Path, patience: float, advice: str) -> None:
    """Waits until a holder on another machine has given no sign of life for `LEASE_SECONDS`, or has ended.

    No clocks are compared: both times are the file server's, and the holder's file is watched.

    Raises:
        InputError: It gives signs of life, and not only within the patience.
    """
    beat = _beat(holder)
    if beat is None or beat[0].get("host", socket.gethostname()) == socket.gethostname():
        return
    os.utime(path)
    age = path.stat().st_mtime - beat[1] / 1e9
    silent_at, patient_until = time.monotonic() + LEASE_SECONDS - max(0.0, age), time.monotonic() + patience
    if time.monotonic() < silent_at:
        print(f"{path.stem}: waiting for signs of life of {_describe(holder)}", file=sys.stderr, flush=True)
    while time.monotonic() < silent_at:
        time.sleep(min(1.0, BEAT_SECONDS / 2))
        now = _beat(holder)
        if now is None:
            return
        if now != beat:
            if time.monotonic() >= patient_until:
                raise InputError(f"{path.stem} is in use by {_describe(holder)}. {advice}")
            beat, silent_at = now, time.monotonic() + LEASE_SECONDS


@contextmanager
def _signs_of_life(holder: Path) -> Iterator[None]:
    """Writes who holds a lock, and touches that file while the block runs.

    A process whose lock another machine holds now, because it was suspended for so long or because both have started at
    the same time, ends at its next sign of life, and leaves the file to the other one.
    """
    who = {"pid": os.getpid(), "host": socket.gethostname(), "started": time.strftime("%Y-%m-%d %H:%M:%S")}
    own, ended = json.dumps({**who, "token": secrets.token_hex(8)}), threading.Event()
    holder.unlink(missing_ok=True)  # an archive of runs may contain a symlink to another file
    holder.write_text(own)

    def is_taken() -> bool:
        return holder.read_text() not in (own, "")

    def touch() -> None:
        while not ended.wait(BEAT_SECONDS):
            with suppress(OSError):  # it was deleted, or its disk does not answer
                if is_taken():
                    print(f"{holder.stem} was taken over by {_describe(holder)}: this process ends", file=sys.stderr)
                    os._exit(1)
                os.utime(holder)

    thread = threading.Thread(target=touch, name="signs-of-life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        with suppress(FileNotFoundError):
            if not is_taken():
                holder.unlink()


def _beat(holder: Path) -> tuple[dict[str, object], int] | None:
    """The holder and its last sign of life; None if there is none. Opened, since attributes alone may be cached."""
    try:
        with holder.open() as file:
            return dict(json.load(file)), os.fstat(file.fileno()).st_mtime_ns
    except (OSError, ValueError, TypeError):
        return None


def _describe(holder: Path) -> str:
    try:
        who = json.loads(holder.read_text())
        return f"process {who['pid']} on {who['host']}, started {who['started']}"
    except (OSError, ValueError, KeyError):  # it is being written
        return "another process"
