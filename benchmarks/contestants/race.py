"""What all contestants share: table, network, settings, timer."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import timm
import torch

SMALLEST_CROP = 0.5  # of the image's area, in the equal setting
LEARNING_RATE = 3e-4
WEIGHT_DECAY = 0.05
CLIP = 1.0
SEED = 42


@dataclass
class Clock:
    """Seconds of each training epoch, from before its loader starts to the end of its last step."""

    seconds: list[float] = field(default_factory=list)
    _started: float = 0.0

    def start(self) -> None:
        """Called at the start of an epoch."""
        self.seconds.append(0.0)
        self._started = time.perf_counter()

    def step(self) -> None:
        """Called after a step; the last one ends the epoch, so that validation and saving are not counted."""
        self.seconds[-1] = time.perf_counter() - self._started


@dataclass(frozen=True)
class Race:
    """One measurement.

    Args:
        root: Folder that `jpegs.make_table` filled; fold 0 is held out, fold 1 is trained on.
        is_equal: Whether all have the same precision, crops, loader workers, optimiser and schedule, not their
            defaults.
        is_bf16: Precision of the equal setting: bf16 autocast, else fp32.
        backbone: Name in timm.
        size: Side in pixels.
        epochs: At least 2: the first one is a warm-up.
        batch_size: Images per step; divides the number of training rows.
        workers: Loader processes of the equal setting.
        clock: Measures the epochs.
    """

    root: Path
    is_equal: bool
    is_bf16: bool
    backbone: str
    size: int
    epochs: int
    batch_size: int
    workers: int
    clock: Clock

    @property
    def table(self) -> pd.DataFrame:
        """The rows with their folds."""
        return pd.read_csv(self.root / "train.csv").merge(pd.read_csv(self.root / "folds.csv"))

    @property
    def classes(self) -> list[str]:
        """The classes in alphabetical order, as all contestants number them."""
        return sorted(self.table["climate"].unique())

    @property
    def steps(self) -> int:
        """Steps of an epoch."""
        return int((self.table["fold"] == 1).sum()) // self.batch_size

    def autocast(self) -> torch.autocast:
        """Precision of the equal setting."""
        return torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.is_equal and self.is_bf16)

    def network(self) -> Any:
        """The network with random weights."""
        torch.manual_seed(SEED)
        net = timm.create_model(self.backbone, pretrained=False, num_classes=len(self.classes))
        if self.size != net.pretrained_cfg["input_size"][-1] and hasattr(net, "set_input_size"):
            net.set_input_size(img_size=(self.size, self.size))
        return net
