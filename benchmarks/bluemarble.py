"""Scores of the demo's configs, and the effect of pretrained weights, by the command line.

    python benchmarks/bluemarble.py

Fits the three Blue Marble configs, then the climates once more with EfficientNet-Lite0, from scratch and from its
ImageNet weights, with otherwise equal settings. Also scores the test rows, whose labels no run uses. Run it in the
clone's root; a quarter of an hour on 2 cores. Writes benchmarks/results/bluemarble.json.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from convert_lite0 import BACKBONE, convert
from measure import machine, write

ROOT = Path(__file__).parent.parent
# Equal for both: enough epochs for the pretrained network to converge, at a size that suits its features.
LITE0 = [
    *("--model.backbone", BACKBONE, "--model.backbone_args", "null", "--data.image_size", "128"),
    *("--trainer.max_epochs", "8", "--model.optim.head_lr", "1e-3", "--model.optim.lr", "5e-4"),
    *("--data.augment", "medium"),
]


def swinft(*words: str) -> None:
    """Runs a command."""
    subprocess.run([sys.executable, "-m", "swinft", *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def run(runs: Path, config: str, name: str, *options: str) -> dict[str, object]:
    """Fits, predicts and submits one config; returns its scores."""
    words = ["--config", f"configs/{config}.yaml", "--runs", str(runs), "--name", name, *options]
    swinft("fit", *words)
    swinft("predict", str(runs / name))
    swinft("submit", str(runs / name))
    scores = json.loads((runs / name / "scores.json").read_text())
    environment = json.loads((runs / name / "environment.json").read_text())
    return {
        "pooled": scores["pooled"],
        "spread": scores["spread"],
        "precision": environment["precision"],
        "test": test_score(runs / name / "submission.csv"),
    }


def test_score(submission: Path) -> dict[str, float]:
    """Accuracy, R² or mean column AUC of a submission on the held-out regions."""
    from sklearn.metrics import r2_score, roc_auc_score

    solution = pd.read_csv(ROOT / "competitions" / "bluemarble" / "solution.csv").set_index("id")
    answer = pd.read_csv(submission).set_index("id")
    truth = solution.loc[answer.index, answer.columns]
    if "climate" in answer:
        return {"accuracy": float((truth["climate"] == answer["climate"]).mean())}
    if "abs_latitude" in answer:
        return {"r2": float(r2_score(truth, answer))}
    return {"mean_column_auc": float(roc_auc_score(truth, answer))}


def help_seconds() -> float:
    """Seconds of one `swinft --help`."""
    started = time.perf_counter()
    swinft("--help")
    return time.perf_counter() - started


def main() -> None:
    """Runs everything and writes the results."""
    results, about = {}, machine()
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder)
        weights = str(convert(runs / "lite0.safetensors"))
        for config in ("bluemarble", "bluemarble_latitude", "bluemarble_labels"):
            results[config] = run(runs, config, config)
        results["climates, EfficientNet-Lite0 from scratch"] = run(runs, "bluemarble", "scratch", *LITE0)
        results["climates, EfficientNet-Lite0 from ImageNet"] = run(
            runs, "bluemarble", "imagenet", *LITE0, "--model.pretrained", weights
        )
    help_median = round(float(np.median([help_seconds() for _ in range(11)])), 3)
    write("bluemarble", {"machine": about, "help_seconds": help_median, "runs": results})


if __name__ == "__main__":
    main()
