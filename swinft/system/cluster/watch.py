"""Notices that a cluster is gone to which this process is connected."""

import math
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

ASK_SECONDS = 2.0  # between two questions whether the cluster is there
SILENT_SECONDS = 30.0  # without an answer: the cluster's head is gone


def end_without_cluster(ray: Any, end: Callable[[], None]) -> None:
    """Ends this process where its cluster is gone: another one takes its place, at the head that was started again.

    Ray itself would wait: neither for a node that is gone nor for a head that was started again is there an error.

    Args:
        ray: The package.
        end: Ends this process.
    """
    own = ray.get_runtime_context().get_node_id()
    answered = time.monotonic()

    def ask() -> None:
        nonlocal answered
        with suppress(Exception):  # it is gone
            while own in [node["NodeID"] for node in ray.nodes() if node["Alive"]]:
                answered = time.monotonic()
                time.sleep(ASK_SECONDS)
        answered = -math.inf

    threading.Thread(target=ask, daemon=True).start()  # it may never return
    while time.monotonic() - answered < SILENT_SECONDS:
        time.sleep(ASK_SECONDS / 2)
    end()
