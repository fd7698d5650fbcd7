"""File locks: one process per run folder and per fold; a second one fails and names the first."""

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
        started = time.strftime("%Y-%m-%d %H:%M:%S")
        holder.unlink(missing_ok=True)  # an archive of runs may contain a symlink to another file
        holder.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "started": started}))
        yield
    finally:
        holder.unlink(missing_ok=True)
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


def _describe(holder: Path) -> str:
    try:
        who = json.loads(holder.read_text())
        return f"process {who['pid']} on {who['host']}, started {who['started']}"
    except (OSError, ValueError, KeyError):  # it is being written
        return "another process"
