"""Which of several ways to compute the same is taken: by what a step of each takes on the device."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

T = TypeVar("T")

# What a choice must save at least: less is within what timings of a few steps scatter by, and a format with fewer
# digits must be worth it.
MARGIN = 0.05
STEPS = 3  # timed, after one that pays for memory, kernels and compiling


def choose(seconds: Mapping[T, float], first: T, margin: float = MARGIN) -> T:
    """The quickest candidate, if it is quicker than the first one by a margin.

    Args:
        seconds: What each candidate takes; a candidate that cannot run, or was not timed, is not in it.
        first: What is taken where no other is worth it.
        margin: Share of the time of `first` that another one must save.

    Returns:
        A candidate; `first` also where it was not timed, for nothing can be compared with it then.
    """
    if first not in seconds:
        return first
    quickest = min(seconds, key=lambda candidate: seconds[candidate])
    return quickest if seconds[quickest] < (1 - margin) * seconds[first] else first


class StepTimer:
    """Times steps on a device, within a budget.

    Args:
        device: Where the steps are computed.
        seconds: The budget of all that is timed.
    """

    def __init__(self, device: torch.device, seconds: float) -> None:
        self._device, self._end = device, time.perf_counter() + seconds

    def median(self, step: Callable[[], object], expected: float = 0.0) -> float | None:
        """Seconds of a step: the median of a few, after one that is not counted.

        Args:
            step: What is timed.
            expected: Seconds that all of it is thought to take.

        Returns:
            None where the budget is not enough.
        """
        if time.perf_counter() + expected > self._end:
            return None
        self._once(step)
        taken = [self._once(step)]
        while len(taken) < STEPS and time.perf_counter() + taken[-1] < self._end:
            taken.append(self._once(step))
        return statistics.median(taken)

    def _once(self, step: Callable[[], object]) -> float:
        self._wait()
        started = time.perf_counter()
        step()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
