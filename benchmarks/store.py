"""What durability costs: a fold of a real-size model, with the store's flushes and hashes and without them.

    python benchmarks/store.py                      # swin_tiny at 224 px, about 10 minutes on 2 cores
    python benchmarks/store.py --rows 40 --rounds 1 --backbone swin_tiny_patch4_window7_224 --size 32

Fits one fold for one epoch through the front door, alternately with and without, and compares the whole commands:
reading, training, checkpoint, weights, out-of-fold predictions. The checkpoint holds weights, their average and AdamW's
two moments. The rows are few, so that the share of an epoch that is spent on saving is larger than in a competition.
Writes benchmarks/results/store.json.
"""

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

from measure import machine

from swinft.cli import main as swinft

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results" / "store.json"
LIMIT = 1.03  # what durability may cost


class NoHash:
    """Stands in for SHA-256 and reads nothing."""

    def update(self, content: object) -> None:
        """Does nothing."""

    def hexdigest(self) -> str:
        """The same for every content."""
        return "0" * 64


@contextmanager
def unsafe() -> Iterator[None]:
    """Files are written and renamed as ever, but neither flushed nor hashed."""
    with (
        mock.patch.object(os, "fsync", return_value=None),
        mock.patch("swinft.run.store.hashlib", SimpleNamespace(sha256=lambda *content: NoHash())),
        mock.patch("swinft.run.store._sha256", return_value="0" * 64),
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
    with tempfile.TemporaryDirectory(dir=ROOT) as folder:  # on a disk: a folder in memory flushes for nothing
        root = Path(folder)
        make_table(root, options.rows)
        fit(root, options, "--trainer.limit_train_batches", "2")  # imports and first kernels
        pairs = []
        for _ in range(options.rounds):
            with unsafe():
                without = fit(root, options)
            pairs.append((fit(root, options), without))
    ratios = [safe / without for safe, without in pairs]
    result = {
        "machine": about,
        **vars(options),
        "seconds with": [round(safe, 2) for safe, _ in pairs],
        "seconds without": [round(without, 2) for _, without in pairs],
        "ratio": round(statistics.median(ratios), 4),
        "spread": [round(min(ratios), 4), round(max(ratios), 4)],
        "limit": LIMIT,
    }
    RESULTS.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
