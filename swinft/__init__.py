"""swinft: fine-tune Swin, or any timm backbone, on a CSV of images.

`swinft.fit` and `swinft.open_run` give a run in Python; `CSVDataModule` and `FineTuneTask` are for Lightning's own
Trainer. `docs/code.md` names every module in reading order.

The public names below are imported on first use: `import swinft` itself is fast, and changes only one environment
variable in the program that imports it.
"""

import importlib
import os
from typing import Any

# By default, importing albumentations asks the package index for updates.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

_PUBLIC = {
    "CSVDataModule": "swinft.data.datamodule",
    "Columns": "swinft.data.columns",
    "FoldConfig": "swinft.data.fold_settings",
    "LoadingConfig": "swinft.data.settings",
    "RowImages": "swinft.data.row_images",
    "DataError": "swinft.data.tables.table",
    "TableStep": "swinft.data.tables.steps.step",
    "read_table": "swinft.data.tables.steps.make",
    "Schema": "swinft.data.schema",
    "Target": "swinft.data.target.base",
    "TargetCells": "swinft.data.target.base",
    "Classification": "swinft.data.target.classification",
    "Regression": "swinft.data.target.regression",
    "Multilabel": "swinft.data.target.multilabel",
    "Segmentation": "swinft.data.target.segmentation",
    "TileConfig": "swinft.data.masks.tiles",
    "Sampler": "swinft.data.sampling",
    "TrainingRows": "swinft.data.sampling",
    "BalancedSampler": "swinft.data.sampling",
    "RatioSampler": "swinft.data.sampling",
    "WeightedSampler": "swinft.data.sampling",
    "RandAugment": "swinft.data.augment.policies",
    "TrivialAugment": "swinft.data.augment.policies",
    "AugMix": "swinft.data.augment.policies",
    "Source": "swinft.data.sources.source",
    "FileSource": "swinft.data.sources.files",
    "ZipSource": "swinft.data.sources.zip",
    "HDF5Source": "swinft.data.sources.hdf5",
    "ColumnSource": "swinft.data.sources.column",
    "InputError": "swinft.errors",
    "RunError": "swinft.errors",
    "FineTuneTask": "swinft.model.task",
    "ImageModel": "swinft.model.network",
    "Head": "swinft.model.heads",
    "Metric": "swinft.model.metrics",
    "View": "swinft.inference.tta",
    "Tracker": "swinft.run.trackers.tracker",
    "WandbTracker": "swinft.run.trackers.weights_and_biases",
    "TensorBoardTracker": "swinft.run.trackers.event_files",
    "MLflowTracker": "swinft.run.trackers.mlflow_runs",
    "TrackioTracker": "swinft.run.trackers.trackio_runs",
    "SubmissionFormat": "swinft.run.submission.formats",
    "Rule": "swinft.inference.rules.rule",
    "FittedRule": "swinft.inference.rules.fitted",
    "Loss": "swinft.model.heads",
    "ClassificationHead": "swinft.model.heads",
    "RegressionHead": "swinft.model.heads",
    "SegmentationHead": "swinft.model.heads",
    "SoftmaxSegmentationHead": "swinft.model.heads",
    "MultilabelHead": "swinft.model.heads",
    "ArcFaceHead": "swinft.model.heads",
    "LabelDistributionHead": "swinft.model.heads",
    "OrdinalHead": "swinft.model.heads",
    "OrdinalRegressionHead": "swinft.model.heads",
    "AsymmetricLoss": "swinft.model.heads",
    "BalancedSoftmaxLoss": "swinft.model.heads",
    "BiTemperedLoss": "swinft.model.heads",
    "ClassBalancedLoss": "swinft.model.heads",
    "ConcordanceLoss": "swinft.model.heads",
    "DiceLoss": "swinft.model.heads",
    "FocalLoss": "swinft.model.heads",
    "FocalMaskLoss": "swinft.model.heads",
    "HuberLoss": "swinft.model.heads",
    "KLLoss": "swinft.model.heads",
    "LovaszLoss": "swinft.model.heads",
    "PearsonLoss": "swinft.model.heads",
    "PolyLoss": "swinft.model.heads",
    "R2Loss": "swinft.model.heads",
    "SigmoidFocalLoss": "swinft.model.heads",
    "SigmoidPolyLoss": "swinft.model.heads",
    "SoftmaxDiceLoss": "swinft.model.heads",
    "SoftmaxFocalMaskLoss": "swinft.model.heads",
    "SoftmaxLovaszLoss": "swinft.model.heads",
    "OptimConfig": "swinft.model.training.optim",
    "ComputeConfig": "swinft.model.settings",
    "TaskContext": "swinft.model.settings",
    "Pooling": "swinft.model.pooling",
    "GatedAttentionPooling": "swinft.model.pooling",
    "GeMPooling": "swinft.model.pooling",
    "StagesPooling": "swinft.model.pooling",
    "PoolingConfig": "swinft.model.fusion",
    "Fusion": "swinft.model.fusion",
    "MixConfig": "swinft.model.training.mixup",
    "EMAConfig": "swinft.model.training.ema",
    "FreezeConfig": "swinft.model.training.freezing",
    "LoRAConfig": "swinft.model.training.lora",
    "SizeStage": "swinft.model.training.sizes",
    "Teacher": "swinft.model.training.distillation",
    "download": "swinft.kaggle.download",
    "Comparison": "swinft.run.compare.command",
    "compare": "swinft.run.compare.command",
    "create_backbone": "swinft.model.backbones.timm_backbone",
    "export": "swinft.run.export",
    "Predictions": "swinft.inference.predictions",
    "Run": "swinft.run.api",
    "bundle": "swinft.kaggle.bundle.make",
    "embed": "swinft.run.embed.command",
    "ensemble": "swinft.run.ensemble.command",
    "explain": "swinft.run.explain.command",
    "find": "swinft.run.api",
    "fit": "swinft.run.api",
    "lab": "swinft.laboratory.command",
    "Inspection": "swinft.architecture.command",
    "inspect": "swinft.architecture.command",
    "new": "swinft.propose.command",
    "open_run": "swinft.run.api",
    "runs": "swinft.kaggle.ledger",
    "tune": "swinft.tuning.command",
    "upload": "swinft.kaggle.upload",
}
__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("swinft.versions").VERSION
    if name not in _PUBLIC:
        raise AttributeError(f"module 'swinft' has no attribute '{name}'")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *_PUBLIC]
