"""The bare fold of folds.py: a minimal fine-tuning script with Lightning and timm that saves nothing."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import timm
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

RATE, DECAY = 1e-4, 0.05  # swinft's defaults, like the schedule: one epoch of warm-up, then cosine
HELD_OUT = 0
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Rows(Dataset):
    """Images, resized to the size, and their classes."""

    def __init__(self, root: Path, table: pd.DataFrame, labels: list[int], transform: Callable[[Any], Tensor]) -> None:
        self.paths = [root / image for image in table["image"]]
        self.labels, self.transform = labels, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return self.transform(Image.open(self.paths[row]).convert("RGB")), self.labels[row]


class Task(pl.LightningModule):
    """A timm network, cross-entropy, AdamW."""

    def __init__(self, net: nn.Module, epochs: int, steps: int) -> None:
        super().__init__()
        self.net, self.epochs, self.steps = net, epochs, steps
        self.right: list[Tensor] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Loss of a batch."""
        images, labels = batch
        return nn.functional.cross_entropy(self.net(images), labels)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Stores which rows were right."""
        images, labels = batch
        self.right.append(self.net(images).argmax(1) == labels)

    def on_validation_epoch_end(self) -> None:
        """Logs the accuracy of all held-out rows."""
        self.log("val_accuracy", torch.cat(self.right).float().mean())
        self.right.clear()

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clips gradients; Lightning does not for a fused optimiser."""
        torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val or 1.0)

    def configure_optimizers(self) -> Any:
        """Fused AdamW, with a schedule per step."""
        optimizer = torch.optim.AdamW(self.parameters(), lr=RATE, weight_decay=DECAY, fused=True)
        total = self.steps * self.epochs

        def factor(step: int) -> float:
            if step < self.steps:
                return (step + 1) / (self.steps + 1)
            return 0.5 * (1 + float(np.cos(np.pi * min(1.0, (step - self.steps) / max(1, total - self.steps)))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def build(root: Path, backbone: str, size: int, batch: int, epochs: int) -> tuple[Task, tuple[Any, Any]]:
    """Task and loaders of the fold.

    Args:
        root: Folder that `jpegs.make_table` filled.
        backbone: Name in timm.
        size: Side in pixels.
        batch: Images per step.
        epochs: Length of the schedule.
    """
    table = pd.read_csv(root / "train.csv").merge(pd.read_csv(root / "folds.csv"))
    classes = sorted(table["climate"].unique())
    loaders = []
    for is_training in (True, False):
        rows = table[(table["fold"] != HELD_OUT) == is_training]
        flips = [transforms.RandomHorizontalFlip()] if is_training else []
        steps = [transforms.Resize((size, size)), *flips, transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
        labels = [classes.index(name) for name in rows["climate"]]
        dataset = Rows(root, rows, labels, transforms.Compose(steps))
        loaders.append(DataLoader(dataset, batch, shuffle=is_training, drop_last=is_training))
    net: Any = timm.create_model(backbone, pretrained=False, num_classes=len(classes))
    if size != net.pretrained_cfg["input_size"][-1] and hasattr(net, "set_input_size"):
        net.set_input_size(img_size=(size, size))
    return Task(net, epochs, len(loaders[0])), (loaders[0], loaders[1])
