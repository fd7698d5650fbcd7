"""The time left that `swinft fit` shows on a terminal, beside what came true: the Blue Marble climates in three folds.

    python benchmarks/progress.py

Fits on a pseudo-terminal, and keeps what the view said at every moment. Run it in the clone's root on a machine that
does nothing else; 2 to 3 minutes on 2 cores. Writes benchmarks/results/progress.json.
"""

import argparse
import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
import time
from pathlib import Path
from typing import Any

from measure import load, machine, write

ROOT = Path(__file__).parent.parent
SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)  # of the whole time, at which the view is compared with the truth
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
FOOTER = re.compile(r"left for everything: (about |at most )?([\d.]+[smhd](?: \d+[smhd])?);")


def seconds_of(text: str) -> float:
    """`3m 20s` in seconds."""
    return sum(float(part[:-1]) * UNITS[part[-1]] for part in text.split())


def watched(words: list[str]) -> tuple[list[tuple[float, float]], float]:
    """Runs a command on a terminal.

    Returns:
        Times, and what was then said to be left, both in seconds; and when the command was done.
    """
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
    environment = {**os.environ, "TERM": "xterm"}
    environment.pop("JPY_PARENT_PID", None)
    command = [sys.executable, "-m", "swinft", *words]
    started = time.monotonic()
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=end, stderr=end, env=environment)
    os.close(end)
    said: list[tuple[float, float]] = []
    rest = ""
    while True:
        try:
            content = os.read(terminal, 65536).decode(errors="replace")
        except OSError:  # of Linux, where the other end is closed
            break
        if not content:
            break
        rest = (rest + content)[-20_000:]
        if found := list(FOOTER.finditer(rest)):
            said.append((time.monotonic() - started, seconds_of(found[-1][2])))
            rest = rest[found[-1].end() :]
    if process.wait():
        raise SystemExit(f"{words} ended with exit code {process.returncode}:\n{rest}")
    return said, time.monotonic() - started


def main() -> None:
    """Fits once, and writes what was said."""
    parser = argparse.ArgumentParser(description="The time left that a fit shows, beside what came true.")
    parser.add_argument("--epochs", type=int, default=20, help="of each fold")
    options = parser.parse_args()
    result: dict[str, Any] = {"machine": machine(), "epochs": options.epochs}
    with tempfile.TemporaryDirectory() as runs:
        words = ["fit", "--config", "configs/bluemarble.yaml", "--runs", runs]
        said, whole = watched([*words, "--trainer.max_epochs", str(options.epochs)])
    moments = []
    for share in SHARES:
        now, left = min(said, key=lambda pair: abs(pair[0] - share * whole))
        moments.append({"share": share, "said": round(left, 1), "left": round(whole - now, 1)})
        print(moments[-1], flush=True)
    every = said[:: max(1, len(said) // 100)]
    result |= {"seconds": round(whole, 1), "moments": moments, "load after": load()}
    result["said"] = [[round(now, 1), round(left, 1)] for now, left in every]
    write("progress", result)


if __name__ == "__main__":
    main()
