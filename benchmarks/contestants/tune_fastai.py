"""fastai, as in its quick start: `vision_learner` and `fine_tune`.

Of the epochs, the first has a frozen body, as in `fine_tune`. It keeps the last epoch.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from fastai.callback.schedule import Learner  # noqa: F401  # adds `fine_tune` to it
from fastai.data.block import CategoryBlock, RegressionBlock
from fastai.vision.augment import Resize
from fastai.vision.data import ImageDataLoaders
from fastai.vision.learner import vision_learner
from numpy.typing import NDArray

from contestants.task import Task


def predict(task: Task, scratch: Path) -> NDArray[np.floating]:
    """Fits, and predicts the rows of `test`."""
    torch.manual_seed(task.seed)
    parts = [
        task.table(part).assign(target=task.numbers(part), is_valid=part == "valid") for part in ("train", "valid")
    ]
    loaders: Any = ImageDataLoaders.from_df(
        pd.concat(parts),
        path=task.root,
        fn_col="image",
        label_col="target",
        valid_col="is_valid",
        y_block=RegressionBlock() if task.is_regression else CategoryBlock(vocab=range(task.num_outputs)),
        item_tfms=Resize(task.size),
        bs=task.batch_size,
        seed=task.seed,
        num_workers=0,
        device=torch.device("cpu"),
    )
    weights = {"file": str(task.weights)}
    options = {"y_range": _range(task)} if task.is_regression else {}
    learner = vision_learner(
        loaders, task.backbone, n_out=task.num_outputs, path=scratch, pretrained_cfg_overlay=weights, **options
    )
    with learner.no_bar(), learner.no_logging():
        learner.fine_tune(task.epochs - 1)
        found = learner.get_preds(dl=learner.dls.test_dl([task.root / image for image in task.table("test")["image"]]))[
            0
        ]
    if task.is_regression:
        mean, deviation = task.scale
        return found.flatten().numpy() * deviation + mean
    return found.numpy()


def _range(task: Task) -> tuple[float, float]:
    """The range of outputs, which fastai's guide sets for numbers: a little wider than that of the targets."""
    targets = task.numbers("train")
    margin = 0.05 * float(np.ptp(targets))
    return float(targets.min()) - margin, float(targets.max()) + margin
