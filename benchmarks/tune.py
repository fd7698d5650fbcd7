"""What a search of `swinft tune` finds, and what it loses when it is killed: writes results/tune.json.

    python benchmarks/tune.py              # a planted optimum: TPE against random search; kills; two processes
    python benchmarks/tune.py --part real  # kills of a search that trains a tiny Swin (some minutes)

The objective of the first part is a function with a known optimum in a space like that of a fine-tuning, scored fold by
fold. Everything else is what `swinft tune` runs: database, locks, pruning, tables.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml

sys.path.insert(0, str(Path(__file__).parent.parent))  # also where this file is run by its path

from benchmarks.measure import RESULTS, machine
from swinft.tuning.objective import Measured
from swinft.tuning.results import read_rows
from swinft.tuning.search import Search
from swinft.tuning.space import Space, parse_space
from swinft.tuning.study import Folder, Settings, Study, create

SPACE = {
    "model.optim.lr": {"low": 1e-5, "high": 1e-1, "log": True},
    "model.optim.layer_decay": {"low": 0.5, "high": 1.0},
    "model.optim.weight_decay": {"low": 1e-4, "high": 1.0, "log": True},
    "model.drop_path_rate": {"low": 0.0, "high": 0.5},
    "model.backbone": ["swin", "vit", "convnext"],
    "data.augment": ["light", "medium", "heavy"],
}
TYPES: dict[str, Any] = {key: float if isinstance(given, dict) else str for key, given in SPACE.items()}
OPTIMUM = 0.9
FOLDS = 3
SAMPLERS, SEEDS, TRIALS = ("random", "tpe"), 10, 60
KILLS, KILLED_TRIALS, STEP_SECONDS = 5, 12, 0.15
PARTS = ("regret", "kills", "two processes")


def planted(values: Mapping[str, Any]) -> float:
    """A score of at most `OPTIMUM`, at one point of the space."""
    score = OPTIMUM - 0.05 * (np.log10(values["model.optim.lr"]) + 3.5) ** 2
    score -= 0.6 * (values["model.optim.layer_decay"] - 0.75) ** 2
    score -= 0.01 * (np.log10(values["model.optim.weight_decay"]) + 1.3) ** 2
    score -= 0.3 * (values["model.drop_path_rate"] - 0.2) ** 2
    score -= {"swin": 0.0, "vit": 0.04, "convnext": 0.02}[values["model.backbone"]]
    return float(score - {"light": 0.02, "medium": 0.0, "heavy": 0.01}[values["data.augment"]])


class Planted:
    """An objective whose folds differ a little from one another, and which can take time.

    Args:
        seconds: Of each step.
        log: A file to which each started trial appends its number; None for none.
    """

    def __init__(self, seconds: float = 0.0, log: Path | None = None) -> None:
        self._seconds, self._log = seconds, log

    def measure(self, number: int, values: Mapping[str, Any]) -> Iterator[Measured]:
        """The score after each fold."""
        if self._log:
            with self._log.open("a") as file:
                file.write(f"{number}\n")
        score = planted(values)
        for step in range(FOLDS):
            time.sleep(self._seconds)
            noise = zlib.crc32(f"{sorted(values.items())} {step}".encode()) / 2**32 - 0.5
            yield Measured(score + 0.01 * noise / (step + 1))

    def nested(self, numbers: list[int]) -> float | None:
        """Not known."""
        return None

    def drop(self, number: int) -> None:
        """Nothing is large."""


def settings_of(name: str, space: Space, sampler: str, pruner: str, seed: int) -> Settings:
    """What a search is started with."""
    return Settings(name, space.described(), ["score"], sampler, pruner, seed, list(range(FOLDS)), "planted", True)


def study_in(root: Path, sampler: str = "tpe", pruner: str = "median", seed: int = 0) -> Study:
    """The search in a folder, which is created if it is missing."""
    folder, space = Folder(root), parse_space(SPACE, TYPES, {})
    if folder.is_search():
        return Study(folder, Settings.read(folder), space, None)
    return create(folder, settings_of("planted", space, sampler, pruner, seed), space, "name: planted\n", None)


def regrets(folder: Path) -> dict[str, Any]:
    """How far the best trial is from the optimum, for each sampler and seed, without pruning."""
    found: dict[str, Any] = {}
    for sampler in SAMPLERS:
        lost = []
        for seed in range(SEEDS):
            study = study_in(folder / f"{sampler}_{seed}", sampler, "none", seed)
            with redirect_stdout(sys.stderr):
                Search(study, Planted(), TRIALS, 3).run()
            best = max(read_rows(study), key=lambda row: row.score or 0.0)
            lost.append(OPTIMUM - planted(study.space.values(best.labels)))
        found[sampler] = {"median": round(float(np.median(lost)), 5), "of each seed": [round(each, 5) for each in lost]}
    return {"trials": TRIALS, "optimum": OPTIMUM, **found}


def killed(folder: Path, command: list[str], table: str, generator: random.Random, longest: float) -> dict[str, Any]:
    """Kills a command with SIGKILL at random moments and starts it again, until it ends by itself.

    Args:
        folder: Where it runs.
        command: It.
        table: The table of trials that it writes.
        generator: Of the moments.
        longest: The latest moment, in seconds after the first line of output.
    """
    kills, lost, done = 0, 0, 0
    while True:
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert process.stdout
        first = process.stdout.readline()  # of a trial; the imports before it take most of the time
        try:
            rest, _ = process.communicate(timeout=None if kills >= KILLS else generator.uniform(0, longest))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
        else:
            assert process.returncode == 0, first + rest
            break
        now = len((folder / table).read_text().splitlines()) if (folder / table).is_file() else 0
        lost, done = lost + (now < done), now
    return {"kills": kills, "finished trials lost": lost, "table": (folder / table).read_text()}


def kills_of_planted(folder: Path) -> dict[str, Any]:
    """A search that is killed, and the same one that is not: with and without pruning."""
    found: dict[str, Any] = {}
    for sampler, pruner in (("tpe", "median"), ("cmaes", "none"), ("nsga2", "none")):
        whole, parts = folder / f"{sampler}_whole", folder / f"{sampler}_parts"
        with redirect_stdout(sys.stderr):
            Search(study_in(whole, sampler, pruner), Planted(), KILLED_TRIALS, 3).run()
        words = [sys.executable, __file__, "--search", str(parts), "--sampler", sampler, "--pruner", pruner]
        log = folder / f"{sampler}_started.txt"
        result = killed(folder, [*words, "--log", str(log)], f"{parts.name}/trials.csv", random.Random(1), 2.0)
        table = result.pop("table")
        starts = [int(line) for line in log.read_text().split()]
        result |= {"same table": table == (whole / "trials.csv").read_text(), "trials": KILLED_TRIALS}
        found[f"{sampler}, pruner {pruner}"] = result | {"starts of trials": len(starts)}
    return found


def two_processes(folder: Path) -> dict[str, Any]:
    """Two processes on one search: how often each trial was started, and whether every one has ended."""
    root, log = folder / "shared", folder / "started.txt"
    study_in(root)
    words = [sys.executable, __file__, "--search", str(root), "--log", str(log)]
    processes = [subprocess.Popen(words, stdout=subprocess.DEVNULL) for _ in range(2)]
    codes = [process.wait() for process in processes]
    starts = sorted(int(line) for line in log.read_text().split())
    rows = read_rows(study_in(root))
    return {"exit codes": codes, "every trial once": starts == list(range(KILLED_TRIALS)), "trials": len(rows)}


def kills_of_real(folder: Path) -> dict[str, Any]:
    """A search that trains a tiny Swin on Blue Marble, killed and not killed."""
    demo = Path(__file__).parent.parent / "competitions" / "bluemarble"
    rows = (demo / "train.csv").read_text().splitlines()
    (folder / "train.csv").write_text("\n".join([rows[0], *rows[1::9]]) + "\n")
    (folder / "images").symlink_to(demo / "images")
    config = yaml.safe_load((demo.parent.parent / "configs" / "bluemarble.yaml").read_text())
    config["data"] |= {"root": str(folder), "folds": {"num": 2}, "image_size": 32, "test": None}
    config["data"]["sample_submission"] = None
    config["model"]["backbone_args"] = {"embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}
    config["trainer"] = {"max_epochs": 2, "accelerator": "cpu", "precision": "32-true"}
    config["tune"] = {
        "model.optim.lr": {"low": 1e-4, "high": 1e-1, "log": True},
        "data.augment": ["none", "light"],
        "model.drop_path_rate": {"low": 0.0, "high": 0.3},
    }
    tables = {}
    for place in ("whole", "parts"):
        (folder / place).mkdir()
        (folder / place / "config.yaml").write_text(yaml.safe_dump({**config, "name": "search"}))
        command = [sys.executable, "-m", "swinft", "tune", "--config", "config.yaml", "--trials", "3"]
        if place == "whole":
            subprocess.run(command, cwd=folder / place, check=True, stdout=sys.stderr)
            tables[place] = (folder / place / "runs" / "search" / "trials.csv").read_text()
            continue
        resume = "test -e runs/search/study.json && R=--resume; exec " + " ".join(command) + " $R"
        result = killed(folder / place, ["bash", "-c", resume], "runs/search/trials.csv", random.Random(2), 35.0)
        tables[place] = result.pop("table")
    oof = [sorted((folder / place).glob("runs/search/trials/*/oof.csv")) for place in ("whole", "parts")]
    same = [a.read_bytes() == b.read_bytes() for a, b in zip(*oof, strict=True)]
    return result | {"same table": tables["whole"] == tables["parts"], "same oof.csv": sum(same), "oof.csv": len(same)}


def main() -> None:
    """Measures, and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=[*PARTS, "real"], nargs="*", default=PARTS)
    parser.add_argument("--search", type=Path, help="internal: run the planted search in this folder")
    parser.add_argument("--sampler", default="tpe")
    parser.add_argument("--pruner", default="median")
    parser.add_argument("--log", type=Path)
    given = parser.parse_args()
    if given.search:
        study = study_in(given.search, given.sampler, given.pruner)
        Search(study, Planted(STEP_SECONDS, given.log), KILLED_TRIALS, 3).run()
        return
    path = RESULTS / "tune.json"
    os.environ["PYTHONUNBUFFERED"] = "1"
    os.environ["PYTHONPATH"] = str(Path(__file__).parent.parent)
    measured = {"regret": regrets, "kills": kills_of_planted, "two processes": two_processes, "real": kills_of_real}
    for part in given.part:
        with TemporaryDirectory() as folder:
            found = measured[part](Path(folder))
        before = json.loads(path.read_text()) if path.is_file() else {}
        results = {**before, "machine": machine("optuna", "cmaes"), part: found}
        path.write_text(json.dumps(results, indent=1) + "\n")
    print(json.dumps({key: value for key, value in results.items() if key != "machine"}, indent=1))


if __name__ == "__main__":
    main()
