"""Fits one fold in this process: training, out-of-fold predictions, and the result file that marks it as done."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from jsonargparse import Namespace
from numpy.lib.format import write_array
from numpy.typing import NDArray

from swinft.data.datamodule import CSVDataModule
from swinft.data.folds import ALL_ROWS
from swinft.data.loading.workers import Destination, explain_worker_crash
from swinft.errors import InputError, number_of
from swinft.inference.compiled import nets_by_torch
from swinft.inference.finite import Origin
from swinft.inference.predictions import Predictions
from swinft.inference.predictor import Values, ViewValues, predict_rows
from swinft.model.metrics import traits_of
from swinft.model.network import ImageModel
from swinft.model.task import FineTuneTask
from swinft.printing import format_seconds
from swinft.run.checked_images import CheckedImages, checked_images, inherited_cache
from swinft.run.compute.choices import Choice, choice_here
from swinft.run.compute.devices import folds_on_machine
from swinft.run.compute.out_of_memory import (
    LackOfMemory,
    explain_after_training,
    explain_out_of_memory,
    out_of_memory_explained,
)
from swinft.run.environment import made_with
from swinft.run.experiment import Experiment, save_net
from swinft.run.fold_files import Fold
from swinft.run.folds.checkpoints import newest_checkpoint
from swinft.run.folds.dry_run import shorten
from swinft.run.folds.hours import fold_limit
from swinft.run.folds.kept import kept_epochs
from swinft.run.folds.labels import label_extra_rows
from swinft.run.folds.pretrained import note_of_leak, pretrained_of, source_of
from swinft.run.folds.pretrained_head import copy_head
from swinft.run.folds.progress import FoldProgress, RunFolds
from swinft.run.folds.recorder import WHOLE, FoldRecorder
from swinft.run.folds.soup import make_soup
from swinft.run.folds.teacher import check_teachers, teacher_of, teachers_of
from swinft.run.layout import Run
from swinft.run.scoring import score_rows
from swinft.run.trackers.configured import trackers_in
from swinft.run.trackers.fold_records import FoldRecords
from swinft.run.trainer import silence_lightning
from swinft.store import commit, json_bytes, sweep, verify
from swinft.system.allocator import keep_freed_memory
from swinft.system.cluster.environment import is_on_cluster
from swinft.system.precision import Precision, prediction_precision, resolve_precision, training_precision
from swinft.system.processes import launcher_ranks, rank
from swinft.system.signals import leave_at

SAVED = "Finished epochs are saved: continue with --resume. "


def fit_fold(run: Run, experiment: Experiment, found: CheckedImages | None) -> None:
    """Fits one fold in this process, or resumes it after its last whole epoch.

    Args:
        run: The prepared run.
        experiment: The experiment, with the option `fold`.
        found: The checked images; None if the parent process has checked them, or they are to be checked here.

    Raises:
        InputError: The environment names other processes than the fold's devices.
    """
    config, fold = experiment.config, run.fold(experiment.config.fold)
    if not rank():
        sweep(fold.root)
    if fold.is_done:
        fold.delete_checkpoints()  # if a process was killed while it did
        print(f"fold {fold.index}: done, skipped")
        return
    stop_after = chosen_epochs(run, config) if fold.held_out is None else None
    if config.trainer.devices == "auto":
        config.trainer.devices = run.devices_per_fold()
    choice = choice_here(run, config)
    config = choice.applied(config).clone()
    config.seed = config.seed if fold.seed is None else fold.seed
    experiment = experiment.with_config(config)
    silence_lightning()
    pl.seed_everything(config.seed + _number(run, fold), verbose=False)
    data = fold_data(run, experiment, found)
    newest = newest_checkpoint(fold)
    device, precision, _ = training_precision(config.trainer)
    task = fold_task(run, experiment, data, newest, device)
    limit = fold_limit(run, config)
    progress = FoldProgress(fold, task.metrics, len(config.predict.views), limit, RunFolds.of(run))
    recorder = FoldRecorder(fold, task.scored_by, kept_epochs(config.checkpoint), limit, progress, stop_after)
    keep_freed_memory(device)
    trainer = experiment.trainer(fold.root, precision, recorder, **_trainer_changes(experiment, fold))
    _check_rank(trainer, fold)
    data.destination = Destination(device, folds_on_machine(), trainer.num_devices, is_command=True)
    if trainer.is_global_zero:
        if not newest and (note := note_of_leak(config, data, fold)):
            print(note, file=sys.stderr)
        _announce(recorder, data, newest, f"{precision} ({choice.reason})")
        recorder.records = FoldRecords.open(run, fold, trackers_in(trainer.loggers), data)
    explained = partial(_explain_memory, run, config, recorder, trainer.strategy.root_device)
    loaders_explained = partial(explain_worker_crash, f"fold {fold.index}: ", SAVED, "--data.loading.num_workers 0")
    with (
        exit_on_signals(),
        loaders_explained(),
        out_of_memory_explained(explained),
        checked_images(data).in_environment(),
    ):
        if newest is None or not recorder.has_ended(newest, task):
            with as_interrupt():
                trainer.fit(task, datamodule=data, ckpt_path=newest)
            trainer.strategy.barrier()
    if trainer.is_global_zero:
        if recorder.kept.checkpoint == "last":
            save_net(task.predictor, fold.weights)
        with out_of_memory_explained(explained), loaders_explained(), recorder.records.left_on_error():
            _finish(fold, experiment, choice, data, recorder, trainer)


def fold_data(run: Run, experiment: Experiment, found: CheckedImages | None) -> CSVDataModule:
    """The fold's rows; their images are compared with those of the run's start unless this has been done."""
    config = experiment.config
    held_out = run.fold(config.fold).held_out
    data = experiment.datamodule(run, folds={"held_out": ALL_ROWS if held_out is None else held_out})
    shorten(data, config)
    known = found.path if found else inherited_cache()
    if is_on_cluster() and not (known and Path(known).is_file()):
        known = None  # this node reads the images itself, which may be others
    if known is not None:
        data.image_files.use_known_cache(known)
    data.setup("fit")
    if known is None:
        data.check_unchanged(verify(run.images))
    return data


def fold_task(
    run: Run, experiment: Experiment, data: CSVDataModule, newest: Path | None, device: torch.device
) -> FineTuneTask:
    """The fold's task and its teacher, with pretrained weights unless it resumes from the checkpoint `newest`.

    Other runs label the rows of extra tables first: the task is initialised with the statistics of all rows.
    """
    config, teachers = experiment.config, teachers_of(experiment)
    check_teachers(run, teachers)
    label_extra_rows(experiment, run.fold(config.fold), data, teachers, device)
    seed = config.seed + _number(run, run.fold(config.fold))
    # A checkpoint replaces every weight, so the pretrained ones are not loaded first.
    pretrained = pretrained_of(config, config.fold)
    task = experiment.task(data.schema, seed, loads_weights=not newest, pretrained=pretrained)
    task.teacher = teacher_of(experiment, config.fold, teachers)
    if not newest and (source := source_of(config, config.fold)):
        task.initialize_from(data)
        line = copy_head(task, data.schema, source)
        if not rank():
            print(line)
    return task


def chosen_epochs(run: Run, config: Namespace) -> int:
    """How many epochs a training on every row takes: the mean of those that the folds predict with.

    Raises:
        InputError: A fold is not finished.
    """
    results = [run.fold(name).read_result() for name in run.finished_folds(None, "--fold all: the folds")]
    # What stopped a fold early had waited for a better epoch; a run whose time was over had not.
    is_best = [config.checkpoint == "best" or each["end"] not in (None, WHOLE, "max_hours") for each in results]
    epochs = [
        each["best_epoch" if best else "last_epoch"]["epoch"] for each, best in zip(results, is_best, strict=True)
    ]
    return max(1, round(float(np.mean(epochs))))


def _number(run: Run, fold: Fold) -> int:
    """What a training adds to the seed: the number of its fold, or the next one where it holds out none."""
    if fold.held_out is not None:
        return fold.held_out
    return 1 + max(run.fold(name).held_out or 0 for name in run.planned_folds())


def _trainer_changes(experiment: Experiment, fold: Fold) -> dict[str, Any]:
    """Arguments of the Trainer to replace: if no row is held out, no validation and no callback that monitors it."""
    if fold.held_out is not None:
        return {}
    given = experiment.section("trainer")["callbacks"] or []
    callbacks = given if isinstance(given, list) else [given]
    return {
        "limit_val_batches": 0,
        "callbacks": [each for each in callbacks if not str(getattr(each, "monitor", "")).startswith("val_")],
    }


def _explain_memory(
    run: Run, config: Namespace, recorder: FoldRecorder, device: torch.device, error: Exception
) -> LackOfMemory:
    """The error for a fold that has run out of memory."""
    if recorder.end is not None:
        return explain_after_training(error, device, recorder.has_trained, run.resume_command)
    during = f"fold {recorder.fold.index}, epoch {len(recorder.history) + 1}"
    return explain_out_of_memory(
        error, config, device, during, None if config.trainer.fast_dev_run else run.resume_command
    )


def _check_rank(trainer: pl.Trainer, fold: Fold) -> None:
    """Refuses a rank that the fold does not have: it would fit the whole fold and overwrite the files of rank 0.

    Raises:
        InputError: A launcher has started more processes than the fold has devices.
    """
    if rank() >= trainer.world_size:
        name, value = next(launcher_ranks())
        raise InputError(
            f"{name} is {value} in the environment, but fold {fold.index} is fitted on {trainer.world_size} device(s), "
            f"by rank 0. Start that many processes, or a new run with --devices-per-fold."
        )


@contextmanager
def as_interrupt() -> Iterator[None]:
    """Restores a KeyboardInterrupt that Lightning turns into an exit with code 1, so that the command ends with 130.

    Raises:
        KeyboardInterrupt: Lightning has caught one.
    """
    try:
        yield
    except SystemExit as error:
        if isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """SIGTERM and Ctrl-C end the process at once, with the exit codes 143 and 130.

    Lightning would end with 0 and 1. Nothing needs saving: the last whole epoch is on disk, and files are written
    atomically.
    """
    numbers = (signal.SIGTERM, signal.SIGINT)
    leave = leave_at(*numbers)  # a second signal does not wait for loader workers to end
    previous = {number: signal.signal(number, leave) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _finish(
    fold: Fold,
    experiment: Experiment,
    choice: Choice,
    data: CSVDataModule,
    recorder: FoldRecorder,
    trainer: pl.Trainer,
) -> None:
    """Writes out-of-fold predictions from the saved weights, then the result file that marks the fold as done."""
    config, device = experiment.config, trainer.strategy.root_device
    precision = _precision_of_oof(config, recorder, device)
    network = partial(experiment.network, data.schema, fold.weights, device, choice.prediction, precision)
    predict = partial(predict_held_out, fold, experiment, data, device, precision)
    epochs = make_soup(recorder, data, network, predict, device, precision)
    num_rows, scores = 0, dict[str, float]()
    if fold.held_out is not None:
        by_view = ViewValues() if len(config.predict.views) > 1 and not data.schema.base.are_maps else None
        rows, values = predict(network(), f"fold {fold.index}  out-of-fold predictions", by_view)
        ids = np.asarray(data.train_table.ids)[rows].tolist()
        oof = Predictions.of(ids, values, data.schema.outputs, np.full(len(rows), fold.held_out))
        oof.write(fold.oof, "swinft fit")
        if by_view is not None:
            commit(fold.oof_by_view, partial(write_array, array=by_view.values, allow_pickle=False), "swinft fit")
        num_rows, scores = len(rows), score_rows(recorder.metrics, data, rows, values)
    made = made_with(config, trainer.world_size) | choice.described()
    result = {
        "fold": fold.index,
        "rows": num_rows,
        "oof": scores,
        "first_metric": asdict(traits_of(recorder.metrics[0])),
        "end": recorder.end,
        "last_epoch": recorder.history[-1],
        "best_epoch": recorder.best,
        **epochs,
        "seconds": round(sum(line["seconds"] for line in recorder.history), 1),
        "peak_memory": recorder.peak,
        "made_with": made | {"precision": recorder.precision or precision},
    }
    commit(fold.result, json_bytes(result), "swinft fit")
    fold.delete_checkpoints()
    recorder.records.finish(fold)


def predict_held_out(
    fold: Fold,
    experiment: Experiment,
    data: CSVDataModule,
    device: torch.device,
    precision: Precision,
    net: ImageModel,
    label: str | None = None,
    by_view: ViewValues | None = None,
) -> tuple[NDArray[np.int64], Values]:
    """Numbers and predictions of the held-out rows, by a network that may be cast for it; `by_view` as given on."""
    loader, views = data.val_dataloader(), experiment.views()
    policy = experiment.config.predict.compile
    nets = nets_by_torch([net], loader, views, device, policy, precision, data.image_size)
    origin = Origin(data.train_table.ids, [fold.weights], "Set trainer.precision to 32-true, under another --name.")
    return predict_rows(nets, loader, views, device, precision, origin, label, by_view)


def _precision_of_oof(config: Namespace, recorder: FoldRecorder, device: torch.device) -> Precision:
    """The precision of the training, which may have been on another device if a resume had nothing left to train."""
    here, _ = resolve_precision(config.trainer.precision, device)
    if recorder.precision in (None, here):
        return here
    precision, note = prediction_precision("auto", [str(recorder.precision)], device)
    if note:
        print(f"fold {recorder.fold.index}: {note.partition(' --')[0]}", flush=True)
    return precision


def _announce(recorder: FoldRecorder, data: CSVDataModule, newest: Path | None, precision: str) -> None:
    """Prints what is going to be trained."""
    start = f"resumed from {newest.name}, " if newest else ""
    rows = f"{number_of(len(data.training_targets), 'row')} to train on"
    held_out, left_out = len(data.splits.held_out(data.fold)), data.splits.num_left_out(data.fold)
    more = f", {number_of(left_out, 'extra row')} left out" if left_out else ""
    epochs = recorder.stop_after
    end = f", for {number_of(epochs, 'epoch')}, the mean of those that the folds predict with" if epochs else ""
    name, plan = f"fold {recorder.fold.index}", f"{start}{rows}, {held_out or 'none'} held out{more}{end}"
    print(f"{name}: {plan}, precision {precision}", flush=True)
    if recorder.limit:
        print(f"{name}: has {format_seconds(recorder.limit.left)} of max_hours", flush=True)
