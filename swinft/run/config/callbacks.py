"""Which Lightning callbacks a run accepts: those that observe it, but none that changes recorded or saved values."""

from collections.abc import Sequence

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import (
    BaseFinetuning,
    BasePredictionWriter,
    BatchSizeFinder,
    Checkpoint,
    DeviceStatsMonitor,
    EarlyStopping,
    GradientAccumulationScheduler,
    LearningRateFinder,
    LearningRateMonitor,
    ModelPruning,
    StochasticWeightAveraging,
    ThroughputMonitor,
    Timer,
    WeightAveraging,
)

from swinft.errors import suggest
from swinft.model.metrics import Metric

# Refused base classes, with the reason; subclasses are refused too.
REFUSED: dict[type[Callback], str] = {
    StochasticWeightAveraging: "it replaces the weights after the last validation. Set checkpoint to "
    "{soup: last, epochs: 3} instead, or model.ema_decay.",
    WeightAveraging: "its average is not in the weights that are saved. Set model.ema_decay instead.",
    GradientAccumulationScheduler: "it changes the number of steps, for which the schedule is planned. Set "
    "trainer.accumulate_grad_batches instead.",
    BatchSizeFinder: "it overrides the batch size of the config. Set data.batch_size instead.",
    LearningRateFinder: "it overrides the learning rate of the config. Set model.optim.lr instead.",
    BaseFinetuning: "it changes the optimiser's groups under the schedule. Set model.freeze_epochs instead, or "
    "model.optim.freeze.",
    Checkpoint: "every epoch is saved already; `checkpoint: best` predicts with the best one. Remove it.",
    Timer: "it stops within an epoch, and limits each fold. Set max_hours, which limits the whole run.",
    BasePredictionWriter: "it would never be called: predictions are made from the saved weights. Remove it.",
}
NEED_LOGGER = (LearningRateMonitor, DeviceStatsMonitor, ThroughputMonitor)


def refusal(cls: type) -> str | None:
    """Why a run refuses a callback, and what to set instead; None if it accepts it."""
    return next((reason for base, reason in REFUSED.items() if issubclass(cls, base)), None)


def callback_problems(callbacks: Sequence[Callback], has_logger: bool, is_last: bool) -> list[str]:
    """Problems of a config's callbacks; one sentence each.

    Args:
        callbacks: The callbacks of the config.
        has_logger: Whether the config has a logger.
        is_last: Whether the last epoch predicts.
    """
    problems = []
    for callback in callbacks:
        name = type(callback).__name__
        if isinstance(callback, NEED_LOGGER) and not has_logger:
            problems.append(f"trainer.callbacks: {name} needs a logger: set trainer.logger to csv, or remove it.")
        if isinstance(callback, ModelPruning) and not is_last:
            problems.append(
                f"trainer.callbacks: {name} makes its pruning permanent after the last epoch: set checkpoint to last."
            )
    return problems


def monitor_problems(callbacks: Sequence[Callback], metrics: Sequence[Metric]) -> list[str]:
    """Problems of the values that callbacks monitor; one sentence each.

    Args:
        callbacks: The callbacks of the config.
        metrics: The metrics that the task logs.
    """
    higher_is_better = {"train_loss": False, "val_loss": False}
    higher_is_better |= {f"val_{metric.name}": metric.higher_is_better for metric in metrics}
    problems = []
    for callback in callbacks:
        monitor, setting = getattr(callback, "monitor", None), f"trainer.callbacks: {type(callback).__name__}.monitor"
        if not isinstance(monitor, str):
            continue
        if monitor not in higher_is_better:
            problems.append(f"{setting} is '{monitor}', which is not logged.{suggest(monitor, higher_is_better)}")
        elif isinstance(callback, EarlyStopping):
            better, mode = ("higher", "max") if higher_is_better[monitor] else ("lower", "min")
            if callback.mode != mode:
                problems.append(
                    f"{setting} is {monitor}, for which {better} is better, but its mode is {callback.mode}: training "
                    f"would stop when it improves. Set mode to {mode}."
                )
    return problems
