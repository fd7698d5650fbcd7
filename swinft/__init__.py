"""swinft: fine-tune Swin, or any timm backbone, on a CSV of images.

The package in reading order:

- `data/table` a CSV becomes a checked table, `data/schema` cells become numbers, `data/folds` rows become folds,
  `data/images` a file becomes pixels, `data/augment` pixels become training pixels, `data/batches` and
  `data/datamodule` all of them become batches;
- `model/backbone` an image becomes features, `model/metadata` columns do, `model/heads` features become predictions,
  `model/network` is all three, `model/metrics` scores, `model/mix`, `model/optim` and `model/ema` are the training
  recipe, `model/task` puts them into Lightning;
- `run/config` a YAML is checked, `run/prepare` a run is frozen, `run/fit` folds become out-of-fold predictions and a
  score, `run/predict` checkpoints become test predictions, `run/submit` predictions become a file for Kaggle,
  `run/report` a run becomes a page, `run/store` and `run/layout` keep it all on disk;
- `cli` the commands.

The public names below are imported when they are first used: `import swinft` itself costs nothing, and changes nothing
in the program that imports it but one environment variable.
"""

import importlib
import importlib.metadata
import os
from typing import Any

# albumentations asks the package index for updates when it is imported, unless it is told not to.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

_PUBLIC = {
    "CSVDataModule": "swinft.data.datamodule",
    "Columns": "swinft.data.columns",
    "FoldConfig": "swinft.data.settings",
    "LoadingConfig": "swinft.data.settings",
    "DataError": "swinft.data.tables.table",
    "Schema": "swinft.data.schema",
    "InputError": "swinft.errors",
    "RunError": "swinft.errors",
    "FineTuneTask": "swinft.model.task",
    "ImageModel": "swinft.model.network",
    "Head": "swinft.model.heads",
    "Metric": "swinft.model.metrics",
    "Loss": "swinft.model.heads",
    "ClassificationHead": "swinft.model.heads",
    "RegressionHead": "swinft.model.heads",
    "MultilabelHead": "swinft.model.heads",
    "OptimConfig": "swinft.model.training.optim",
    "MixConfig": "swinft.model.training.mixup",
    "create_backbone": "swinft.model.backbones.timm_backbone",
    "export": "swinft.run.export",
    "Predictions": "swinft.inference.predictions",
    "Run": "swinft.run.api",
    "fit": "swinft.run.api",
    "open_run": "swinft.run.api",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.metadata.version("swinft")
    if name not in _PUBLIC:
        raise AttributeError(f"module 'swinft' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
