"""Folds to out-of-fold predictions and a pooled score.

The parent plans, starts one process per fold, and joins what they leave on disk. A fold's process runs the same command
with `--fold k`, so callbacks, GPU memory and crashes never cross folds.
"""

import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from jsonargparse import Namespace

from swinft.data.datamodule import OK, CSVDataModule
from swinft.data.loading import Destination, explained_deaths
from swinft.errors import InputError, command, number_of
from swinft.memory import keep_freed_memory
from swinft.model.metrics import score
from swinft.orphans import is_child
from swinft.run.arguments import Parser
from swinft.run.build import build_datamodule, build_task, load_net, save_net
from swinft.run.checkpoints import newest_checkpoint
from swinft.run.choices import Choice, choice_here
from swinft.run.compiled import nets_by_torch
from swinft.run.config import build_parser, load
from swinft.run.devices import describe_slots, folds_at_a_time, side_by_side, slots_for
from swinft.run.environment import made_with, note_of_folds
from swinft.run.finite import Origin
from swinft.run.hours import deadline, fold_limit
from swinft.run.inference import format_score, format_seconds, predict_rows
from swinft.run.layout import Fold, Run
from swinft.run.lock import hold
from swinft.run.looked import Looked, frozen, handed_down, looked
from swinft.run.outofmemory import explain_after_training, explain_out_of_memory, out_of_memory_explained
from swinft.run.precision import Precision, prediction_precision, resolve_precision, training_precision
from swinft.run.predictions import by_id, prediction_table, read_predictions, values_of, write_predictions
from swinft.run.prepare import prepare
from swinft.run.pretrained import note_of_leak, pretrained_of
from swinft.run.processes import Child, launcher_ranks, rank, run_children
from swinft.run.recorder import WHOLE, FoldRecorder
from swinft.run.report import write_report
from swinft.run.secrets import environment
from swinft.run.store import commit, discard, json_bytes, probe, sweep, verify
from swinft.run.trainer import build_trainer, quiet
from swinft.run.trial import predict_some, shorten, trial_config

ORPHAN_SECONDS = 30.0  # for the fold's process of a parent that was killed to be gone, its writing included


def main(argv: list[str]) -> int:
    """`swinft fit --config FILE`."""
    parser = build_parser("fit")
    parser.add_argument("--fold", type=int | None, default=None, help="fit this fold only, in this process")
    parser.add_argument(
        "--resume",
        type=bool,
        default=False,
        help="go on with the run's folder; or `--resume RUN`, wherever it lies now, which needs no --config",
    )
    parser.add_argument(
        "--accept",
        type=bool,
        default=False,
        help="with --resume: take files whose commit record is missing or damaged as they are",
    )
    parser.add_argument(
        "--devices_per_fold",
        type=int | None,
        default=None,
        help="GPUs that work on one fold, the same for all of them and for every resume; by default one, and more only "
        "where there are more GPUs than folds",
    )
    parser.add_argument("--overwrite", type=bool, default=False, help="delete the run's folder first")
    config = load(parser, argv)
    run = Run.at(Path(config.runs) / config.name)
    if rank():  # under DDP every rank runs this command again; the first one prepares and locks
        if config.fold is None:
            name, value = next(launcher_ranks())
            raise InputError(
                f"{name} is {value} in the environment, as for one of several processes that fit a fold together, but "
                f"no --fold is given. Unset {name} to fit all folds from this process, or give --fold to each of them."
            )
        fit_fold(run, parser, config, None)
        return 0
    if config.trainer.fast_dev_run:
        return fit_trial(parser, config)
    probe(run.root.parent)
    if config.fold is not None:
        lock = run.fold(config.fold).lock
        # A child's predecessor ends with its parent, but not in no time.
        with hold(lock, patience=ORPHAN_SECONDS if is_child() else 0, root=run.root):
            fit_fold(run, parser, config, prepare(run, parser, config, lock))
        return 0
    with hold(run.lock, root=run.root):
        found = prepare(run, parser, config, run.lock)
        sweep(run.root)
        return fit_all(run, parser, config, found)


def fit_trial(parser: Parser, config: Namespace) -> int:
    """Tries a few batches of the first fold, from the first check to predictions, and leaves nothing.

    Returns:
        0.
    """
    trial = trial_config(config)
    with TemporaryDirectory() as folder:
        config.runs = trial.runs = folder
        run = Run.at(Path(folder) / config.name)
        fit_fold(run, parser, trial, prepare(run, parser, config, run.lock))
        predicted = predict_some(run, parser, trial)
    said = (
        number_of(predicted, "row to predict was predicted", "rows to predict were predicted")
        if predicted
        else "there are no rows to predict"
    )
    print(f"fast_dev_run: the first fold was trained, validated and predicted in part, and {said}. Nothing is kept.")
    return 0


def fit_all(run: Run, parser: Parser, config: Namespace, found: Looked | None) -> int:
    """Fits every fold that is not done, each in its own process, and joins them.

    Args:
        run: The run, prepared.
        parser: The parser that read the config.
        config: The config.
        found: What is known of the images; None where no fold waits.

    Returns:
        0, or the exit code of the first fold that failed.
    """
    started = time.perf_counter()
    folds = run.planned_folds()
    for index in filter(lambda index: run.fold(index).is_done, folds):
        print(f"fold {index}: done, skipped")
    waiting = [index for index in folds if not run.fold(index).is_done]
    slots = slots_for(config, run.devices_per_fold(), len(waiting)) if waiting else []
    for line in describe_slots(config, slots, run.devices_per_fold(), len(waiting)) if waiting else []:
        print(line)
    told = environment(str(parser.dump(config, skip_unset=False))) | (found.environment if found else {})
    told |= deadline(run, config, len(slots)) | side_by_side(slots)
    try:
        codes = run_children({index: fold_child(run, index, config.allow_code, told) for index in waiting}, slots)
    except (KeyboardInterrupt, SystemExit):
        print(f"\ninterrupted; finished epochs are kept. Go on with: {_resume(run)}", file=sys.stderr)
        raise
    failed = {index: code for index, code in codes.items() if code}
    if failed:
        print("\n".join(_failure(run.fold(index), code) for index, code in failed.items()), file=sys.stderr)
        if 2 not in failed.values():  # bad input: the same command would end in the same way
            print(f"Go on with: {_resume(run)}", file=sys.stderr)
        return next(iter(failed.values()))
    scores = join(run, parser, config)
    print(_summary(run, scores, time.perf_counter() - started))
    return 0


def fold_child(run: Run, index: int, allow_code: list[str], told: dict[str, str]) -> Child:
    """The process that fits a fold.

    Args:
        run: The run, prepared.
        index: Which fold.
        allow_code: As given to this process.
        told: What its environment needs besides: secrets, and what is known of the images.
    """
    words = ["fit", "--config", str(run.config), "--fold", str(index), "--resume"]
    words += ["--allow-code", ",".join(allow_code)] if allow_code else []
    return Child(words, told, run.fold(index).log)


def _failure(fold: Fold, code: int) -> str:
    hints = {
        2: " Its message says what to change.",
        137: " It was killed, most often for a lack of memory: --data.num_workers 0 needs less.",
    }
    said = f"fold {fold.index} ended with exit code {code}; finished epochs are kept.{hints.get(code, '')}"
    return f"{said} What it printed is in {fold.log}."


def fit_fold(run: Run, parser: Parser, config: Namespace, found: Looked | None) -> None:
    """Fits one fold in this process, or goes on with it after its last whole epoch.

    Args:
        run: The run, prepared.
        parser: The parser that read the config.
        config: The config, with `fold`.
        found: What is known of the images; None to take it from the process that started this one, or to look.
    """
    fold = run.fold(config.fold)
    if not rank():
        sweep(fold.root)
    if fold.is_done:
        print(f"fold {fold.index}: done, skipped")
        return
    if config.trainer.devices == "auto":
        config.trainer.devices = run.devices_per_fold()
    choice = choice_here(run, config)
    config = choice.applied(config)
    quiet()
    pl.seed_everything(config.seed + fold.index, verbose=False)
    data = build_datamodule(parser, config, fold=fold.index, **frozen(run))
    shorten(data, config)
    known = found.path if found else handed_down()
    if known is not None:
        data.take_over_images(known)
    data.setup("fit")
    if known is None:
        data.check_unchanged(verify(run.images))
    newest = newest_checkpoint(fold)
    # A checkpoint replaces every weight: loading the pretrained ones first would only cost time.
    changes = {"seed": config.seed + fold.index, "loads_weights": not newest}
    task = build_task(parser, config, data.schema, pretrained=pretrained_of(config, fold.index), **changes)
    limit = fold_limit(run, config)
    recorder = FoldRecorder(fold, task.metrics, config.checkpoint, limit)
    device, precision, _ = training_precision(config.trainer.accelerator, config.trainer.precision)
    keep_freed_memory(device)
    trainer = build_trainer(parser, config, fold.root, precision, recorder)
    _check_rank(trainer, fold)
    data.destination = Destination(device, folds_at_a_time(), trainer.num_devices, is_command=True)
    if trainer.is_global_zero:
        if not newest and (note := note_of_leak(config, data, fold.index)):
            print(note, file=sys.stderr)
        print(f"fold {fold.index}: {_plan(data, fold, newest)}, precision {precision} ({choice.reason})", flush=True)
        if limit:
            print(f"fold {fold.index}: has {format_seconds(limit.left)} of max_hours", flush=True)
    explained = partial(_explain_memory, run, config, recorder, device)
    kept = "Finished epochs are kept: go on with --resume. "
    loaders_explained = partial(explained_deaths, f"fold {fold.index}: ", kept, "--data.num_workers 0")
    with (
        exit_on_signals(),
        loaders_explained(),
        out_of_memory_explained(explained),
        looked(data).in_environment(),
    ):
        if newest is None or not recorder.has_ended(newest, task):
            with as_interrupt():
                trainer.fit(task, datamodule=data, ckpt_path=newest)
            trainer.strategy.barrier()
    if trainer.is_global_zero:
        if config.checkpoint == "last":
            save_net(task.predictor, fold.weights)
        with out_of_memory_explained(explained), loaders_explained():
            _finish(fold, parser, config, choice, data, recorder, trainer)


def _explain_memory(
    run: Run, config: Namespace, recorder: FoldRecorder, device: torch.device, error: Exception
) -> InputError:
    """What to change where a fold has run out of memory."""
    if recorder.end is not None:
        return explain_after_training(error, device, recorder.has_trained, _resume(run))
    during = f"fold {recorder.fold.index}, epoch {len(recorder.history) + 1}"
    return explain_out_of_memory(error, config, device, during, None if config.trainer.fast_dev_run else _resume(run))


def _check_rank(trainer: pl.Trainer, fold: Fold) -> None:
    """Refuses to be a rank that the fold does not have: it would fit the whole fold into the files of the first one.

    Raises:
        InputError: A launcher has started more processes than devices fit the fold.
    """
    if rank() >= trainer.world_size:
        name, value = next(launcher_ranks())
        raise InputError(
            f"{name} is {value} in the environment, but fold {fold.index} is fitted on {trainer.world_size} device(s), "
            f"by rank 0. Start that many processes, or a new run with --devices-per-fold."
        )


@contextmanager
def as_interrupt() -> Iterator[None]:
    """Passes on a KeyboardInterrupt that Lightning has made an exit with code 1 of: the command ends with 130.

    Raises:
        KeyboardInterrupt: There was one.
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

    Lightning would end with 0 and 1. Nothing has to be saved first: the last whole epoch is on disk, and a file that is
    being written leaves the one before it untouched.
    """

    def leave(number: int, _: FrameType | None) -> None:
        for each in (signal.SIGTERM, signal.SIGINT):  # a second one does not wait for loader processes to end
            signal.signal(each, lambda again, _: os._exit(128 + again))
        raise SystemExit(128 + number)

    previous = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def join(run: Run, parser: Parser, config: Namespace) -> dict[str, Any]:
    """Joins the folds' out-of-fold predictions, scores them pooled, and draws the report.

    Returns:
        What scores.json holds.

    Raises:
        RunError: The folds do not cover every train id exactly once.
    """
    data = build_datamodule(parser, config, **frozen(run))
    data.take_over_images("")  # no image is read here
    data.setup("fit")
    outputs = data.schema.outputs
    parts = [read_predictions(run.fold(index).oof, len(outputs)) for index in run.planned_folds()]
    ids = np.array(data.train_table.ids)
    scored = np.flatnonzero(data.is_scored)
    joined = by_id(pd.concat(parts, ignore_index=True), ids[scored].tolist(), f"the folds' oof.csv in {run.root}")
    values = np.full((len(ids), len(outputs)), np.nan, dtype=np.float32)
    values[scored] = values_of(joined, len(outputs))
    status = data.status if data.may_skip else None
    oof = prediction_table(ids.tolist(), values, outputs, data.fold_of_row, status)
    write_predictions(run.oof, oof, "swinft fit")
    results = [run.fold(index).read_result() for index in run.planned_folds()]
    scores = _scores(values, data, results, config)
    commit(run.scores, json_bytes(scores), "swinft fit")
    try:
        write_report(run, data)
    except Exception as error:  # the scores are there, and whoever waited for them must see them
        print(
            f"the report could not be drawn: {error!r}. `{command('report', run.root)}` tries again.", file=sys.stderr
        )
    return scores


def _finish(
    fold: Fold,
    parser: Parser,
    config: Namespace,
    choice: Choice,
    data: CSVDataModule,
    recorder: FoldRecorder,
    trainer: pl.Trainer,
) -> None:
    """Out-of-fold predictions from the saved weights, then the result that says the fold is done."""
    device = trainer.strategy.root_device
    precision = _precision_of_oof(config, recorder, device)
    net = load_net(parser, config, data.schema, fold.weights, device, choice.prediction, precision)
    loader = data.val_dataloader()
    nets = nets_by_torch(
        [net], loader, config.predict.views, device, config.predict.compile, precision, data.image_size
    )
    origin = Origin(data.train_table.ids, [fold.weights], "Set trainer.precision to 32-true, under another --name.")
    rows, values = predict_rows(nets, loader, config.predict.views, device, precision, origin)
    ids = np.asarray(data.train_table.ids)[rows].tolist()
    table = prediction_table(ids, values, data.schema.outputs, np.full(len(rows), fold.index))
    write_predictions(fold.oof, table, "swinft fit")
    made = made_with(config, trainer.world_size) | choice.described()
    result = {
        "fold": fold.index,
        "rows": len(rows),
        "oof": score(recorder.metrics, data.schema.kind, values, data.targets[rows], data.schema.grades),
        "end": recorder.end,
        "last_epoch": recorder.history[-1],
        "best_epoch": recorder.best,
        "seconds": round(sum(line["seconds"] for line in recorder.history), 1),
        "peak_memory": recorder.peak,
        "made_with": made | {"precision": recorder.precision or precision},
    }
    commit(fold.result, json_bytes(result), "swinft fit")
    for checkpoint in fold.checkpoints:  # several times the size of the weights, and no longer needed
        discard(checkpoint)


def _precision_of_oof(config: Namespace, recorder: FoldRecorder, device: torch.device) -> Precision:
    """What was trained in: here, or on another device, before a resume that had nothing left to train."""
    here, _ = resolve_precision(config.trainer.precision, device)
    if recorder.precision in (None, here):
        return here
    precision, note = prediction_precision("auto", [str(recorder.precision)], device)
    if note:
        print(f"fold {recorder.fold.index}: {note.partition(' --')[0]}", flush=True)
    return precision


def _scores(
    values: np.ndarray[Any, Any], data: CSVDataModule, results: list[dict[str, Any]], config: Namespace
) -> dict[str, Any]:
    """The pooled score of every metric, the folds' own, and their spread (standard deviation over folds)."""
    names = list(results[0]["oof"])
    scored = data.is_scored
    pooled = score(names, data.schema.kind, values[scored], data.targets[scored], data.schema.grades)
    spread = {name: float(np.std([result["oof"][name] for result in results])) for name in names}
    return {
        "pooled": pooled,
        "spread": spread,
        "folds": results,
        "rows": int(scored.sum()),
        "not_scored": dict(Counter(status for status in data.status if status != OK)),
        "checkpoint": config.checkpoint,
        "views": config.predict.views,
    }


def _plan(data: CSVDataModule, fold: Fold, newest: Path | None) -> str:
    held_out = int((data.is_scored & (data.fold_of_row == fold.index)).sum())
    start = f"resumed from {newest.name}, " if newest else ""
    return f"{start}{number_of(len(data.training_targets), 'row')} to train on, {held_out} held out"


def _summary(run: Run, scores: dict[str, Any], seconds: float) -> str:
    names = list(scores["pooled"])
    lines = ["", f"{'':<14}" + "".join(f"{name:>18}" for name in names)]
    lines += [
        f"{'fold ' + str(r['fold']):<14}" + "".join(f"{format_score(r['oof'][name]):>18}" for name in names)
        for r in scores["folds"]
    ]
    lines += [f"{'spread':<14}" + "".join(f"{format_score(scores['spread'][name]):>18}" for name in names)]
    lines += [f"{'pooled':<14}" + "".join(f"{format_score(scores['pooled'][name]):>18}" for name in names), ""]
    monitor = f"val_{names[0]}"
    for which in ("last", "best"):
        mean = float(np.mean([result[f"{which}_epoch"][monitor] for result in scores["folds"]]))
        lines.append(
            f"mean {monitor} of the {which} epochs: {format_score(mean)}"
            + ("  <- predicted with" if which == scores["checkpoint"] else "")
        )
    if note := note_of_folds(scores["folds"]):
        lines.append(note)
    lines += [
        f"fold {r['fold']} ended after epoch {r['last_epoch']['epoch']}: {r['end']}"
        for r in scores["folds"]
        if r.get("end") not in (None, WHOLE)
    ]
    if scores["not_scored"]:
        counts = ", ".join(f"{count} {reason}" for reason, count in scores["not_scored"].items())
        lines.append(f"rows without an out-of-fold prediction: {counts}; see the column `status`")
    lines += [
        f"{scores['rows']} out-of-fold predictions, views {', '.join(scores['views'])}: {run.oof}",
        f"report: {run.report}",
        f"took {format_seconds(seconds)}\nnext: {command('predict', run.root)}",
    ]
    return "\n".join(lines)


def _resume(run: Run) -> str:
    return command("fit", "--config", run.config, "--resume")
