"""Checks a run before training, and freezes its config, schema, folds and images into its folder."""

import json
from contextlib import ExitStack
from pathlib import Path

from jsonargparse import Namespace

from swinft.data.folds import folds_csv
from swinft.errors import InputError, listed, number_of
from swinft.printing import format_seconds, print_line
from swinft.run.check import CheckedRun, check_run
from swinft.run.checked_images import CheckedImages, checked_images, inherited_cache, recheck_images
from swinft.run.compute.choices import freeze_choice
from swinft.run.compute.devices import check_training_devices, devices_per_fold, freeze_devices
from swinft.run.environment import describe_environment
from swinft.run.experiment import Experiment
from swinft.run.fold_files import ALL, FoldId, expanded, trainings_of
from swinft.run.folds.teacher import check_teachers, freeze_teachers, teachers_of
from swinft.run.inputs import freeze_inputs
from swinft.run.layout import Run
from swinft.run.lock import hold
from swinft.run.resume import check_resume
from swinft.run.room import oof_bytes
from swinft.run.trackers.checks import check_trackers, trackers_of
from swinft.store import commit, probe
from swinft.whole_folders import clear_deleted, delete_folder


def prepare(run: Run, experiment: Experiment, held: Path) -> CheckedImages | None:
    """Checks all that can be checked before training, then freezes it into the run's folder.

    Args:
        run: The run.
        experiment: The experiment.
        held: The lock that this process holds.

    Returns:
        The checked images; None if the parent process has checked them, or all folds are finished.

    Raises:
        InputError: Data or config are wrong; or the folder exists and neither `--resume` nor `--overwrite` was given.
    """
    config = experiment.config
    if config.resume and config.overwrite:
        raise InputError("--resume continues a run, --overwrite deletes it: give one of them.")
    if config.accept and (not config.resume or config.fold is not None):
        raise InputError("--accept is for the files of a whole run: give it with --resume, without --fold.")
    clear_deleted(run.root)
    if run.is_unstarted():
        print(f"{run.root}: an earlier start ended before the first fold; starting again")
    elif config.resume:
        check_training_devices(config)
        check_resume(run, experiment)
        waiting: list[FoldId] = run.unfinished_trainings()
        if config.fold is not None:
            known = [*run.planned_folds(), *trainings_of([ALL], config.seeds)]
            if unknown := set(expanded([config.fold], known)).difference(known):
                raise InputError(f"--fold {unknown.pop()}: the folds of {run.root} are {listed(map(str, known))}.")
            waiting = [name for name in expanded([config.fold], known) if not run.fold(name).is_done]
        if waiting and config.fold is None:
            check_teachers(run, teachers_of(experiment))
        if waiting:
            check_trackers(trackers_of(experiment))
        if inherited_cache() is not None or not waiting:
            return None
        return recheck_images(run, experiment)
    elif run.root.exists() and any(run.root.iterdir()) and not config.overwrite:
        raise InputError(
            f"{run.root} exists. --resume continues it, --overwrite deletes it, --name NAME starts another."
        )
    checked = check_run(experiment)
    data = checked.data
    print(f"checked {number_of(len(data.image_files), 'image')} in {format_seconds(checked.seconds)}")
    print(f"  {data.image_files.decision}")
    for note in data.notes:
        print_line(f"  {note}")
    for line in checked.lines():
        print_line(line)
    num_trainings = (int(data.fold_of_row.max()) + 1) * len(config.seeds or [0])
    probe(run.root.parent, _needed_bytes(checked, config, num_trainings))
    devices = devices_per_fold(config, num_trainings)
    if run.root.exists():
        was_started = not run.is_unstarted()
        _delete(run, held)
        if was_started:
            print(f"{run.root}: the earlier run is deleted (--overwrite)")
    write_run(run, experiment, checked, devices)
    return checked_images(data)


def _needed_bytes(checked: CheckedRun, config: Namespace, num_trainings: int) -> int:
    """What a run needs on the disk, about: weights, checkpoints and out-of-fold predictions."""
    # Per fold: weights, and during the fit two checkpoints with weights, their average and AdamW's two moments, and
    # weights of epochs that may be averaged: one more than are.
    kept = getattr(config.checkpoint, "epochs", -1) + 1
    needed, data = 4 * checked.num_parameters * (num_trainings + 8 + kept), checked.data
    assert data.schema is not None
    if not data.schema.base.are_maps:
        seeds, views = len(config.seeds or [0]), len(config.predict.views)
        needed += oof_bytes(int(data.splits.is_scored.sum()), len(data.schema.outputs), seeds, views)
    return needed


def write_run(run: Run, experiment: Experiment, checked: CheckedRun, devices: int) -> None:
    """Writes what a run is frozen with; the config comes last."""
    config, data = experiment.config, checked.data
    commit(run.schema, json.dumps(data.schema.to_dict(), indent=1).encode(), "swinft fit")
    commit(run.folds, folds_csv(data.train_table.ids, data.fold_of_row).encode(), "swinft fit")
    if data.splits.leaks_csv is not None:
        commit(run.extra, data.splits.leaks_csv.encode(), "swinft fit")
    if data.settings.folds.drop:
        commit(run.dropped, Path(data.settings.folds.drop).read_bytes(), "swinft fit")
    lines = data.image_files.csv_blocks(data.splits.by_name)
    commit(run.images, lambda file: file.writelines(block.encode() for block in lines), "swinft fit")
    tables = {"train": data.train_table, "sample_submission": data.splits.sample}
    tables |= {"test": data.test_table} if data.settings.test else {}
    made = {f"data.{key}": table.sha256 for key, table in tables.items() if table and table.sha256}
    read = {path: sha256 for table in tables.values() if table for path, sha256 in table.read.items()}
    freeze_inputs(run, config, made, read)
    freeze_teachers(run, checked.teachers)
    if checked.plan and checked.plan.sample.is_file:
        commit(run.sample, json.dumps(checked.plan.sample.distinct(), indent=1).encode(), "swinft fit")
    freeze_devices(run, devices)
    freeze_choice(run, checked.choice)
    environment = describe_environment(config) | checked.choice.described()
    commit(run.environment, json.dumps(environment, indent=1).encode(), "swinft fit")
    commit(run.config, checked.config.encode(), "swinft fit")  # last: a folder with a config is a run


def _delete(run: Run, held: Path) -> None:
    """Deletes a run's folder for `--overwrite`, while holding all of its locks.

    Raises:
        InputError: The folder is not a run's, or another process fits one of its folds.
    """
    if not run.is_run() and not run.is_unstarted() and any(run.root.iterdir()):
        raise InputError(
            f"{run.root} is not a run: --overwrite deletes only what `swinft fit` wrote. Give another --name."
        )
    with ExitStack() as locks:
        for lock in {run.lock, *run.fold_locks()} - {held}:
            locks.enter_context(hold(lock))
        delete_folder(run.root)
