"""Measures the cost of durability: the store's flushes and hashes in a fold of a full-size model.

    python benchmarks/store.py                      # swin_tiny at 224 px, 5 minutes on 2 cores
    python benchmarks/store.py --rows 90 --rounds 1 --size 32

Fits one fold for one epoch by the command line, and measures the seconds inside flushes (fsync of files and folders)
and hashes (while writing and verifying). The time without them is the command's time minus these seconds: between
separate commands, training steps vary more than the difference to measure. The checkpoint has weights, averaged weights
and AdamW's two moments. With few rows, saving takes a larger fraction of an epoch than in a competition. Writes
benchmarks/results/store.json.
"""

import argparse
import hashlib
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from measure import machine, write

from swinft import store
from swinft.cli import main as swinft

ROOT = Path(__file__).parent.parent
LIMIT = 1.03  # allowed cost of durability


class Stopwatch:
    """Adds up the seconds inside functions."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The same function, timed."""

        def timed(*arguments: Any) -> Any:
            started = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                self.seconds += time.perf_counter() - started

        return timed


class TimedHash:
    """SHA-256 with a stopwatch around it."""

    def __init__(self, watch: Stopwatch, *content: bytes) -> None:
        self.hash = hashlib.sha256(*content)
        self.update, self.hexdigest = watch.around(self.hash.update), self.hash.hexdigest


@contextmanager
def watched(watch: Stopwatch) -> Iterator[None]:
    """Times every flush and every hash of the store."""
    stub = SimpleNamespace(sha256=lambda *content: TimedHash(watch, *content), file_digest=hashlib.file_digest)
    with (
        mock.patch.object(os, "fsync", watch.around(os.fsync)),
        mock.patch("swinft.whole_files.hashlib", stub),
        mock.patch("swinft.store.sha256_of", watch.around(store.sha256_of)),
    ):
        yield


def make_table(root: Path, rows: int) -> None:
    """A table of `rows` rows over the demo's tiles."""
    source = ROOT / "competitions" / "bluemarble"
    shutil.copytree(source / "images", root / "images")
    lines = (source / "train.csv").read_text().splitlines()
    body = [lines[1 + 7 * row % (len(lines) - 1)].split(",") for row in range(rows)]
    table = [lines[0], *(",".join([f"{cells[0]}-{row}", *cells[1:]]) for row, cells in enumerate(body))]
    (root / "train.csv").write_text("\n".join(table) + "\n")


def fit(root: Path, options: argparse.Namespace, *more: str) -> float:
    """Seconds that one fold takes, from the command to its end."""
    runs = root / "runs"
    shutil.rmtree(runs, ignore_errors=True)
    words = ["fit", "--config", str(ROOT / "configs" / "bluemarble.yaml"), "--fold", "0", "--runs", str(runs)]
    words += ["--data.root", str(root), "--data.test", "null", "--data.sample_submission", "null"]
    words += ["--data.image_size", str(options.size), "--trainer.max_epochs", str(options.epochs)]
    words += ["--model.backbone", options.backbone, "--model.backbone_args", "null", "--model.optim.warmup_epochs", "0"]
    started = time.perf_counter()
    assert swinft([*words, *more]) == 0
    return time.perf_counter() - started


def main() -> None:
    """Measures, prints, writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="swin_tiny_patch4_window7_224")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--rows", type=int, default=900, help="two thirds of them are trained on")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    about = machine()
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:  # on a disk: in memory, flushes cost nothing
        root = Path(folder)
        make_table(root, options.rows)
        fit(root, options, "--trainer.limit_train_batches", "2")  # warm-up: imports and kernels
        pairs = []
        for _ in range(options.rounds):
            watch = Stopwatch()
            with watched(watch):
                whole = fit(root, options)
            pairs.append((whole, whole - watch.seconds))
    ratios = [whole / without for whole, without in pairs]
    result = {
        "machine": about,
        **vars(options),
        "seconds with": [round(whole, 2) for whole, _ in pairs],
        "seconds without": [round(without, 2) for _, without in pairs],
        "ratio": round(statistics.median(ratios), 4),
        "spread": [round(min(ratios), 4), round(max(ratios), 4)],
        "limit": LIMIT,
    }
    write("store", result)


if __name__ == "__main__":
    main()
