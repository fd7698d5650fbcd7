"""One process per run folder and per fold: a second one refuses and says who is there."""

import errno
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from swinft.errors import InputError


@contextmanager
def hold(
    path: Path,
    patience: float = 0,
    advice: str = "Wait for it, or give another --name.",
    root: Path | None = None,
) -> Iterator[None]:
    """Holds a lock while the block runs. The system frees it when the process dies, however it dies.

    Args:
        path: The lock file; who holds it is written beside it.
        patience: Seconds to wait for one who is about to let go.
        advice: What to do where another process holds it.
        root: The run's folder, where it may not be there in the end: then nothing of the lock is left.

    Raises:
        InputError: Another process holds it; the message names pid, host and start.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = path.with_suffix(".json")
    if path.is_symlink():
        raise InputError(f"{path} is a link, and a lock is a file: delete it.")
    lock = FileLock(path)
    try:
        lock.acquire(timeout=patience)
    except Timeout:
        raise InputError(f"{path.stem} is in use by {_describe(holder)}. {advice}") from None
    try:
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        holder.unlink(missing_ok=True)  # a link, as an archive of runs may hold, would lead to another file
        holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": started}))
        yield
    finally:
        holder.unlink(missing_ok=True)
        if root and not root.exists():
            with suppress(OSError):  # Windows deletes no file that is open
                path.unlink()
        lock.release()
        with suppress(OSError):  # others hold locks in it
            path.parent.rmdir()


@contextmanager
def hold_if_writable(path: Path) -> Iterator[None]:
    """Holds a lock to read a run; where the disk refuses, as a read-only one does, goes on without it and says so.

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
    """Looks whether another process holds a lock, and lets go at once.

    Raises:
        InputError: It does.
    """
    if path.is_file():
        with hold(path):
            pass


def _describe(holder: Path) -> str:
    try:
        who = json.loads(holder.read_text())
        return f"process {who['pid']} on {who['host']}, started {who['started']}"
    except (OSError, ValueError, KeyError):  # it is being written at this very moment
        return "another process"
