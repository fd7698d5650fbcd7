"""Measures time and memory of what works on all rows, before and after the training.

    python benchmarks/large.py
    python benchmarks/large.py --rows 100000 --classes 1000

Tables are made up: rows show 24 images again and again, so that no time goes into files. Every stage runs in a process
of its own, whose largest resident memory is measured; that of a process that has only imported what the stages need is
in the table, too. About 10 minutes, 4 GB of memory and 4 GB of disk. Writes
benchmarks/results/large.json.
"""

import argparse
import multiprocessing
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from iterstrat.ml_stratifiers import MultilabelStratifiedKFold
from measure import load, machine, write
from PIL import Image

from swinft.data.datamodule import CSVDataModule
from swinft.data.folds import make_folds
from swinft.inference.predictions import Predictions

IMAGES = 24
LABELS, MANY_LABELS, COLUMNS = 28, 1000, 500  # of the multi-label folds; of metadata


def make(folder: Path, rows: int, classes: int) -> None:
    """Writes the images, a table of many rows, and a wide one with a 20th of them."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    for number in range(IMAGES):
        pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number:02d}.jpg")
    with (folder / "train.csv").open("w") as file:
        file.write("id,file,label,group\n")
        for row in range(rows):
            file.write(f"{row:08d},{row % IMAGES:02d},class {row % classes:05d},group {row % classes + row // 8}\n")
    with (folder / "wide.csv").open("w") as file:
        file.write(f"id,file,label,{','.join(f'm{k}' for k in range(COLUMNS))}\n")
        for row, numbers in enumerate(rng.normal(size=(rows // 20, COLUMNS)).round(4).tolist()):
            file.write(f"{row:08d},{row % IMAGES:02d},{row % 5},{','.join(map(str, numbers))}\n")


def setup(folder: Path, table: str = "train.csv", **changes: Any) -> CSVDataModule:
    """A datamodule whose rows are read and have folds; no image is opened."""
    data = CSVDataModule(
        train=table,
        root=str(folder),
        image="images/{file}.jpg",
        target="label",
        target_kind="classification",
        image_size=32,
        **changes,
    )
    data.setup("fit")
    return data


def predicted(rows: int, classes: int) -> Predictions:
    """Predictions whose rows sum to about 1."""
    values = np.random.default_rng(0).random((rows, classes), dtype=np.float32)
    values *= 2 / classes
    return Predictions([f"{row:08d}" for row in range(rows)], values, [f"class {k:05d}" for k in range(classes)])


def stages(folder: Path, rows: int, classes: int) -> dict[str, Callable[[], object]]:
    """What is measured, by what the page calls it."""
    some = rows // 50  # with predictions of all classes

    def labels(number: int, width: int) -> Any:
        return (np.random.default_rng(0).random((number, width)) < 1.4 / width).astype(np.float32)

    def epoch() -> object:
        order = setup(folder, loading={"sampler": "balanced"}).splits.sampled_order(0)
        return order and [order.visit(number) for number in range(10)]

    return {
        "imports": lambda: None,
        f"{rows:,} rows, {classes:,} classes: table, checks, stratified folds": lambda: setup(folder),
        "the first, with groups": lambda: setup(folder, folds={"group": "group"}),
        "the first, and ten epochs of a balanced sampler": epoch,
        f"{rows // 5:,} rows, {LABELS} labels: multi-label folds": lambda: make_folds(
            "auto", 5, 0, labels(rows // 5, LABELS)
        ),
        f"{rows // 50:,} rows, {MANY_LABELS:,} labels: multi-label folds": lambda: make_folds(
            "auto", 5, 0, labels(rows // 50, MANY_LABELS)
        ),
        "the same folds by the package iterative-stratification": lambda: [
            *MultilabelStratifiedKFold(n_splits=5, shuffle=True, random_state=0).split(
                np.zeros(rows // 50), labels(rows // 50, MANY_LABELS)
            )
        ],
        f"{rows // 20:,} rows, {COLUMNS} columns of metadata": lambda: setup(
            folder, "wide.csv", columns={"numeric_features": ["m*"]}
        ),
        f"{some:,} rows, {classes:,} classes: predictions made": lambda: predicted(some, classes),
        "the same, and written": lambda: predicted(some, classes).write(folder / "oof.csv", "benchmark"),
    }


def run(name: str, folder: Path, rows: int, classes: int, results: Any) -> None:
    """Runs a stage in this process, and puts its seconds and the largest memory, bytes, into a queue."""
    stage = stages(folder, rows, classes)[name]
    started = time.perf_counter()
    stage()
    seconds = time.perf_counter() - started
    status = Path("/proc/self/status").read_text()  # what getrusage gives includes the process that started this one
    results.put(
        (seconds, 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]))
    )


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--classes", type=int, default=10_000)
    arguments = parser.parse_args()
    context, found, about = multiprocessing.get_context("spawn"), [], {"machine": machine()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make(folder, arguments.rows, arguments.classes)
        for name in stages(folder, arguments.rows, arguments.classes):
            results = context.Queue()
            child = context.Process(target=run, args=(name, folder, arguments.rows, arguments.classes, results))
            child.start()
            seconds, peak = results.get()
            child.join()
            print(f"{name}: {seconds:.1f} s, {peak / 2**20:,.0f} MB", flush=True)
            found.append({"name": name, "seconds": seconds, "peak_bytes": peak})
    write("large", {**about, **vars(arguments), "stages": found, "load_after": load()})


if __name__ == "__main__":
    main()
