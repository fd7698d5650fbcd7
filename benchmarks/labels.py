"""Are wrong labels among the rows whose labels look wrong? Planted ones, found by the report's own table.

    python benchmarks/labels.py      # minutes on one core; writes results/labels.json

Of the 398 training tiles of Blue Marble, 5 % get another climate, drawn at random. The demo's config is fitted on them
by `swinft fit`, with its own network and with EfficientNet-Lite0 and its ImageNet weights; `errors.csv` then says which
rows are suspicious, and has the quality of every label. By chance, 1 of the 20 rows of lowest quality is a planted one.
"""

import csv
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from convert_lite0 import BACKBONE, convert
from measure import machine, write

ROOT = Path(__file__).parent.parent
DATA = ROOT / "competitions" / "bluemarble"
SHARE, SEED = 0.05, 19
SWIN = ["--trainer.max_epochs", "12"]
LITE0 = [
    *("--model.backbone", BACKBONE, "--model.backbone_args", "null", "--data.image_size", "128"),
    *("--trainer.max_epochs", "6", "--model.optim.head_lr", "1e-3", "--model.optim.lr", "5e-4"),
]


def plant(table: Path) -> list[str]:
    """Writes the training table with wrong labels; returns the ids of these rows."""
    with (DATA / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    random = np.random.default_rng(SEED)
    classes = sorted({row["climate"] for row in rows})
    wrong = sorted(random.choice(len(rows), round(SHARE * len(rows)), replace=False).tolist())
    for place in wrong:
        others = [name for name in classes if name != rows[place]["climate"]]
        rows[place]["climate"] = others[int(random.integers(len(others)))]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return [rows[place]["id"] for place in wrong]


def found(runs: Path, name: str, planted: list[str], table: Path, options: list[str]) -> dict[str, Any]:
    """Fits a run, and counts the planted rows in its errors.csv."""
    words = ["fit", "--config", "configs/bluemarble.yaml", "--runs", str(runs), "--name", name, *options]
    words += ["--data.train", str(table), "--predict.views", "[identity, hflip, vflip, rot90]"]
    subprocess.run([sys.executable, "-m", "swinft", *words], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    errors = pd.read_csv(runs / name / "errors.csv", dtype={"id": str})
    is_planted = errors["id"].isin(planted)
    worst = errors.sort_values("label_quality", kind="stable")["id"].head(len(planted))
    return {
        "accuracy": json.loads((runs / name / "scores.json").read_text())["pooled"]["accuracy"],
        "suspicious": int(errors["is_suspicious"].sum()),
        "planted among them": int((errors["is_suspicious"] & is_planted).sum()),
        "planted among the first": int(worst.isin(planted).sum()),
    }


def main() -> None:
    """Measures both networks, and writes what is there after each."""
    result: dict[str, Any] = {"machine": machine("cleanlab"), "rows": 0, "planted": 0, "networks": {}}
    with tempfile.TemporaryDirectory() as folder:
        runs, table = Path(folder), Path(folder) / "planted.csv"
        planted = plant(table)
        result |= {"rows": len(pd.read_csv(table)), "planted": len(planted)}
        weights = str(convert(runs / "lite0.safetensors"))
        cases = {
            "demo's Swin, from scratch": SWIN,
            "EfficientNet-Lite0, ImageNet": [*LITE0, "--model.pretrained", weights],
        }
        for number, (name, options) in enumerate(cases.items()):
            result["networks"][name] = found(runs, f"n{number}", planted, table, options)
            write("labels", result)
            print(name, result["networks"][name], flush=True)


if __name__ == "__main__":
    main()
