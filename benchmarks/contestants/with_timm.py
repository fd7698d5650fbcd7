"""timm: its datasets, loaders, optimisers and schedules, in the loop of its `train.py`."""

from pathlib import Path
from typing import Any

import torch
from timm.data import create_dataset, create_loader
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import dispatch_clip_grad
from torch import nn

from contestants import race as rules

DEFAULT_WORKERS = 4  # of train.py, as are the next four
DEFAULT_RATE = 0.1  # at a batch of 256
DEFAULT_DECAY = 2e-5
DEFAULT_SMOOTHING = 0.1
DEFAULT_INTERPOLATION = "random"


def fit(race: rules.Race, scratch: Path) -> dict[str, Any]:
    """Fits and scores.

    Args:
        race: What to fit.
        scratch: A temporary folder.

    Returns:
        Accuracy on the held-out rows, and the precision.
    """
    net = race.network()
    train, held_out = _loader(race, 1), _loader(race, 0)
    if race.is_equal:
        criterion = nn.CrossEntropyLoss()
        optimizer = create_optimizer_v2(net, "adamw", lr=rules.LEARNING_RATE, weight_decay=rules.WEIGHT_DECAY)
        schedule: dict[str, Any] = {"warmup_epochs": 1}
    else:
        criterion = nn.CrossEntropyLoss(label_smoothing=DEFAULT_SMOOTHING)
        rate = DEFAULT_RATE * race.batch_size / 256
        optimizer = create_optimizer_v2(net, "sgd", lr=rate, weight_decay=DEFAULT_DECAY)
        schedule = {}
    scheduler, _ = create_scheduler_v2(
        optimizer, num_epochs=race.epochs, step_on_epochs=False, updates_per_epoch=len(train), **schedule
    )
    accuracy = 0.0
    for epoch in range(race.epochs):
        _train(race, net, train, criterion, optimizer, scheduler, epoch)
        accuracy = _score(race, net, held_out)
        torch.save({"net": net.state_dict(), "optimizer": optimizer.state_dict()}, scratch / "last.pth")
    return {"accuracy": accuracy, "precision": "bf16" if race.is_equal and race.is_bf16 else "fp32"}


def _loader(race: rules.Race, fold: int) -> Any:
    is_training = fold == 1
    numbers = {name: number for number, name in enumerate(race.classes)}
    dataset = create_dataset("", root=str(race.root / f"fold_{fold}"), class_map=numbers)
    options: dict[str, Any] = {"num_workers": DEFAULT_WORKERS}
    if race.is_equal:
        options = {"num_workers": race.workers, "persistent_workers": race.workers > 0, "interpolation": "bilinear"}
        options |= {"scale": (rules.SMALLEST_CROP, 1.0), "color_jitter": 0.0}
        options |= {} if is_training else {"crop_pct": 1.0, "crop_mode": "squash"}
    elif is_training:
        options["interpolation"] = DEFAULT_INTERPOLATION
    return create_loader(
        dataset,
        input_size=(3, race.size, race.size),
        batch_size=race.batch_size,
        is_training=is_training,
        device=torch.device("cpu"),
        **options,
    )


def _train(
    race: rules.Race, net: nn.Module, loader: Any, criterion: nn.Module, optimizer: Any, scheduler: Any, epoch: int
) -> None:
    race.clock.start()
    net.train()
    for number, (images, targets) in enumerate(loader, start=epoch * len(loader)):
        with race.autocast():
            loss = criterion(net(images), targets)
        loss.backward()
        if race.is_equal:
            dispatch_clip_grad(net.parameters(), rules.CLIP)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step_update(number + 1)
        race.clock.step()


def _score(race: rules.Race, net: nn.Module, loader: Any) -> float:
    net.eval()
    right, rows = 0, 0
    with torch.inference_mode(), race.autocast():
        for images, targets in loader:
            right += int((net(images).argmax(1) == targets).sum())
            rows += len(targets)
    return right / rows
