"""swinft, by its command line."""

import json
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import yaml

from contestants import race as rules
from swinft.cli import main as swinft


class Stopwatch(pl.Callback):
    """A custom callback, named in the config."""

    race: rules.Race

    def on_train_epoch_start(self, *_: Any) -> None:
        """Called at the start of an epoch."""
        self.race.clock.start()

    def on_train_batch_end(self, *_: Any) -> None:
        """Called after a step."""
        self.race.clock.step()


def fit(race: rules.Race, scratch: Path) -> dict[str, Any]:
    """Fits and scores.

    Args:
        race: What to fit.
        scratch: A temporary folder.

    Returns:
        Accuracy on the held-out rows, and the chosen precision.
    """
    Stopwatch.race = race
    file = scratch / "config.yaml"
    file.write_text(yaml.safe_dump(_config(race, scratch)))
    code = swinft(["fit", "--config", str(file), "--fold", "0", "--allow-code", "contestants"])
    if code:
        raise RuntimeError(f"swinft ended with {code}")
    run = scratch / "fit"
    result = json.loads((run / "fold_0" / "result.json").read_text())
    environment = json.loads((run / "environment.json").read_text())
    return {"accuracy": result["oof"]["accuracy"], "precision": environment["precision"]}


def _config(race: rules.Race, scratch: Path) -> dict[str, Any]:
    """The shortest config for the defaults, plus the keys of the equal setting."""
    config: dict[str, Any] = {
        "name": "fit",
        "runs": str(scratch),
        "data": {
            "root": str(race.root),
            "train": "train.csv",
            "image": "{image}",
            "target": "climate",
            "target_kind": "classification",
            "folds": {"file": str(race.root / "folds.csv")},
            "image_size": race.size,
            "batch_size": race.batch_size,
        },
        "model": {
            "backbone": race.backbone,
            "pretrained": False,
            "head": {"class_path": "swinft.ClassificationHead"},
            "metrics": ["accuracy"],
        },
        "trainer": {
            "max_epochs": race.epochs,
            "accelerator": "cpu",
            "callbacks": [{"class_path": f"{__name__}.Stopwatch"}],
        },
    }
    if race.is_equal:
        crop = {"size": [race.size, race.size], "scale": [rules.SMALLEST_CROP, 1.0]}
        config["data"]["loading"] = {"num_workers": race.workers}
        config["data"]["augment"] = [
            {"class_path": "albumentations.RandomResizedCrop", "init_args": crop},
            {"class_path": "albumentations.HorizontalFlip"},
        ]
        config["model"]["optim"] = {"lr": rules.LEARNING_RATE, "weight_decay": rules.WEIGHT_DECAY, "min_lr_ratio": 0.0}
        config["trainer"]["precision"] = "bf16-mixed" if race.is_bf16 else "32-true"
        config["trainer"]["gradient_clip_val"] = rules.CLIP
    return config
