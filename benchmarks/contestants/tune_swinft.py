"""swinft, fine-tuning with its defaults, by its command line."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from in_process import command
from numpy.typing import NDArray

from contestants.task import Task

OPTIONS: list[str] = []  # more words for `swinft fit`, of peers_scores.py


def predict(task: Task, scratch: Path) -> NDArray[np.floating]:
    """Fits, and predicts the rows of `test`."""
    table = pd.concat([task.table("train").assign(fold=1), task.table("valid").assign(fold=0)])
    table.drop(columns="fold").to_csv(scratch / "train.csv", index=False)
    table[["id", "fold"]].to_csv(scratch / "folds.csv", index=False)
    task.table("test").drop(columns="target").to_csv(scratch / "test.csv", index=False)
    file = scratch / "config.yaml"
    file.write_text(yaml.safe_dump(_config(task, scratch)))
    for words in (
        ["fit", "--config", str(file), "--fold", "0", *OPTIONS],
        ["predict", str(scratch / "fit"), "--folds", "[0]"],
    ):
        (scratch / f"{words[0]}.log").write_text(command(*words))
    found = pd.read_csv(scratch / "fit" / "test_predictions.csv", dtype={"id": str}).set_index("id")
    found = found.loc[task.table("test")["id"]]
    return (found.iloc[:, 0] if task.is_regression else found[task.classes]).to_numpy(dtype=float)


def _config(task: Task, scratch: Path) -> dict[str, Any]:
    """The shortest config."""
    head = "swinft.RegressionHead" if task.is_regression else "swinft.ClassificationHead"
    return {
        "name": "fit",
        "runs": str(scratch),
        "seed": task.seed,
        "data": {
            "root": str(task.root),
            "train": str(scratch / "train.csv"),
            "test": str(scratch / "test.csv"),
            "image": "{image}",
            "target": "target",
            "target_kind": "regression" if task.is_regression else "classification",
            "folds": {"file": str(scratch / "folds.csv")},
            "loading": {"follow_links": True},  # to the images of an installed package
            "image_size": task.size,
            "batch_size": task.batch_size,
        },
        "model": {
            "backbone": task.backbone,
            "pretrained": str(task.weights),
            "head": {"class_path": head},
            "metrics": ["r2" if task.is_regression else "accuracy"],
        },
        "trainer": {"max_epochs": task.epochs, "accelerator": "cpu", "precision": "32-true"},
    }
