"""What a plan's throw-away process does: a shortened training of fold 0, which is timed from its start to its end."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from jsonargparse import Namespace

from swinft.data.datamodule import CSVDataModule
from swinft.data.loading.workers import Destination, explain_worker_crash
from swinft.errors import InputError
from swinft.run.compute.choices import Choice, choice_here
from swinft.run.compute.devices import one_device
from swinft.run.compute.out_of_memory import explain_out_of_memory, out_of_memory_explained
from swinft.run.experiment import Experiment, save_net
from swinft.run.fold_files import Fold
from swinft.run.folds.dry_run import shortened
from swinft.run.folds.fold import exit_on_signals, fold_data, fold_task, predict_held_out
from swinft.run.folds.kept import kept_epochs
from swinft.run.folds.recorder import FoldRecorder
from swinft.run.layout import Run
from swinft.run.plan.cost import Costs
from swinft.run.plan.stopwatch import EpochTimes, Stopwatch, of_batches
from swinft.run.throw_away import ANSWER, REQUEST
from swinft.run.trainer import silence_lightning
from swinft.system.allocator import keep_freed_memory
from swinft.system.memory import memory_use
from swinft.system.orphans import STARTED
from swinft.system.precision import Precision, training_precision

EVALUATED = 4  # batches of held-out rows


def measure(experiment: Experiment, folder: Path) -> None:
    """Measures what a folder requests, in the child process, and writes the costs into it.

    Args:
        experiment: Of the throw-away run.
        folder: Holds the request, and will hold the answer; its `error` is one of the user's input.
    """
    request = json.loads((folder / REQUEST).read_text(encoding="utf-8"))
    run = Run.at(Path(experiment.config.runs) / experiment.config.name)
    choice = choice_here(run, experiment.config)
    config = short_config(choice.applied(experiment.config), request["batches"])
    config.fold, config.seed = request["fold"], request["seed"]

    def explained(error: Exception) -> Any:
        return explain_out_of_memory(error, config, device)

    device, precision, _ = training_precision(config.trainer)
    answer: dict[str, Any]
    try:
        crashes = explain_worker_crash("", "", "--data.loading.num_workers 0")
        with exit_on_signals(), out_of_memory_explained(explained), crashes:
            answer = vars(_timed(run, experiment.with_config(config), choice, device, precision))
            answer["own"] = time.monotonic() - STARTED
    except InputError as error:
        answer = {"error": str(error)}
    (folder / ANSWER).write_text(json.dumps(answer), encoding="utf-8")


def short_config(config: Namespace, batches: int) -> Namespace:
    """The config with an epoch of each kind that differs in time, at least two, of so many batches."""
    short = shortened(config, batches)
    short.trainer.devices, short.trainer.num_nodes = one_device(config), 1
    short.trainer.logger, short.trainer.callbacks, short.trainer.profiler = False, None, None
    short.trainer.enable_progress_bar = False
    stages, frozen = config.model.optim.sizes or [], frozen_epochs(short) > 0
    counts = [2 if frozen and place == 0 else 1 for place in range(len(stages))]
    short.model.optim.sizes = [_with_epochs(*each) for each in zip(stages, counts, strict=True)] or None
    short.trainer.max_epochs = sum(counts) + (1 if stages else 2)
    return short


def _with_epochs(stage: Any, epochs: int) -> Any:
    """A stage of image sizes with another number of epochs."""
    if not isinstance(stage, Namespace):
        return replace(stage, epochs=epochs)
    stage = stage.clone()
    stage.epochs = epochs
    return stage


def frozen_epochs(config: Namespace) -> float:
    """Epochs with a frozen backbone at the start; half of those in which it is unfrozen layer by layer."""
    freeze = config.model.optim.freeze
    return max(config.model.freeze_epochs or 0, (freeze.epochs or 0) / (2 if freeze.gradual else 1))


def _timed(run: Run, experiment: Experiment, choice: Choice, device: torch.device, precision: Precision) -> Costs:
    """Trains, validates, saves and predicts as a fold does."""
    config, fold = experiment.config, run.fold(experiment.config.fold)
    silence_lightning()
    pl.seed_everything(config.seed, verbose=False)
    data = fold_data(run, experiment, None)
    data.max_batches = EVALUATED
    task = fold_task(run, experiment, data, None, device)
    recorder, watch = FoldRecorder(fold, task.scored_by, kept_epochs(config.checkpoint)), Stopwatch()
    keep_freed_memory(device)
    trainer = experiment.trainer(fold.root, precision, recorder, callbacks=[watch])
    data.destination = Destination(device, is_command=True)
    trainer.fit(task, datamodule=data)
    if recorder.kept.checkpoint == "last":
        save_net(task.predictor, fold.weights)
    batches = min(EVALUATED, len(data.splits.held_out(data.fold)) / data.batch_size)
    load, prediction = _predicted(fold, experiment, choice, data, device, precision)
    use = memory_use(device)
    return _costs(config, watch.epochs, batches, load, prediction, (use.peak, use.total))


def _predicted(
    fold: Fold,
    experiment: Experiment,
    choice: Choice,
    data: CSVDataModule,
    device: torch.device,
    precision: Precision,
) -> tuple[float, tuple[float, float]]:
    """Seconds to load a network and of its first prediction, and of a predicted batch and of the rest of it."""
    started = time.monotonic()
    net = experiment.network(data.schema, fold.weights, device, choice.prediction, precision)

    def predict(batches: int) -> float:
        data.max_batches = batches
        return _seconds(lambda: predict_held_out(fold, experiment, data, device, precision, net))

    first = predict(1)
    loaded = time.monotonic() - started
    batches = min(EVALUATED, len(data.splits.held_out(data.fold)) / data.batch_size)
    if batches <= 1:
        return loaded - first, (first / batches, 0.0)
    one, several = predict(1), predict(EVALUATED)
    per_batch = max(0.0, several - one) / (batches - 1)
    return loaded - one, (per_batch, max(0.0, one - per_batch))


def _seconds(run: Callable[[], object]) -> float:
    started = time.monotonic()
    run()
    return time.monotonic() - started


def _costs(
    config: Namespace,
    epochs: list[EpochTimes],
    evaluated: float,
    load: float,
    prediction: tuple[float, float],
    memory: tuple[int, int],
) -> Costs:
    """The costs of the parts, from the times of a shortened training, and how many batches each validation had."""
    step, last = config.trainer.accumulate_grad_batches, epochs[-1]
    measured = [of_batches(each.batches, each.started, step) for each in epochs]
    names = size_names(config)
    names += [size_name(config.data.image_size)] * (len(epochs) - len(names))
    has_frozen = frozen_epochs(config) > 0
    whole = dict(zip(names[has_frozen:], [batch for batch, _ in measured[has_frozen:]], strict=True))  # the last counts
    validation = (0.0, 0.0)
    if last.validated:
        per_batch, rest = of_batches(last.validated, last.validation_started, 1, evaluated)
        validation = per_batch, rest + last.validation_ended - last.validated[-1]
    return Costs(
        start_up=epochs[0].started - STARTED,
        first=max(0.0, measured[0][1] - measured[-1][1]),
        epoch=measured[-1][1],
        batch=whole,
        frozen=min(1.0, measured[0][0] / whole[names[0]]) if has_frozen else 1.0,
        validation=validation,
        saving=last.ended - (last.validation_ended or last.batches[-1]),
        load=load,
        prediction=prediction,
        memory=memory[0],
        of_memory=memory[1],
    )


def size_name(size: Any) -> str:
    """An image size as text: `224x224`."""
    height, width = (size, size) if isinstance(size, int) else size
    return f"{height}x{width}"


def size_names(config: Namespace) -> list[str]:
    """The image size of each of the first epochs that have another than the last ones."""
    return [size_name(each.size) for each in config.model.optim.sizes or [] for _ in range(each.epochs)]
