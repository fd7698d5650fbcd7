"""Ends child processes whose parent is gone: folds, parts of a prediction, loader workers.

Only the standard library is imported here: this runs before anything else in a child.
"""

import ctypes
import os
import signal
import sys
import threading
import time

STARTED = time.monotonic()  # start of this process: later imports take seconds
# Environment variable of a child process. Its standard input is a pipe that the parent keeps open and never writes to.
CHILD = "SWINFT_CHILD"
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
STDIN = 0

_children = set[int]()  # holds this process's id if it is a child; a fork inherits the set but has another id


def end_with_parent() -> None:
    """Ends this process as soon as its parent has ended, for whatever reason.

    The operating system closes the parent's end of the pipe when it ends, and reading then returns. This works on every
    system, and needs no process ids, which may be reused. Nothing needs saving: the last whole epoch is on disk.
    """
    if os.environ.pop(CHILD, None):  # removed, so that processes started by a callback do not inherit it
        _children.add(os.getpid())
        threading.Thread(target=_exit_at_end_of_input, name="end-with-parent", daemon=True).start()
    elif os.environ.get("LOCAL_RANK"):  # another rank of a fold, started by rank 0
        _kill_with_parent()


def end_worker_with_parent() -> None:
    """Ends a loader worker with the child process that started it; torch itself needs seconds for this.

    Does nothing for the loader workers of a notebook: the thread that started them may end before they do.
    """
    if _children:
        _kill_with_parent()


def is_child() -> bool:
    """Whether this process was started by another `swinft` command and ends with it."""
    return os.getpid() in _children


def _kill_with_parent() -> None:
    """Makes Linux kill this process when the thread that started it ends; other systems have no such option."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _exit_at_end_of_input() -> None:
    while os.read(STDIN, 4096):
        pass
    os._exit(128 + 9)  # like SIGKILL, without waiting for loader workers, which end by themselves
