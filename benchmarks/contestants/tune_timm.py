"""timm: its datasets, loaders, optimisers and schedules, in the loop of its `train.py`, with its default settings.

The parser of `train.py` is not part of the package; its values are written below. It trains classes only, and keeps the
epoch with the best accuracy.
"""

import copy
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from timm.data import create_loader, resolve_data_config
from timm.loss import LabelSmoothingCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch import nn

from contestants.task import Task

RATE, RATE_BATCH = 0.1, 256  # --lr-base, --lr-base-size
DECAY = 2e-5  # --weight-decay, of --opt sgd with --momentum 0.9
SMOOTHING = 0.1
SCHEDULE: dict[str, Any] = {"sched": "cosine", "warmup_epochs": 5, "warmup_lr": 1e-5, "min_lr": 0}
INTERPOLATION = "random"  # --train-interpolation


class Rows(torch.utils.data.Dataset):
    """The rows of a part, for timm's loader, which sets `transform`."""

    def __init__(self, task: Task, part: str) -> None:
        self.paths = [task.root / image for image in task.table(part)["image"]]
        self.targets = task.numbers(part)
        self.transform: Any = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        return self.transform(Image.open(self.paths[row]).convert("RGB")), self.targets[row]


def predict(task: Task, scratch: Path) -> NDArray[np.floating]:
    """Fits, and predicts the rows of `test`."""
    timm.utils.random_seed(task.seed)
    weights = {"file": str(task.weights)}
    net = timm.create_model(
        task.backbone, pretrained=True, num_classes=task.num_outputs, pretrained_cfg_overlay=weights
    )
    train, valid, test = (_loader(task, net, part) for part in ("train", "valid", "test"))
    criterion = LabelSmoothingCrossEntropy(SMOOTHING)
    optimizer = create_optimizer_v2(
        net, "sgd", lr=RATE * task.batch_size / RATE_BATCH, weight_decay=DECAY, momentum=0.9
    )
    scheduler, _ = create_scheduler_v2(optimizer, num_epochs=task.epochs, updates_per_epoch=len(train), **SCHEDULE)
    best, kept = -np.inf, net.state_dict()
    for epoch in range(task.epochs):
        net.train()
        for images, targets in train:
            loss = criterion(net(images), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        scheduler.step(epoch + 1)
        accuracy = np.mean(_outputs(net, valid).argmax(1) == task.numbers("valid"))
        if accuracy > best:
            best, kept = accuracy, copy.deepcopy(net.state_dict())
    net.load_state_dict(kept)
    return _outputs(net, test)


def _loader(task: Task, net: nn.Module, part: str) -> Any:
    data = resolve_data_config({"input_size": (3, task.size, task.size)}, model=net)
    is_training = part == "train"
    return create_loader(
        Rows(task, part),
        input_size=data["input_size"],
        batch_size=task.batch_size,
        is_training=is_training,
        use_prefetcher=False,
        interpolation=INTERPOLATION if is_training else data["interpolation"],
        mean=data["mean"],
        std=data["std"],
        crop_pct=data["crop_pct"],
        num_workers=0,
        device=torch.device("cpu"),
    )


@torch.inference_mode()
def _outputs(net: nn.Module, loader: Any) -> NDArray[np.floating]:
    net.eval()
    return np.concatenate([net(images).numpy() for images, _ in loader])
