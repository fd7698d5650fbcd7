"""A fold's network in Python: `swinft.load(run, fold)`."""

from pathlib import Path

import torch

from swinft.data.schema import Schema
from swinft.model.network import ImageModel
from swinft.run.experiment import Experiment
from swinft.run.layout import Run


def load(run: str | Path, fold: int, device: str = "cpu", allow_code: list[str] | None = None) -> ImageModel:
    """The network that a finished fold predicts with, from its verified weights, in evaluation mode.

    `net.predict(images, features)` takes RGB pixels (B, 3, H, W) in 0–255 at the run's `data.image_size`, as the
    datamodule's loaders give them, and metadata where there is any, and gives predictions in the competition's units.
    Its attention is timm's own, so that it can be traced, exported and watched. `net.backbone.model` is timm's model,
    and `net.backbone.mean` and `std` are what its pixels are standardised with.

    Args:
        run: The run's folder.
        fold: Number of the fold.
        device: Where it goes.
        allow_code: Packages or modules whose classes the run's config may name, besides the trusted ones.

    Raises:
        InputError: There is no such run or fold, or the fold is not finished.
        StoreError: The weights are not those that the fold saved.
    """
    opened = Run.open(str(run))
    experiment = Experiment.of_run(opened, "predict", allow_code)
    schema = Schema.from_dict(opened.read_schema())
    (index,) = opened.finished_folds([fold])
    return experiment.network(schema, opened.fold(index).weights, torch.device(device), fast_attention=False)
