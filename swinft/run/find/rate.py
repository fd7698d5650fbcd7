"""Finds a learning rate: a range test, whose suggestion is verified by short trainings beside it."""

import math
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer

from swinft.errors import InputError, listed
from swinft.model.task import FineTuneTask
from swinft.model.training.optim import OptimConfig
from swinft.run.find.brief import Brief, Measured, without_schedule
from swinft.run.find.curve import FIRST, LOWEST, has_diverged, rates, suggested

LEAST_STEPS = 4 * FIRST
BESIDE = (1 / 3, 1, 3)  # what the suggestion is verified with, as factors
LAST = 4  # the loss of a training is the mean of its last steps, one of so many


class RangeTest(Measured):
    """Takes every step with another learning rate, in the ratios that the config gives to layers and head.

    Args:
        steps: Number of steps.
    """

    def __init__(self, steps: int) -> None:
        super().__init__("range test", steps)
        self.tested, self.head_ratio = rates(steps).tolist(), 1.0
        self.ids: list[str] = []  # of the rows of the last step
        self._scales: list[float] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remembers the ratios of the rates."""
        assert isinstance(pl_module, FineTuneTask)
        base = pl_module.lr
        self._scales = [group["lr"] / base for group in trainer.optimizers[0].param_groups]
        self.head_ratio = (pl_module.optim.head_lr or base) / base

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Sets the rates of the step."""
        rate = self.tested[len(self.losses)]
        for group, scale in zip(trainer.optimizers[0].param_groups, self._scales, strict=True):
            group["lr"] = rate * scale

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Notes the rows of the last step."""
        table = trainer.datamodule.splits.train.table  # type: ignore[attr-defined]  # a run always trains from one
        self.ids = [table.ids[row] for row in self.rows if row >= 0]

    def is_over(self) -> bool:
        """The loss has diverged."""
        return has_diverged(self.losses)


def find_rate(brief: Brief, steps: int, epochs: int) -> dict[str, Any]:
    """Finds a learning rate.

    Args:
        brief: Trains fold 0.
        steps: Of the range test; each verification takes half as many.
        epochs: That the run plans: what is frozen for fewer is not frozen here.

    Returns:
        As plain values `lr`, `head_lr` (None where it is `lr`), `suggested`, `start` (the untrained network's loss),
        `curve` of pairs (rate, loss), `steps` of a verification, and `tried`: for each verified rate `lr`, `head_lr`
        and `loss`, which is None if it has diverged.

    Raises:
        InputError: The loss is not finite from the start, does not fall, or diverges at all of the verified rates.
    """

    def constant(config: Namespace) -> None:
        settle(config, epochs, steps)
        config.model.optim.schedule, config.model.optim.warmup_epochs = "constant", 0.0

    test = RangeTest(steps)
    brief.train(test, steps, constant)
    losses = [loss for loss in test.losses if math.isfinite(loss)]  # the first other one has ended it
    if len(losses) < 2 * FIRST:
        raise InputError(
            f"the loss is not finite after {len(losses) + 1} of {steps} steps, at a learning rate of "
            f"{test.tested[len(losses)]:.1e} (ids {listed(test.ids)}): no rate helps. Check the target of these rows "
            "and model.head, or set trainer.precision to 32-true."
        )
    middle = suggested(test.tested[: len(losses)], losses)
    if middle is None:
        raise InputError(
            f"the training loss does not fall by more than its noise at any rate from {LOWEST:.0e} to "
            f"{test.tested[len(losses) - 1]:.0e} in {len(losses)} steps, so that nothing can be suggested. Give more "
            "--steps, a larger data.batch_size, or set model.optim.lr yourself."
        )
    start, short = sum(losses[:FIRST]) / FIRST, max(LEAST_STEPS // 2, steps // 2)
    tried = [_verified(brief, round_rate(middle * by), test.head_ratio, short, epochs, start) for by in BESIDE]
    kept = [each for each in tried if each["loss"] is not None]
    if not kept:
        names = [f"{each['lr']:g}" for each in tried]
        raise InputError(
            f"training diverges at all of the rates {listed(names)}, of which a range test suggests the middle one. "
            f"Set model.optim.lr below {names[0]}, and trainer.gradient_clip_val to 1."
        )
    best = min(kept, key=lambda each: each["loss"])
    curve = list(zip(test.tested, losses, strict=False))
    return {**best, "suggested": middle, "start": start, "curve": curve, "steps": short, "tried": tried}


def _verified(brief: Brief, rate: float, ratio: float, steps: int, epochs: int, start: float) -> dict[str, Any]:
    """The rates of a short training and the loss at its end; None if it has diverged."""
    head = None if ratio == 1 else round_rate(rate * ratio)

    def change(config: Namespace) -> None:
        # The rate falls to the end, as in the run: a constant one would favour small rates.
        settle(config, epochs, steps)
        config.model.optim.lr, config.model.optim.head_lr = rate, head

    measured = Measured(f"verification of {rate:g}", steps)
    brief.train(measured, steps, change)
    last = measured.losses[-(len(measured.losses) // LAST) :]
    loss = sum(last) / len(last)
    has_failed = not all(map(math.isfinite, measured.losses)) or loss > start + abs(start) / 2
    return {"lr": rate, "head_lr": head, "loss": None if has_failed else loss}


def settle(config: Namespace, epochs: int, steps: int) -> None:
    """Changes a config to one whose loss depends on the rate alone, and on nothing that the run schedules over epochs.

    Averaged weights have no part in the training loss.

    Args:
        config: Changed in place.
        epochs: That the run plans.
        steps: That are trained.
    """
    without_schedule(config, epochs, steps)
    config.model.optim.min_lr_ratio = OptimConfig.min_lr_ratio
    config.model.ema_decay, config.model.compute.compile = None, False


def round_rate(rate: float) -> float:
    """A rate with two digits: what is verified is what is printed."""
    return float(f"{rate:.1e}")
