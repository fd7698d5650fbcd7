"""What rounds gain with few or wrong labels, and what a filter that has seen the scored labels adds to a score.

    python benchmarks/rounds.py [filter] [few labels] [wrong labels] [--folder FOLDER]

Three cases, of arms that are trained apart. `filter`: random labels, so that every score above one half is a leak; no
network. `few labels`: a fifth of Blue Marble's training rows with labels, the others as a table for pseudo-labels; an
arm for each of three fifths. `wrong labels`: all rows, of which a sixth have another label; an arm for each of two
draws. Test rows, whose labels no round uses, score the last two. Rounds that are compared take about as many optimiser
steps as each other.

An arm takes 4 to 6 minutes of a core that other processes use, too. Results are written after every arm to
benchmarks/results/rounds.json; `--missing` leaves out arms that are there, and with `--folder` an arm that was
interrupted is resumed.
"""

import argparse
import json
import math
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from convert_lite0 import BACKBONE, convert
from in_process import command, with_keys
from measure import RESULTS, machine, write
from numpy.typing import NDArray
from sklearn.neighbors import KNeighborsClassifier

from swinft.data.target.kinds import TARGETS
from swinft.run.rounds.noise import paired_folds, pairings, suspicious

ROOT = Path(__file__).parent.parent
DATA = ROOT / "competitions" / "bluemarble"
FILTER, FEW, WRONG = "filter", "few labels", "wrong labels"
ARMS = {FILTER: 1, FEW: 3, WRONG: 2}
SHARES = (0.02, 0.05, 0.1, 0.2)
LABELLED = 0.2  # of the rows, in `few labels`
MISLABELLED = 1 / 6  # of the rows, in `wrong labels`
FEW_EPOCHS, WRONG_EPOCHS, BATCH = 16, 6, 16
SETTINGS = {
    "model.backbone": BACKBONE,
    "model.backbone_args": None,
    "model.optim.lr": 5e-4,
    "model.optim.head_lr": 1e-3,
    "model.optim.warmup_epochs": "auto",
    "model.ema_decay": None,
    "data.batch_size": BATCH,
    "data.augment": "light",
    "data.test": None,
    "data.sample_submission": None,
    "data.loading.num_workers": 0,
    "trainer.accelerator": "cpu",
    "trainer.precision": "32-true",  # the narrow convolutions of EfficientNet are slower in bf16 on CPUs
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


def processor_seconds() -> float:
    """Seconds computed by this process and by those that it has started and that have ended."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def fit_rounds(folder: Path, name: str, train: pd.DataFrame, epochs: int, rounds: list[dict[str, Any]]) -> Any:
    """Fits rounds on a training table; the table that they end with, and each one's accuracy on the test rows."""
    config = yaml.safe_load((ROOT / "configs" / "bluemarble.yaml").read_text())
    settings = {**SETTINGS, "model.pretrained": str(folder / "lite0.safetensors"), "trainer.max_epochs": epochs}
    with_keys(config, settings)
    train.to_csv(folder / f"{name}.csv", index=False)
    images = str(DATA / "images" / "{image}")
    config |= {"name": name, "runs": str(folder / "runs"), "rounds": rounds}
    config["data"] |= {"root": str(folder), "train": f"{name}.csv", "image": images}
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(config))
    made = folder / "runs" / name
    command("fit", *(["--resume", str(made)] if made.is_dir() else ["--config", str(folder / f"{name}.yaml")]))
    found = json.loads((made / "rounds.json").read_text())["table"]
    for each in found["rounds"]:
        each["test_accuracy"] = test_accuracy(made / each["name"], folder / "test.csv")
    return found


def test_accuracy(made: Path, rows: Path) -> float:
    """Accuracy of a run on the rows with known answers that it has never seen."""
    output = rows.with_name("predicted.csv")
    output.unlink(missing_ok=True)
    command("predict", str(made), "--test", str(rows), "--root", str(rows.parent), "--output", str(output))
    found = pd.read_csv(output).set_index("id")
    truth = pd.read_csv(DATA / "solution.csv").set_index("id").loc[found.index, "climate"]
    return round(float((found.idxmax(axis=1) == truth).mean()), 4)


def few_labels(folder: Path, split: int) -> dict[str, Any]:
    """A fifth of the rows with labels; the others are labelled by the first round's networks.

    The round with pseudo-labels sees five times as many rows in an epoch, and has a fifth of the epochs.
    """
    train = pd.read_csv(DATA / "train.csv")
    labelled = train.groupby("climate", group_keys=False).sample(frac=LABELLED, random_state=split)
    rest = train.drop(labelled.index)[["id", "image"]]
    rest.to_csv(folder / f"rest_{split}.csv", index=False)
    own, folds = len(labelled), 3
    steps = [math.ceil(rows * (folds - 1) / folds / BATCH) for rows in (own, own + len(rest) * folds / (folds - 1))]
    epochs = max(1, round(FEW_EPOCHS * steps[0] / steps[1]))
    tables = {"table": f"rest_{split}.csv", "weight": "confidence"}
    rounds = [
        {"name": "base"},
        {"name": "pseudo-labels", "pseudo_labels": tables, "set": {"trainer.max_epochs": epochs}},
        {"name": "distillation", "from": "base", "distill": {"weight": 0.5, "temperature": 2.0}},
    ]
    found: dict[str, Any] = fit_rounds(folder, f"few_{split}", labelled, FEW_EPOCHS, rounds)
    return found | {"epochs": [FEW_EPOCHS, epochs, FEW_EPOCHS], "steps of an epoch": [steps[0], steps[1], steps[0]]}


def wrong_labels(folder: Path, draw: int) -> dict[str, Any]:
    """All rows, some with another label, and what the filter drops of them."""
    train, rng = pd.read_csv(DATA / "train.csv"), np.random.default_rng(draw)
    names = sorted(train["climate"].unique())
    flipped = rng.choice(len(train), int(MISLABELLED * len(train)), replace=False)
    for row in flipped:
        others = [name for name in names if name != train.loc[row, "climate"]]
        train.loc[row, "climate"] = rng.choice(others)
    name, rounds = f"wrong_{draw}", [{"name": "base"}, {"name": "filtered", "drop_noisy": {}}]
    found: dict[str, Any] = fit_rounds(folder, name, train, WRONG_EPOCHS, rounds)
    dropped = pd.read_csv(folder / "runs" / name / "filters" / "filtered" / "dropped.csv", dtype={"fold": str})
    wrong, folds = set(train["id"].iloc[flipped]), dropped[dropped["fold"] != "all"]
    chances = len(wrong) * (folds["fold"].nunique() - 1)  # each wrong row is trained on by all folds but one
    is_wrong = folds["id"].isin(wrong)
    return found | {
        "epochs": WRONG_EPOCHS,
        "wrong rows": len(wrong),
        "wrong among dropped": round(float(is_wrong.mean()), 4),
        "dropped among wrong": round(float(is_wrong.sum() / chances), 4),
    }


CASES: dict[str, Callable[[Path, int], dict[str, Any]]] = {
    FILTER: lambda folder, arm: {"seeds": 20, "accuracy": filter_scores(20)},
    FEW: few_labels,
    WRONG: wrong_labels,
}


def main() -> None:
    """Runs the arms of the cases that are named, all by default, and writes the results; others keep theirs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all unless given")
    parser.add_argument("--folder", type=Path, help="of the runs, which are kept and resumed")
    parser.add_argument("--missing", action="store_true", help="only arms without results")
    options = parser.parse_args()
    if wrong := set(options.cases) - CASES.keys():
        parser.error(f"no such case: {', '.join(sorted(wrong))}")
    file = RESULTS / "rounds.json"
    results: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    results["machine"] = machine("scikit-learn", "cleanlab")
    with tempfile.TemporaryDirectory() as name:
        folder = options.folder or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        convert(folder / "lite0.safetensors")
        (folder / "test.csv").write_text((DATA / "test.csv").read_text())
        for case in options.cases or CASES:
            arms = dict(results.get(case, {}).get("arms", {})) if options.missing else {}
            for arm in range(ARMS[case]):
                if str(arm) in arms:
                    continue
                started, before = time.perf_counter(), processor_seconds()
                found = CASES[case](folder, arm)
                arms[str(arm)] = {
                    **found,
                    "seconds": round(processor_seconds() - before),
                    "elapsed": round(time.perf_counter() - started),
                }
                results[case] = {"arms": arms}
                write("rounds", results)
                print(f"{case}, arm {arm}: {arms[str(arm)]['seconds']} s", file=sys.stderr)


if __name__ == "__main__":
    main()
