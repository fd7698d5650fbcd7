"""What rounds gain with few or wrong labels, and what a filter that has seen the scored labels adds to a score.

    python benchmarks/rounds.py

Three parts. `filter`: random labels, so that every score above one half is a leak; no network. `few labels`: a fifth of
Blue Marble's training rows with labels, the others as a table for pseudo-labels. `wrong labels`: all of them, of which
a sixth have another label. Test rows, whose labels no round uses, score the last two. One core, ten minutes. Writes
benchmarks/results/rounds.json.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from convert_lite0 import BACKBONE, convert
from measure import RESULTS, machine, write
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from swinft.data.target.kinds import TARGETS
from swinft.run.rounds.noise import paired_folds, pairings, suspicious

ROOT = Path(__file__).parent.parent
DATA = ROOT / "competitions" / "bluemarble"
SPLITS = 3
SHARES = (0.02, 0.05, 0.1, 0.2)
SETTINGS = {
    "model.backbone": BACKBONE,
    "model.backbone_args": None,
    "model.optim.lr": 5e-4,
    "model.optim.head_lr": 1e-3,
    "model.ema_decay": None,
    "trainer.max_epochs": 8,
    "data.batch_size": 16,
    "data.augment": "light",
    "data.test": None,
    "data.sample_submission": None,
}


class Pairs:
    """Random labels of 300 pairs of like rows in different folds, and a model that looks at the nearest rows.

    Args:
        seed: Of rows and labels.
        num_folds: Number of folds.
    """

    def __init__(self, seed: int, num_folds: int = 5) -> None:
        rng = np.random.default_rng(seed)
        self.features = np.repeat(rng.normal(size=(300, 8)), 2, axis=0) + rng.normal(0, 0.05, (600, 8))
        self.labels, self.num_folds = rng.integers(2, size=600), num_folds
        first = rng.integers(num_folds, size=300)
        second = (first + rng.integers(1, num_folds, size=300)) % num_folds
        self.folds = np.stack([first, second], 1).reshape(-1)
        self.cheap = self._out_of_fold(self.folds)
        self.nested = {k: np.full((600, 2), np.nan) for k in range(num_folds)}
        for pairs in pairings(num_folds):
            found = self._out_of_fold(paired_folds(self.folds, pairs))
            for a, b in pairs:
                self.nested[a][self.folds == b] = found[self.folds == b]
                self.nested[b][self.folds == a] = found[self.folds == a]

    def _model(self, rows: NDArray[np.bool_]) -> KNeighborsClassifier:
        return KNeighborsClassifier(3, weights="distance").fit(self.features[rows], self.labels[rows])

    def _out_of_fold(self, folds: NDArray[np.int64]) -> NDArray[np.float64]:
        found = np.full((600, 2), np.nan)
        for fold in range(folds.max() + 1):
            found[folds == fold] = self._model(folds != fold).predict_proba(self.features[folds == fold])
        return found

    def score(self, share: float, is_nested: bool) -> float:
        """Accuracy of all rows after each fold's training rows were filtered."""
        right = []
        for k in range(self.num_folds):
            predictions, kept = self.nested[k] if is_nested else self.cheap, self.folds != k
            rows = np.flatnonzero(kept & np.isfinite(predictions).all(1))
            worst, _ = suspicious(TARGETS["classification"], self.labels[rows], predictions[rows], share)
            kept[rows[worst]] = False
            scored = self.folds == k
            right.append(self._model(kept).predict(self.features[scored]) == self.labels[scored])
        return float(np.concatenate(right).mean())


def filter_scores(seeds: int) -> dict[str, Any]:
    """Mean accuracy on random labels by share, of a filter that has seen the scored labels and of the nested one."""
    every = [Pairs(seed) for seed in range(seeds)]
    return {
        str(share): {
            name: round(float(np.mean([pairs.score(share, is_nested) for pairs in every])), 4)
            for name, is_nested in (("not nested", False), ("nested", True))
        }
        for share in SHARES
    }


def swinft(*words: str) -> None:
    """Runs a command on one core."""
    subprocess.run(
        [sys.executable, "-m", "swinft", *words],
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def fit_rounds(folder: Path, name: str, train: pd.DataFrame, rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Fits rounds on a training table; the table that they end with, and each one's accuracy on the test rows."""
    config = yaml.safe_load((ROOT / "configs" / "bluemarble.yaml").read_text())
    for key, value in {**SETTINGS, "model.pretrained": str(folder / "lite0.safetensors")}.items():
        section, *rest = key.split(".")
        node = config[section] if len(rest) == 1 else config[section].setdefault(rest[0], {})
        node[rest[-1]] = value
    train.to_csv(folder / f"{name}.csv", index=False)
    images = str(DATA / "images" / "{image}")
    config |= {"name": name, "runs": str(folder / "runs"), "rounds": rounds}
    config["data"] |= {"root": str(folder), "train": f"{name}.csv", "image": images}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    swinft("fit", "--config", str(folder / f"{name}.yaml"))
    found = json.loads((folder / "runs" / name / "rounds.json").read_text())["table"]
    for each in found["rounds"]:
        run = folder / "runs" / name / each["name"]
        each["test_accuracy"] = test_accuracy(run, folder / "test.csv")
    return found


def test_accuracy(run: Path, rows: Path) -> float:
    """Accuracy of a run on the rows with known answers that it has never seen."""
    output = rows.with_name("predicted.csv")
    output.unlink(missing_ok=True)
    swinft("predict", str(run), "--test", str(rows), "--root", str(rows.parent), "--output", str(output))
    found = pd.read_csv(output).set_index("id")
    truth = pd.read_csv(DATA / "solution.csv").set_index("id").loc[found.index, "climate"]
    return round(float((found.idxmax(axis=1) == truth).mean()), 4)


def few_labels(folder: Path, split: int) -> dict[str, Any]:
    """A fifth of the rows with labels; the others are labelled by the first round's networks."""
    train = pd.read_csv(DATA / "train.csv")
    labelled = train.groupby("climate", group_keys=False).sample(frac=0.2, random_state=split)
    train.drop(labelled.index)[["id", "image"]].to_csv(folder / f"rest_{split}.csv", index=False)
    tables = {"table": f"rest_{split}.csv", "weight": "confidence"}
    rounds = [
        {"name": "base"},
        {"name": "pseudo-labels", "pseudo_labels": tables},
        {"name": "distillation", "from": "base", "distill": {"weight": 0.5, "temperature": 2.0}},
    ]
    return fit_rounds(folder, f"few_{split}", labelled, rounds)


def wrong_labels(folder: Path, share: float = 1 / 6) -> dict[str, Any]:
    """All rows, some with another label; the filter drops at most twice as many as are wrong."""
    train, rng = pd.read_csv(DATA / "train.csv"), np.random.default_rng(0)
    names = sorted(train["climate"].unique())
    flipped = rng.choice(len(train), int(share * len(train)), replace=False)
    for row in flipped:
        others = [name for name in names if name != train.loc[row, "climate"]]
        train.loc[row, "climate"] = rng.choice(others)
    found = fit_rounds(folder, "wrong", train, [{"name": "base"}, {"name": "filtered", "drop_noisy": {}}])
    dropped = pd.read_csv(folder / "runs" / "wrong" / "filters" / "filtered" / "dropped.csv", dtype={"fold": str})
    wrong, folds = set(train["id"].iloc[flipped]), dropped[dropped["fold"] != "all"]
    chances = len(wrong) * (dropped["fold"].nunique() - 2)  # each wrong row is trained on by all folds but one
    is_wrong = folds["id"].isin(wrong)
    return found | {
        "wrong rows": len(wrong),
        "wrong among dropped": round(float(is_wrong.mean()), 4),
        "dropped among wrong": round(float(is_wrong.sum() / chances), 4),
    }


def main() -> None:
    """Runs the parts that are named, all by default, and writes the results; others keep theirs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=["filter", "few labels", "wrong labels"])
    parts = parser.parse_args().parts
    file = RESULTS / "rounds.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    results["machine"] = machine("scikit-learn", "cleanlab")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        convert(folder / "lite0.safetensors")
        (folder / "test.csv").write_text((DATA / "test.csv").read_text())
        for part in parts:
            started = time.perf_counter()
            if part == "filter":
                results[part] = {"seeds": 20, "accuracy": filter_scores(20)}
            elif part == "few labels":
                results[part] = {"splits": [few_labels(folder, split) for split in range(SPLITS)]}
            else:
                results[part] = wrong_labels(folder)
            results[part]["seconds"] = round(time.perf_counter() - started)
            write("rounds", results)


if __name__ == "__main__":
    main()
