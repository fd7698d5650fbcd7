"""Times steps on a device, and selects the fastest of several equivalent computations."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

T = TypeVar("T")

# Smallest relative saving: less is within the noise of timing a few steps, and a number format of lower precision must
# be worth it.
MARGIN = 0.05
STEPS = 3  # timed steps, after a warm-up step for memory allocation, kernel loading and compilation


def choose(seconds: Mapping[T, float], first: T, margin: float = MARGIN) -> T:
    """The fastest candidate, if it is faster than the first one by a margin.

    Args:
        seconds: Time of each candidate that could run and was timed.
        first: The default.
        margin: Fraction of the time of `first` that another candidate must save.

    Returns:
        A candidate; `first` also if it was not timed, since there is nothing to compare with.
    """
    if first not in seconds:
        return first
    fastest = min(seconds, key=lambda candidate: seconds[candidate])
    return fastest if seconds[fastest] < (1 - margin) * seconds[first] else first


class StepTimer:
    """Times steps on a device, within a budget.

    Args:
        device: Where the steps run.
        seconds: The budget for all timed steps.
    """

    def __init__(self, device: torch.device, seconds: float) -> None:
        self._device, self._end = device, time.perf_counter() + seconds

    def median(self, step: Callable[[], object], expected: float = 0.0) -> float | None:
        """Median seconds of a few steps, after a warm-up step that is not counted.

        Args:
            step: The function to time.
            expected: Expected seconds for all steps.

        Returns:
            None if the budget is too small.
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
