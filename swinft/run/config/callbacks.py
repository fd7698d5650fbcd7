"""Which Lightning callbacks a run takes: those that watch it, and none that changes what is recorded and saved."""

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

# Each base class with its reason; a user's subclass of one is refused like the class itself.
REFUSED: dict[type[Callback], str] = {
    StochasticWeightAveraging: "it replaces the weights after the last validation. Set model.ema_decay instead.",
    WeightAveraging: "its average is not in the weights that are saved. Set model.ema_decay instead.",
    GradientAccumulationScheduler: "it changes the number of steps under the schedule. Set "
    "trainer.accumulate_grad_batches instead.",
    BatchSizeFinder: "it changes the batch behind the config. Set data.batch_size instead.",
    LearningRateFinder: "it changes the rate behind the config. Set model.optim.lr instead.",
    BaseFinetuning: "it changes the optimiser's groups under the schedule. Set model.freeze_epochs instead.",
    Checkpoint: "every epoch is saved already; `checkpoint: best` predicts with the best one. Remove it.",
    Timer: "it stops inside an epoch, and every fold alike. Set max_hours, which is planned over the folds.",
    BasePredictionWriter: "it would never be called: predictions are made from the saved weights. Remove it.",
}
NEED_LOGGER = (LearningRateMonitor, DeviceStatsMonitor, ThroughputMonitor)


def refusal(cls: type) -> str | None:
    """Why a run takes no such callback, and what to set instead; None for one that it takes."""
    return next((reason for base, reason in REFUSED.items() if issubclass(cls, base)), None)


def callback_problems(callbacks: Sequence[Callback], has_logger: bool, checkpoint: str) -> list[str]:
    """What is wrong with a config's callbacks; one sentence each.

    Args:
        callbacks: Those that the config names.
        has_logger: Whether it names a logger.
        checkpoint: Which epoch predicts, `last` or `best`.
    """
    problems = []
    for callback in callbacks:
        name = type(callback).__name__
        if isinstance(callback, NEED_LOGGER) and not has_logger:
            problems.append(f"trainer.callbacks: {name} needs a logger: set trainer.logger to csv, or remove it.")
        if isinstance(callback, ModelPruning) and checkpoint == "best":
            problems.append(
                f"trainer.callbacks: {name} makes its pruning permanent after the last epoch: set checkpoint to last."
            )
    return problems


def monitor_problems(callbacks: Sequence[Callback], metrics: Sequence[Metric]) -> list[str]:
    """What is wrong with the values that callbacks watch; one sentence each.

    Args:
        callbacks: Those that the config names.
        metrics: What the task logs.
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
                    f"{setting} is {monitor}, of which {better} is better, and its mode is {callback.mode}: training "
                    f"would stop where it improves. Set mode to {mode}."
                )
    return problems
