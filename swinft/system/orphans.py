"""What ends a process whose parent is gone: no fold, no part and no loader process goes on by itself.

Only the standard library is imported here: it runs before anything else in a child.
"""

import ctypes
import os
import signal
import sys
import threading
import time

STARTED = time.monotonic()  # of this process: what is imported after this module takes seconds
# In the environment of a child whose standard input is a pipe that its parent holds open and never writes to.
CHILD = "SWINFT_CHILD"
PR_SET_PDEATHSIG = 1  # of linux/prctl.h
STDIN = 0

_children = set[int]()  # this process's id where it is such a child; a fork has another id, and the same set


def end_with_parent() -> None:
    """Ends this process as soon as the one that started it is gone, however it went.

    The system closes the parent's end of the pipe when it dies, and reading then returns: no process ids that could be
    used again, on every system. Nothing needs to be saved first: the last whole epoch is on disk.
    """
    if os.environ.pop(CHILD, None):  # not for what a callback of the child may start
        _children.add(os.getpid())
        threading.Thread(target=_exit_at_end_of_input, name="end-with-parent", daemon=True).start()
    elif os.environ.get("LOCAL_RANK"):  # a further rank of a fold, started by the first
        _kill_with_parent()


def end_worker_with_parent() -> None:
    """Ends a loader process with the child that started it.

    Torch's own look for the parent takes seconds. Not for loader processes of a notebook, where the thread that started
    them may end before them.
    """
    if _children:
        _kill_with_parent()


def is_child() -> bool:
    """Whether this process was started by another `swinft` command and ends with it."""
    return os.getpid() in _children


def _kill_with_parent() -> None:
    """Asks Linux to kill this process when the thread that started it ends; other systems have no such thing."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _exit_at_end_of_input() -> None:
    while os.read(STDIN, 4096):
        pass
    os._exit(128 + 9)  # as one that is killed: nobody waits for the end of its loader processes, which follow
