"""What all contestants of peers_scores.py share: tables, weights, size, epochs."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

PARTS = ("train", "valid", "test")


@dataclass(frozen=True)
class Task:
    """One fit on one data set.

    Args:
        root: Folder with `train.csv`, `valid.csv` and `test.csv`, whose columns are `id`, `image` (a path in the
            folder) and `target`. A contestant may choose its epoch on the rows of `valid`; it sees the targets of
            `test` never.
        is_regression: Whether the target is a number, not a class.
        backbone: Name in timm.
        weights: Its ImageNet weights, a .safetensors file with timm's names.
        size: Side in pixels.
        epochs: Passes over the training rows, in all.
        batch_size: Images per step.
        seed: Of the training; the rows do not depend on it.
    """

    root: Path
    is_regression: bool
    backbone: str
    weights: Path
    size: int
    epochs: int
    batch_size: int
    seed: int

    def table(self, part: str) -> pd.DataFrame:
        """The rows of a part; classes are text."""
        return pd.read_csv(
            self.root / f"{part}.csv", dtype={"id": str} | ({} if self.is_regression else {"target": str})
        )

    @cached_property
    def classes(self) -> list[str]:
        """The classes in alphabetical order, as every contestant numbers them."""
        return sorted(self.table("train")["target"].unique())

    @property
    def num_outputs(self) -> int:
        """Outputs of a network."""
        return 1 if self.is_regression else len(self.classes)

    @cached_property
    def scale(self) -> tuple[float, float]:
        """Mean and deviation of the training targets."""
        found = self.table("train")["target"]
        return float(found.mean()), float(found.std())

    def numbers(self, part: str) -> NDArray[np.generic]:
        """Targets for libraries that leave the scale to their user: standardised numbers, or class indices."""
        found = self.table(part)["target"]
        if self.is_regression:
            mean, deviation = self.scale
            return ((found - mean) / deviation).to_numpy(dtype=np.float32)
        return found.map(self.classes.index).to_numpy(dtype=np.int64)

    def score(self, predictions: NDArray[np.floating]) -> float:
        """R² of numbers (N,), or accuracy of class scores (N, K), on the rows of `test`."""
        found = self.table("test")["target"]
        if self.is_regression:
            errors = found.to_numpy() - predictions
            return 1 - float(np.square(errors).sum() / np.square(found - found.mean()).sum())
        return float(np.mean(predictions.argmax(1) == found.map(self.classes.index).to_numpy()))
