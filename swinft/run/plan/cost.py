"""What a run costs, as pure functions of what was measured or estimated and of the epochs that its config plans."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from swinft.system.overview import makespan


@dataclass(frozen=True)
class Costs:
    """Seconds of the parts of a fold, and bytes, on the devices of a fold.

    Args:
        start_up: From the start of its process to the first epoch.
        first: By which the first epoch is longer than a later one like it.
        epoch: From the start of an epoch to its first batch.
        batch: Of a training batch, by image size in pixels.
        frozen: Time of a batch while the backbone is frozen, as a share of one that trains all of it.
        validation: Of a batch of the validation, and of the rest of it.
        saving: Of the checkpoint and the weights after an epoch.
        load: Of a network from its weights.
        prediction: Of a predicted batch with all views, and of the rest of it.
        memory: Peak of the device's memory in bytes.
        of_memory: Its size in bytes.
    """

    start_up: float
    first: float
    epoch: float
    batch: dict[str, float]
    frozen: float
    validation: tuple[float, float]
    saving: float
    load: float
    prediction: tuple[float, float]
    memory: int
    of_memory: int


@dataclass(frozen=True)
class Work:
    """What a fold does.

    Args:
        batches: Training batches of an epoch, on each device.
        epochs: Number of epochs; the last one may be incomplete.
        sizes: Image size of each of the first epochs that have another than the last ones.
        size: Image size of the others.
        frozen: Epochs with a frozen backbone; half of those in which it is unfrozen layer by layer.
        held_out: Batches of held-out rows, on each device.
        passes: Predictions of the held-out rows after the training, by which weights are chosen.
        validates: Whether rows are held out at all.
    """

    batches: float
    epochs: float
    sizes: list[str] = field(default_factory=list)
    size: str = ""
    frozen: float = 0.0
    held_out: float = 0.0
    passes: int = 1
    validates: bool = True


PARTS = ("start", "training", "validation", "saving", "out-of-fold predictions")


def fold_seconds(costs: Costs, work: Work) -> dict[str, float]:
    """Seconds of a fold by part."""
    training = costs.first
    for epoch in range(math.ceil(work.epochs)):
        size = work.sizes[epoch] if epoch < len(work.sizes) else work.size
        frozen = min(1.0, max(0.0, work.frozen - epoch))
        share = min(1.0, work.epochs - epoch)
        training += costs.epoch + share * work.batches * costs.batch[size] * (1 - frozen * (1 - costs.frozen))
    per_batch, rest = costs.validation
    validation = (work.held_out * per_batch + rest) * math.ceil(work.epochs) if work.validates else 0.0
    per_batch, rest = costs.prediction
    predictions = costs.load + work.passes * (work.held_out * per_batch + rest) if work.validates else 0.0
    saving = costs.saving * math.ceil(work.epochs)
    return dict(zip(PARTS, (costs.start_up, training, validation, saving, predictions), strict=True))


def limited(parts: dict[str, float], epochs: float, limit: float | None) -> tuple[dict[str, float], float]:
    """A fold that has so many seconds: its parts, and the epochs that it trains, at least one.

    Args:
        parts: As of `fold_seconds`.
        epochs: Number of epochs.
        limit: Seconds of the fold; None for no limit.
    """
    per_epoch = sum(parts[name] for name in PARTS[1:4]) / epochs
    rest = parts[PARTS[0]] + parts[PARTS[4]]
    if limit is None or rest + epochs * per_epoch <= limit:
        return parts, epochs
    done = float(min(epochs, max(1, math.floor((limit - rest) / per_epoch))))
    return {name: each * (done / epochs if name in PARTS[1:4] else 1) for name, each in parts.items()}, done


@dataclass(frozen=True)
class Plan:
    """The cost of a run.

    Args:
        what: The network and the rows, in words.
        device: What it runs on, in words.
        folds: Seconds of each training by part, in the order in which they start.
        epochs: Epochs of each, as far as the time limit lets it train.
        at_a_time: Trainings at a time.
        per_fold: Devices of each.
        before: Seconds of the checks before the first fold.
        after: Seconds of the scores and the report after the last one.
        test: Seconds of `swinft predict`; None without rows to predict.
        memory: Peak of a device's memory in bytes, and its size.
        disk: Bytes of weights and checkpoints, at most.
        notes: What was assumed, one sentence each.
        is_estimate: Whether it is for devices that are not here.
    """

    what: str
    device: str
    folds: list[dict[str, float]]
    epochs: list[float]
    at_a_time: int
    per_fold: int
    before: float
    after: float
    test: float | None
    memory: tuple[int, int]
    disk: int
    notes: list[str]
    is_estimate: bool

    @property
    def fit(self) -> float:
        """Seconds of `swinft fit`."""
        return self.before + makespan([sum(each.values()) for each in self.folds], self.at_a_time) + self.after

    @property
    def rounds(self) -> int:
        """How often trainings start together."""
        return math.ceil(len(self.folds) / self.at_a_time)

    @property
    def device_hours(self) -> float:
        """Hours of devices that trainings and the prediction use."""
        used = sum(sum(each.values()) for each in self.folds) * self.per_fold + (self.test or 0.0)
        return used / 3600

    @property
    def fits(self) -> bool:
        """Whether a batch fits into the device's memory."""
        return self.memory[0] <= self.memory[1]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for `--json`."""
        return {
            "what": self.what,
            "device": self.device,
            "is_estimate": self.is_estimate,
            "fit_seconds": round(self.fit, 2),
            "predict_seconds": None if self.test is None else round(self.test, 2),
            "device_hours": round(self.device_hours, 4),
            "trainings": len(self.folds),
            "at_a_time": self.at_a_time,
            "rounds": self.rounds,
            "devices_per_fold": self.per_fold,
            "before_seconds": round(self.before, 2),
            "after_seconds": round(self.after, 2),
            "folds": [{name: round(each, 3) for name, each in parts.items()} for parts in self.folds],
            "epochs": self.epochs,
            "memory_bytes": self.memory[0],
            "of_memory_bytes": self.memory[1],
            "fits": self.fits,
            "disk_bytes": self.disk,
            "notes": self.notes,
        }


def mean_parts(folds: Sequence[dict[str, float]]) -> dict[str, float]:
    """The mean seconds of each part."""
    return {name: sum(each[name] for each in folds) / len(folds) for name in PARTS}
