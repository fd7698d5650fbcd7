"""Compares swinft with other libraries on the same images, network, epochs and batch: images/s, accuracy, memory.

    pip install -r benchmarks/requirements.txt
    python benchmarks/fit.py                     # three networks at 224 px; hours on 2 cores
    python benchmarks/fit.py --models resnet18 --rows 64 --rounds 1    # one network in minutes
    python benchmarks/fit.py --rows 64 --epochs 2 --rounds 1 --batch 16 --models resnet18 --size 64
    python benchmarks/fit.py --only timm --setting equal

Two settings. `equal`: the same precision (bf16 autocast if the processor supports it), random-resized crops, flips,
loader workers, optimiser and schedule. `defaults`: the defaults of each library for this network, batch and number of
epochs, as in its guide or training script.

Each measurement is a separate process; the contestants take turns, in another order every round. Images per second are
of the training steps of all epochs except the first, including the loader, without validation and saving. The total
time is from the start of the process to the score. Memory is the main process's largest resident set plus the memory of
its loader workers. A contestant whose package is missing is reported and left out. Writes benchmarks/results/fit.json
after each network; results of other networks are kept.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import redirect_stdout
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
from contestants.race import Clock, Race
from jpegs import make_table
from measure import machine, ratios, read_results, spread, write

from swinft.system.memory import peak_resident
from swinft.system.precision import cpu_is_faster_in_bf16

NEEDS = {
    "swinft": ["swinft"],
    "timm": ["timm"],
    "transformers": ["transformers", "accelerate", "torchvision"],
    "fastai": ["fastai", "torchvision"],
}
# Images per second relative to each other contestant, in each setting.
GOALS = {
    "swin_tiny_patch4_window7_224": {"equal": 1.1, "defaults": 3.0},
    "tf_efficientnet_lite0": {"equal": 1.1, "defaults": 2.0},
    "resnet18": {"equal": 1.1, "defaults": 2.0},
}
SETTINGS = ("equal", "defaults")
MEMORY_LIMIT = 1.05  # of the smallest other contestant
MEGABYTE = 1024 * 1024


class Memory(threading.Thread):
    """Monitors the private memory of loader workers; pages shared with the main process are counted there."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.workers = 0

    def run(self) -> None:
        """Samples once a second."""
        while True:
            held = 0
            for worker in psutil.Process().children(recursive=True):
                try:
                    held += worker.memory_full_info().uss
                except psutil.Error:  # it has just ended
                    continue
            self.workers = max(self.workers, held)
            time.sleep(1)

    def peak(self) -> float:
        """Megabytes, so far."""
        return (peak_resident() + self.workers) / MEGABYTE


def measure(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """One contestant in this process."""
    memory = Memory()
    memory.start()
    race = Race(
        root=root,
        is_equal=options.setting == "equal",
        is_bf16=cpu_is_faster_in_bf16(),
        backbone=options.models,
        size=options.size,
        epochs=options.epochs,
        batch_size=options.batch,
        workers=options.workers,
        clock=Clock(),
    )
    with tempfile.TemporaryDirectory() as scratch, redirect_stdout(sys.stderr):
        found = import_module(f"contestants.with_{options.only}").fit(race, Path(scratch))
    seconds = race.clock.seconds
    images = race.steps * race.batch_size
    return {
        "contestant": options.only,
        "setting": options.setting,
        "images_per_second": round(images * (len(seconds) - 1) / sum(seconds[1:]), 3),
        "epoch_seconds": [round(each, 2) for each in seconds],
        "whole_seconds": round(time.time() - psutil.Process().create_time(), 2),
        "accuracy": round(found["accuracy"], 4),
        "precision": found["precision"],
        "peak_mb": round(memory.peak()),
        "load": round(os.getloadavg()[0], 2),
    }


def measure_alone(options: argparse.Namespace, model: str, root: Path, contestant: str, setting: str) -> dict[str, Any]:
    """The same in a separate process."""
    command = [sys.executable, __file__, "--only", contestant, "--setting", setting, "--table", str(root)]
    command += ["--models", model]
    for name in ("size", "rows", "epochs", "batch", "workers"):
        command += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{contestant} failed:\n{done.stderr[-3000:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(result), file=sys.stderr, flush=True)
    return result


def race_all(options: argparse.Namespace, model: str, root: Path, contestants: list[str]) -> list[dict[str, Any]]:
    """All contestants with one network in every setting, `options.rounds` times, each round in another order."""
    measured = []
    for number in range(options.rounds):
        first = number % len(contestants)
        for setting in options.setting.split(","):
            for contestant in contestants[first:] + contestants[:first]:
                measured.append({"round": number, **measure_alone(options, model, root, contestant, setting)})
    return measured


def summarize(measured: list[dict[str, Any]], setting: str, goal: float) -> dict[str, Any]:
    """Medians and ranges of all contestants, and swinft relative to each other one, round by round."""
    mine = [line for line in measured if line["setting"] == setting]
    names = list(dict.fromkeys(line["contestant"] for line in mine))
    of = {name: sorted((x for x in mine if x["contestant"] == name), key=lambda x: x["round"]) for name in names}
    keys = ("images_per_second", "whole_seconds", "accuracy", "peak_mb")
    found: dict[str, Any] = {
        name: {"precision": of[name][0]["precision"], **{key: spread([x[key] for x in of[name]]) for key in keys}}
        for name in sorted(names)
    }
    others = [name for name in sorted(names) if name != "swinft"]
    if "swinft" not in names or not others:
        return {"contestants": found}
    faster = {name: _ratio(of["swinft"], of[name], "images_per_second") for name in others}
    sooner = {name: _ratio(of[name], of["swinft"], "whole_seconds") for name in others}
    least = min(found[name]["peak_mb"]["median"] for name in others)
    memory = round(found["swinft"]["peak_mb"]["median"] / least, 3)
    return {
        "contestants": found,
        "faster": faster,
        "sooner": sooner,
        "speed_goal": goal,
        "speed_goal_met": all(ratio["median"] >= goal for ratio in faster.values()),
        "memory_ratio": memory,
        "memory_limit": MEMORY_LIMIT,
        "memory_limit_met": memory <= MEMORY_LIMIT,
    }


def _ratio(above: list[dict[str, Any]], below: list[dict[str, Any]], key: str) -> dict[str, float]:
    """Ratios of measurements of the same round, which had about the same load."""
    return ratios([a[key] for a in above], [b[key] for b in below])


def measure_model(
    options: argparse.Namespace, model: str, root: Path, contestants: list[str], left_out: dict[str, list[str]]
) -> None:
    """Measures one network, and adds it to the earlier results."""
    host = machine()  # before any measurement: the load is of other programs
    measured = race_all(options, model, root, contestants)
    settings = {setting: summarize(measured, setting, GOALS[model][setting]) for setting in options.setting.split(",")}
    asked = {key: value for key, value in vars(options).items() if key not in ("models", "only", "table")}
    versions = {name: version(name) for name in contestants}
    result = {"machine": host, **asked, "versions": versions, "left_out": left_out, **settings, "measured": measured}
    before = read_results().get("fit", {}).get("models", {}) | {model: result}
    models = {name: before[name] for name in GOALS if name in before}
    write("fit", {"machine": host, "models": models})


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(GOALS), help="timm's names with commas between them")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--rows", type=int, default=256, help="to train on; a quarter as many more are held out")
    parser.add_argument("--batch", type=int, default=32, help="divides the rows, so that nobody drops any")
    parser.add_argument("--epochs", type=int, default=3, help="the first one is not counted as steady")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="loader processes where they are equal")
    parser.add_argument("--setting", default="equal,defaults", help="equal, defaults, or both with a comma")
    parser.add_argument("--only", choices=list(NEEDS), help="measure this one once, here, and print one line of JSON")
    parser.add_argument("--table", type=Path, help="a folder with the images; created if not given")
    options = parser.parse_args()
    if options.epochs < 2 or options.rows % options.batch:
        parser.error("at least 2 epochs, and rows that the batch divides")
    if not set(options.models.split(",")) <= set(GOALS) or (options.only and "," in options.models):
        parser.error(f"--models is {' or '.join(GOALS)}, or without --only several with commas between them")
    if not set(options.setting.split(",")) <= set(SETTINGS) or (options.only and "," in options.setting):
        parser.error("--setting is equal, defaults, or without --only both")
    return options


def main() -> None:
    """Measures, prints, writes the results."""
    options = arguments()
    missing = {name: [each for each in needs if find_spec(each) is None] for name, needs in NEEDS.items()}
    with tempfile.TemporaryDirectory() as folder:
        root = options.table or Path(folder)
        if not (root / "folds.csv").is_file():
            make_table(root, [options.rows // 4, options.rows])
        if options.only:
            print(json.dumps(measure(options, root)))
            return
        contestants = [name for name in NEEDS if not missing[name]]
        left_out = {name: lacking for name, lacking in missing.items() if lacking}
        for model in options.models.split(","):
            measure_model(options, model, root, contestants, left_out)
    for name, lacking in left_out.items():
        print(f"left out: {name}, which needs {', '.join(lacking)}")


if __name__ == "__main__":
    main()
