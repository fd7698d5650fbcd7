"""How a process ends at a signal. Only the standard library is imported here: the command line does before all else."""

import os
import signal
from collections.abc import Callable
from types import FrameType


def leave_at(*numbers: int) -> Callable[[int, FrameType | None], None]:
    """A handler that ends the process as an error would, with 128 plus the signal; the second signal does not wait.

    Args:
        numbers: The signals that do not wait then.
    """

    def leave(number: int, _: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, lambda again, _: os._exit(128 + again))
        raise SystemExit(128 + number)

    return leave
