"""Starts the bridge, the process that is connected to a cluster, and ends it with all that it has started."""

import os
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

from swinft.errors import InputError
from swinft.system.cluster.place import OWN
from swinft.system.import_paths import child_environment

BRIDGE = "swinft.system.cluster.bridge"
LISTEN_SECONDS = 10.0
SESSION = 3  # place of the session's id among the fields of /proc/PID/stat after the name
END_SECONDS = 20.0  # for a bridge to end its children


def check_listens(on: str) -> None:
    """Checks that something listens to an address: Ray itself would try for minutes.

    Raises:
        InputError: Nothing does.
    """
    if on == OWN:
        return
    host, _, port = on.removeprefix("ray://").rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), LISTEN_SECONDS).close()
    except OSError as error:
        raise InputError(
            f"--on {on}: there is no cluster, nothing answers there: {error.strerror or error}. Start one with `ray "
            f"start --head`, or correct the address: HOST:6379 is Ray's usual one, ray://HOST:10001 that of Ray Client."
        ) from error


def start_bridge(on: str, log: IO[bytes]) -> "subprocess.Popen[bytes]":
    """Starts a bridge, in a session of its own: Ctrl-C on a terminal is for the children, which are asked to end."""
    environment = {**child_environment(), "RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", BRIDGE, on]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=log, start_new_session=True)


def end_bridge(bridge: "subprocess.Popen[bytes]") -> None:
    """Closes a bridge's input, at which it ends its children; one that hangs is killed."""
    with suppress(OSError):
        assert bridge.stdin
        bridge.stdin.close()
    try:
        bridge.wait(timeout=END_SECONDS)
    except subprocess.TimeoutExpired:
        bridge.kill()
        bridge.wait()
    end_session(bridge.pid)


def end_session(session: int) -> None:
    """Kills the processes of a session but this one: what a cluster of this machine consists of.

    Ray would end them in an orderly way, which takes 10 s; nothing in them needs saving.
    """
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, IndexError, ValueError):  # it has just ended
            fields = (path / "stat").read_text().rpartition(")")[2].split()
            if int(fields[SESSION]) == session and int(path.name) != os.getpid():
                os.kill(int(path.name), signal.SIGKILL)
