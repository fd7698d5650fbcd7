"""fastai: its ImageDataLoaders, Learner and one-cycle schedule, around the same timm network."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from fastai.callback.core import Callback
from fastai.callback.schedule import Learner  # with its `fit_one_cycle`
from fastai.callback.training import GradientClip
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import accuracy
from fastai.optimizer import Adam
from fastai.vision.augment import FlipItem, RandomResizedCrop, Resize
from fastai.vision.core import imagenet_stats
from fastai.vision.data import ImageDataLoaders, Normalize

from contestants import race as rules


class Stopwatch(Callback):
    """Notifies the race's timer."""

    def __init__(self, clock: rules.Clock) -> None:
        self.clock = clock

    def before_train(self) -> None:
        """Called at the start of an epoch."""
        self.clock.start()

    def after_batch(self) -> None:
        """Called after a step, also of validation."""
        if self.training:
            self.clock.step()


class Autocast(Callback):
    """bf16 autocast; fastai's own MixedPrecision is only for CUDA."""

    def __init__(self, race: rules.Race) -> None:
        self.race = race

    def before_batch(self) -> None:
        """Called before the forward pass."""
        self.context = self.race.autocast()
        self.context.__enter__()

    def after_loss(self) -> None:
        """Called after the loss: the backward pass is outside autocast."""
        self.context.__exit__(None, None, None)


class Crop(RandomResizedCrop):
    """Resizes held-out images without cropping, like the others; fastai's default crops."""

    def before_call(self, b: Any, split_idx: int) -> None:
        """Draws the random crop of a training image."""
        super().before_call(b, split_idx)
        if split_idx:
            self.final_size = self.size


def fit(race: rules.Race, scratch: Path) -> dict[str, Any]:
    """Fits and scores.

    Args:
        race: What to fit.
        scratch: A temporary folder.

    Returns:
        Accuracy on the held-out rows, and the precision.
    """
    loaders = _loaders(race)
    callbacks: list[Callback] = [Stopwatch(race.clock)]
    options: dict[str, Any] = {}
    if race.is_equal:
        callbacks += [Autocast(race), GradientClip(rules.CLIP)]
        options = {"opt_func": partial(Adam, sqr_mom=0.999), "wd": rules.WEIGHT_DECAY}
    learner = Learner(
        loaders,
        race.network(),
        loss_func=CrossEntropyLossFlat(),
        metrics=accuracy,
        path=scratch,
        cbs=callbacks,
        **options,
    )
    with learner.no_bar(), learner.no_logging():
        if race.is_equal:
            warmup = 1 / race.epochs
            learner.fit_one_cycle(race.epochs, rules.LEARNING_RATE, pct_start=warmup, moms=(0.9, 0.9, 0.9))
        else:
            learner.fit_one_cycle(race.epochs)
    score = float(learner.recorder.values[-1][-1])
    return {"accuracy": score, "precision": "bf16" if race.is_equal and race.is_bf16 else "fp32"}


def _loaders(race: rules.Race) -> ImageDataLoaders:
    table = race.table.assign(is_valid=lambda rows: rows["fold"] == 0)
    options: dict[str, Any] = {"item_tfms": Resize(race.size)}
    if race.is_equal:
        crop = Crop(race.size, min_scale=rules.SMALLEST_CROP)
        options = {"item_tfms": [crop, FlipItem(0.5)], "num_workers": race.workers}
    return ImageDataLoaders.from_df(
        table,
        path=race.root,
        fn_col="image",
        label_col="climate",
        valid_col="is_valid",
        batch_tfms=Normalize.from_stats(*imagenet_stats, cuda=False),
        bs=race.batch_size,
        val_bs=race.batch_size,
        device=torch.device("cpu"),
        **options,
    )
