"""Interleaved timing, and what it was measured on: shared by the benchmarks."""

import json
import os
import platform
import random
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

RESULTS = Path(__file__).parent / "results"
# A pause before each measurement: threads of torch and OpenVINO wait actively for a moment after their work.
PAUSE_SECONDS = 0.3
# What other processes may compute while something is timed: a share of a core, and two of the system's clock ticks.
QUIET_SHARE, QUIET_SECONDS = 0.1, 0.02


def machine(*packages: str) -> dict[str, object]:
    """Processor, cores, threads and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "timm", *packages)},
    }


def load() -> list[float]:
    """Processes that wanted a core, on average over the last 1, 5 and 15 minutes; the benchmark's own count too."""
    return [round(value, 2) for value in os.getloadavg()]


def interleave(
    cases: dict[str, Callable[[], object]], rounds: int, patience: float
) -> tuple[dict[str, list[float]], int]:
    """Seconds of each case in each round, and how many of these measurements were disturbed.

    Every round runs every case once, in an order of its own: what else the machine does hits all of them alike, so that
    cases are compared round by round. One round more comes first and is not counted: it pays for memory and kernels.

    A measurement during which other processes computed is repeated. Whether it is kept depends on them alone, never on
    how long it took. Once patience is over everything is kept.

    Args:
        cases: What to time, by name.
        rounds: Number of counted rounds.
        patience: Seconds to spend on waiting and repeating, in all.
    """
    order = random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    disturbed = 0
    for number in range(rounds + 1):
        for name in order.sample(list(cases), len(cases)):
            while True:
                waited = _wait_until_quiet(patience)
                elapsed, is_quiet = _time(cases[name])
                patience -= waited
                if number == 0 or is_quiet or patience <= 0:
                    break
                patience -= elapsed
            if number:
                seconds[name].append(elapsed)
                disturbed += not is_quiet
    print(f"{disturbed} of {rounds * len(cases)} measurements were disturbed by other processes")
    return seconds, disturbed


def _time(case: Callable[[], object]) -> tuple[float, bool]:
    """Seconds of a call, and whether other processes hardly computed meanwhile."""
    busy, own, started = _busy_seconds(), time.process_time(), time.perf_counter()
    case()
    elapsed = time.perf_counter() - started
    others = _busy_seconds() - busy - (time.process_time() - own)
    return elapsed, others <= QUIET_SHARE * elapsed + QUIET_SECONDS


def _wait_until_quiet(patience: float) -> float:
    """Waits until other processes hardly compute, and at least for the pause; returns the seconds beyond it."""
    started = time.perf_counter()
    while True:
        _, is_quiet = _time(lambda: time.sleep(PAUSE_SECONDS))
        waited = time.perf_counter() - started - PAUSE_SECONDS
        if is_quiet or waited >= patience:
            return waited


def _busy_seconds() -> float:
    """Seconds that all cores together computed since the start of the machine; 0 where it does not say."""
    stat = Path("/proc/stat")
    if not stat.is_file():
        return 0.0
    user, nice, system, _idle, _wait, *interrupts = map(int, stat.read_text().split("\n", 1)[0].split()[1:9])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": float(np.median(values)), "low": min(values), "high": max(values)}


def ratios(above: Sequence[float], below: Sequence[float]) -> dict[str, float]:
    """Median and range of the quotients, round by round."""
    return spread([a / b for a, b in zip(above, below, strict=True)])


def show(values: dict[str, float], digits: int = 2) -> str:
    """`4.01 (3.98–4.10)`: the median and the range."""
    return f"{values['median']:.{digits}f} ({values['low']:.{digits}f}–{values['high']:.{digits}f})"


def write(name: str, results: dict[str, object]) -> None:
    """Writes results/NAME.json."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(path)
