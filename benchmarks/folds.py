"""Compares five folds by `swinft fit` with one bare fold of a plain Lightning module.

    python benchmarks/folds.py                   # swin_tiny at 224 px; about 25 minutes a round on 2 cores
    python benchmarks/folds.py --rows 40 --epochs 1 --rounds 1 --batch 16 --backbone resnet18 --size 64

Both train on the same rows of the same JPEGs with the same network, batch, epochs, precision, flips and optimiser, and
both validate after every epoch. swinft also scans all images, saves every epoch, predicts out of fold, draws the
report, and starts a process per fold. The bare fold is fold 0 and saves nothing. The goal compares whole commands,
including start-up; the start-up times, and the ratio to the bare fold without its start-up, are also recorded. Writes
benchmarks/results/folds.json.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import yaml
from jpegs import make_table
from measure import machine, write

from swinft.system.precision import cpu_is_faster_in_bf16

FOLDS = 5
GOAL = 5.1
STEADY_SECONDS = 60  # a shorter bare fold would mostly measure imports


def fit_bare(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """One fold by a plain Lightning module in this process."""
    import bare
    import lightning.pytorch as pl

    pl.seed_everything(42, verbose=False)
    trainer = pl.Trainer(
        max_epochs=options.epochs,
        accelerator="cpu",
        precision="bf16-mixed" if cpu_is_faster_in_bf16() else "32-true",
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    task, loaders = bare.build(root, options.backbone, options.size, options.batch, options.epochs)
    started = time.time()
    trainer.fit(task, *loaders)
    ended = time.time()
    return {
        "start_seconds": round(started - psutil.Process().create_time(), 2),
        "fit_seconds": round(ended - started, 2),
        "accuracy": round(float(trainer.callback_metrics["val_accuracy"]), 4),
    }


def measure_bare(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    """The same as a command."""
    command = [sys.executable, __file__, "--bare", "--table", str(root)]
    for name in ("backbone", "size", "epochs", "batch"):
        command += [f"--{name}", str(getattr(options, name))]
    seconds, output = _timed(command)
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return {"seconds": seconds, **found}


def measure_swinft(options: argparse.Namespace, root: Path, runs: Path) -> dict[str, Any]:
    """All folds by `swinft fit`."""
    config = runs / "config.yaml"
    config.write_text(yaml.safe_dump(_config(options, root, runs)))
    seconds, _ = _timed([sys.executable, "-m", "swinft", "fit", "--config", str(config)])
    run = runs / "folds"
    scores = json.loads((run / "scores.json").read_text())
    epochs = [[json.loads(line)["seconds"] for line in file.read_text().splitlines()] for file in _metrics(run)]
    assert len(epochs) == FOLDS
    return {
        "seconds": seconds,
        "fold_seconds": [round(sum(fold), 2) for fold in epochs],  # training and validation, without saving
        "beside_seconds": round(seconds - sum(map(sum, epochs)), 2),  # start-up, checks, saving, predictions, report
        "accuracy": scores["pooled"]["accuracy"],
    }


def _metrics(run: Path) -> list[Path]:
    return sorted(run.glob("fold_*/metrics.jsonl"))


def _timed(command: list[str]) -> tuple[float, str]:
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return round(seconds, 2), done.stdout


def _config(options: argparse.Namespace, root: Path, runs: Path) -> dict[str, Any]:
    return {
        "name": "folds",
        "runs": str(runs),
        "data": {
            "root": str(root),
            "train": "train.csv",
            "image": "{image}",
            "target": "climate",
            "target_kind": "classification",
            "folds": {"file": str(root / "folds.csv")},
            "image_size": options.size,
            "batch_size": options.batch,
        },
        "model": {
            "backbone": options.backbone,
            "pretrained": False,
            "head": {"class_path": "swinft.ClassificationHead"},
            "metrics": ["accuracy"],
        },
        "trainer": {
            "max_epochs": options.epochs,
            "accelerator": "cpu",
            "precision": "bf16-mixed" if cpu_is_faster_in_bf16() else "32-true",
        },
    }


def summarize(pairs: list[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, Any]:
    """Ratios, round by round, of swinft's folds to the bare one."""
    whole = [swinft["seconds"] / bare["seconds"] for swinft, bare in pairs]
    without_start = [swinft["seconds"] / bare["fit_seconds"] for swinft, bare in pairs]
    training = [sum(swinft["fold_seconds"]) / bare["fit_seconds"] for swinft, bare in pairs]
    ratio = round(statistics.median(whole), 3)
    shortest = min(bare["fit_seconds"] for _, bare in pairs)
    return {
        "ratio": ratio,
        "spread": [round(min(whole), 3), round(max(whole), 3)],
        "goal": GOAL,
        "met": ratio <= GOAL,
        "long_enough": shortest >= STEADY_SECONDS,
        "ratio to the bare fold without its start": round(statistics.median(without_start), 3),
        "ratio of epochs alone": round(statistics.median(training), 3),
        "medians, s": {
            "swinft": {
                "whole": statistics.median(swinft["seconds"] for swinft, _ in pairs),
                "epochs": statistics.median(sum(swinft["fold_seconds"]) for swinft, _ in pairs),
                "all else": statistics.median(swinft["beside_seconds"] for swinft, _ in pairs),
            },
            "bare": {
                "whole": statistics.median(bare["seconds"] for _, bare in pairs),
                "epochs": statistics.median(bare["fit_seconds"] for _, bare in pairs),
                "all else": statistics.median(bare["start_seconds"] for _, bare in pairs),
            },
        },
    }


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="swin_tiny_patch4_window7_224")
    parser.add_argument("--size", type=int, default=224, help="pixels")
    parser.add_argument("--rows", type=int, default=480, help="a fifth of them are held out in each fold")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bare", action="store_true", help="the bare fold once, here; prints one line of JSON")
    parser.add_argument("--table", type=Path, help="a folder with the images; created if not given")
    options = parser.parse_args()
    if options.rows % FOLDS or options.rows // FOLDS * (FOLDS - 1) % options.batch:
        parser.error(f"{FOLDS - 1} fifths of the rows must be whole batches, so that nobody drops any")
    return options


def main() -> None:
    """Measures, prints, writes the results."""
    options = arguments()
    with tempfile.TemporaryDirectory() as folder:
        root = options.table or Path(folder)
        if not (root / "folds.csv").is_file():
            make_table(root, [options.rows // FOLDS] * FOLDS)
        if options.bare:
            print(json.dumps(fit_bare(options, root)))
            return
        host = machine()
        pairs = []
        for number in range(options.rounds):
            with tempfile.TemporaryDirectory() as runs:
                if number % 2:  # in turns: the second one runs on a warm machine
                    bare = measure_bare(options, root)
                    swinft = measure_swinft(options, root, Path(runs))
                else:
                    swinft = measure_swinft(options, root, Path(runs))
                    bare = measure_bare(options, root)
            pairs.append((swinft, bare))
            print(json.dumps({"swinft": swinft, "bare": bare, "load": os.getloadavg()[0]}), file=sys.stderr, flush=True)
    summary = summarize(pairs)
    asked = {key: value for key, value in vars(options).items() if key not in ("bare", "table")}
    rounds = [{"swinft": swinft, "bare": bare} for swinft, bare in pairs]
    write("folds", {"machine": host, **asked, **summary, "measured": rounds})


if __name__ == "__main__":
    main()
