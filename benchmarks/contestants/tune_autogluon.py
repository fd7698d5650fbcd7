"""AutoGluon: its MultiModalPredictor, with the preset that it has for small convolutional networks.

It averages the epochs that help on the rows of `valid`, which it calls tuning data.
"""

import json
import logging
from pathlib import Path

import numpy as np
import timm
import torch
from autogluon.multimodal import MultiModalPredictor
from numpy.typing import NDArray
from safetensors.torch import load_file

from contestants.task import Task

logging.getLogger("autogluon").setLevel(logging.ERROR)


def predict(task: Task, scratch: Path) -> NDArray[np.floating]:
    """Fits, and predicts the rows of `test`."""
    tables = {
        part: task.table(part).assign(image=lambda rows: [str(task.root / each) for each in rows["image"]])
        for part in ("train", "valid", "test")
    }
    train, valid, test = (table.drop(columns="id") for table in tables.values())
    predictor = MultiModalPredictor(
        label="target",
        problem_type="regression" if task.is_regression else "multiclass",
        path=str(scratch / "fit"),
        verbosity=0,
    )
    options = {
        "model.names": ["timm_image"],
        "model.timm_image.checkpoint_name": str(_checkpoint(task, scratch / "weights")),
        "model.timm_image.image_size": task.size,
        "optim.max_epochs": task.epochs,
        "env.batch_size": task.batch_size,
        "env.per_gpu_batch_size": task.batch_size,
        "env.num_workers": 0,
        "env.num_workers_inference": 0,
        "env.accelerator": "cpu",
        "env.num_gpus": 0,
    }
    types = {"image": "image_path"}
    predictor.fit(train, "medium_quality", valid, hyperparameters=options, column_types=types, seed=task.seed)
    if task.is_regression:
        return np.asarray(predictor.predict(test.drop(columns="target"))).flatten()
    return predictor.predict_proba(test.drop(columns="target"))[task.classes].to_numpy()


def _checkpoint(task: Task, folder: Path) -> Path:
    """The weights as AutoGluon reads them from a folder, with its name for the normalisation."""
    folder.mkdir()
    net = timm.create_model(task.backbone, num_classes=0)
    net.load_state_dict(load_file(task.weights), strict=False)
    torch.save(net.state_dict(), folder / "pytorch_model.bin")
    config = {key: value for key, value in net.pretrained_cfg.items() if isinstance(value, str | int | float | tuple)}
    about = {"architecture": task.backbone, "num_features": net.num_features, "pretrained_cfg": config}
    (folder / "config.json").write_text(json.dumps(about))
    return folder
