"""Shared by the benchmarks: interleaved timing, description of the machine, and the page of results.

`python benchmarks/measure.py` writes README.md from README.md.j2 and results/*.json, and measures nothing.
"""

import itertools
import json
import os
import platform
import random
import re
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jinja2 import Environment, StrictUndefined

from swinft.system.precision import cpu_has_bf16

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results"
# Pause before each measurement: threads of torch and OpenVINO spin for a moment after their work.
PAUSE_SECONDS = 0.3
# Allowed load of other processes during a measurement: a fraction of a core, plus two clock ticks of the system.
QUIET_SHARE, QUIET_SECONDS = 0.1, 0.02


class Computed(float):
    """Seconds computed by another process for a case."""


def machine(*packages: str) -> dict[str, object]:
    """Processor, cores, threads, load before anything is measured, and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "bf16 units": cpu_has_bf16(),
        "torch threads": torch.get_num_threads(),
        "load before": load(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "timm", "pillow", *packages)},
    }


def load() -> list[float]:
    """Load averages over the last 1, 5 and 15 minutes, including the benchmark itself."""
    return [round(value, 2) for value in os.getloadavg()]


def add_timing(parser: ArgumentParser, rounds: int) -> None:
    """Adds the options that `interleave` reads, and `--threads`."""
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--patience", type=float, default=300, help="seconds to wait for other processes, in all")
    parser.add_argument("--cpu-time", action="store_true", help="count the seconds computed; give --threads 1 with it")
    parser.add_argument("--threads", type=int, help="threads to compute with; one per core unless given")


def interleave(
    groups: Sequence[dict[str, Callable[[], object]]], timing: Namespace
) -> tuple[dict[str, list[float]], int]:
    """Seconds of each case in each round, and how many of these measurements were disturbed.

    Every round runs every case once, in another order, so that other load affects all of them equally, and cases are
    compared round by round. Cases of a group run one after another, since a host may be slower for some seconds. A
    first round for memory allocation and kernels is not counted.

    A measurement is repeated if other processes computed meanwhile, independent of its result. When patience is over,
    all measurements are kept.

    With `--cpu-time`, the processor time of this process (all threads) is measured instead of the wall clock. Other
    processes hardly affect it, so nothing is repeated.

    Args:
        groups: Cases by name, in groups that are compared. A case that runs in another process returns its processor
            time, as `Computed`.
        timing: `rounds`, `patience` in seconds, and `cpu_time`.
    """
    order, patience = random.Random(0), timing.patience
    cases = {name: case for group in groups for name, case in group.items()}
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    disturbed = 0
    for number in range(timing.rounds + 1):
        shuffled = [order.sample(list(group), len(group)) for group in order.sample(groups, len(groups))]
        for name in itertools.chain(*shuffled):
            while True:
                patience -= 0 if timing.cpu_time else _wait_until_quiet(patience)
                elapsed, is_quiet = _time(cases[name], timing.cpu_time)
                if number == 0 or is_quiet or patience <= 0:
                    break
                patience -= elapsed
            if number:
                seconds[name].append(elapsed)
                disturbed += not is_quiet
    print(f"{disturbed} of {timing.rounds * len(cases)} measurements were disturbed by other processes")
    return seconds, disturbed


def _time(case: Callable[[], object], cpu_time: bool = False) -> tuple[float, bool]:
    """Seconds of a call, and whether the load of other processes was negligible."""
    busy, own, started = _busy_seconds(), time.process_time(), time.perf_counter()
    answer = case()
    elapsed = time.perf_counter() - started
    computed = time.process_time() - own + (answer if isinstance(answer, Computed) else 0)
    others = _busy_seconds() - busy - computed
    is_quiet = others <= QUIET_SHARE * elapsed + QUIET_SECONDS
    return (computed, True) if cpu_time else (elapsed, is_quiet)


def _wait_until_quiet(patience: float) -> float:
    """Waits at least for the pause, and until other processes are idle; returns the additional seconds."""
    started = time.perf_counter()
    while True:
        _, is_quiet = _time(lambda: time.sleep(PAUSE_SECONDS))
        waited = time.perf_counter() - started - PAUSE_SECONDS
        if is_quiet or waited >= patience:
            return waited


def _busy_seconds() -> float:
    """Processor seconds of all cores since the machine's start; 0 if unknown."""
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
    """`4.01 (3.98–4.10)`: the median and the range, or other quantiles."""
    return f"{values['median']:,.{digits}f} ({values['low']:,.{digits}f}–{values['high']:,.{digits}f})"


def write(name: str, results: dict[str, Any]) -> None:
    """Writes results/NAME.json and the page, and prints what the page says of it."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    written = write_page()
    print(json.dumps(results["machine"]))
    print(*(part for part in written.split("\n## ") if f"results/{path.name}" in part), sep="\n")


def read_results() -> dict[str, Any]:
    """The results by file name, with `_` for `-`."""
    return {path.stem.replace("-", "_"): json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


def page(results: dict[str, Any]) -> str:
    """The text of README.md, with the figures of the results."""
    environment = Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, autoescape=False
    )
    environment.filters |= {
        "show": show,
        "mean": lambda values: sum(values) / len(values),
        "mean_range": lambda values: show(spread(values) | {"median": sum(values) / len(values)}, 3),
        "digits": lambda value, digits=0: f"{value:,.{digits}f}",
        "verdict": lambda is_met: "met" if is_met else "missed",
    }
    steps = re.findall(r'^    "(\w+)": Step\(', (FOLDER / "gpu_smoke.py").read_text(), re.MULTILINE)
    template = environment.from_string((FOLDER / "README.md.j2").read_text())
    return template.render(results, results=results, smoke_steps=steps)


def write_page() -> str:
    """Writes README.md; returns its text."""
    written = page(read_results())
    (FOLDER / "README.md").write_text(written)
    return written


if __name__ == "__main__":
    write_page()
