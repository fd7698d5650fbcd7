"""Every fold in a process of its own, then their joined predictions.

A fold's process runs the same command with `--fold k`, so callbacks, GPU memory and crashes never cross folds.
"""

import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from swinft.errors import InputError, RunError, number_of
from swinft.run.compute.devices import describe_slots, side_by_side, slots_for
from swinft.run.experiment import Experiment
from swinft.run.folds.dry_run import predict_some, trial_config
from swinft.run.folds.fold import fit_fold
from swinft.run.folds.hours import deadline
from swinft.run.freeze import prepare
from swinft.run.handover import CheckedImages
from swinft.run.layout import Run
from swinft.run.lock import hold
from swinft.run.scores import join, summary
from swinft.store import probe, sweep
from swinft.system.orphans import is_child
from swinft.system.processes import Child, launcher_ranks, rank, run_children

ORPHAN_SECONDS = 30.0  # for the fold's process of a parent that was killed to be gone, its writing included


def fit(experiment: Experiment) -> Run | None:
    """Fits what a command line asks for: a try, one fold, or all folds and their scores.

    Returns:
        The run; None after a try, of which nothing is kept.

    Raises:
        InputError: Data or config are wrong.
        RunError: A fold has failed.
    """
    config = experiment.config
    run = Run.at(Path(config.runs) / config.name)
    if rank():  # under DDP every rank runs this command again; the first one prepares and locks
        if config.fold is None:
            name, value = next(launcher_ranks())
            raise InputError(
                f"{name} is {value} in the environment, as for one of several processes that fit a fold together, but "
                f"no --fold is given. Unset {name} to fit all folds from this process, or give --fold to each of them."
            )
        fit_fold(run, experiment, None)
        return run
    if config.trainer.fast_dev_run:
        fit_trial(experiment)
        return None
    probe(run.root.parent)
    if config.fold is not None:
        lock = run.fold(config.fold).lock
        # A child's predecessor ends with its parent, but not in no time.
        with hold(lock, patience=ORPHAN_SECONDS if is_child() else 0, root=run.root):
            fit_fold(run, experiment, prepare(run, experiment, lock))
        return run
    with hold(run.lock, root=run.root):
        found = prepare(run, experiment, run.lock)
        sweep(run.root)
        fit_all(run, experiment, found)
    return run


def fit_trial(experiment: Experiment) -> None:
    """Tries a few batches of the first fold, from the first check to predictions, and leaves nothing."""
    config = experiment.config
    trial = trial_config(config)
    with TemporaryDirectory() as folder:
        config.runs = trial.runs = folder
        run = Run.at(Path(folder) / config.name)
        fit_fold(run, experiment.with_config(trial), prepare(run, experiment, run.lock))
        predicted = predict_some(run, experiment.with_config(trial))
    said = (
        number_of(predicted, "row to predict was predicted", "rows to predict were predicted")
        if predicted
        else "there are no rows to predict"
    )
    print(f"fast_dev_run: the first fold was trained, validated and predicted in part, and {said}. Nothing is kept.")


def fit_all(run: Run, experiment: Experiment, found: CheckedImages | None) -> None:
    """Fits every fold that is not done, each in its own process, and joins them.

    Args:
        run: The run, prepared.
        experiment: The experiment.
        found: The checked images; None where no fold waits.

    Raises:
        InputError: A fold has refused its input, and said why.
        RunError: A fold has failed; with the exit code of the first.
    """
    config = experiment.config
    started = time.perf_counter()
    folds = run.planned_folds()
    for index in filter(lambda index: run.fold(index).is_done, folds):
        print(f"fold {index}: done, skipped")
    waiting = [index for index in folds if not run.fold(index).is_done]
    slots = slots_for(config, run.devices_per_fold(), len(waiting)) if waiting else []
    for line in describe_slots(config, slots, run.devices_per_fold(), len(waiting)) if waiting else []:
        print(line)
    told = experiment.secrets() | (found.environment if found else {})
    told |= deadline(run, config, len(slots)) | side_by_side(slots)
    try:
        codes = run_children({index: fold_child(run, index, config.allow_code, told) for index in waiting}, slots)
    except (KeyboardInterrupt, SystemExit):
        print(f"\ninterrupted; finished epochs are kept. Go on with: {run.resume_command}", file=sys.stderr)
        raise
    if failed := {index: code for index, code in codes.items() if code}:
        raise _failure(run, failed)
    scores = join(run, experiment)
    print(summary(run, scores, time.perf_counter() - started))


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


def _failure(run: Run, failed: dict[int, int]) -> InputError | RunError:
    """What has become of the folds that failed, with their exit codes."""
    hints = {
        2: " Its message says what to change.",
        137: " It was killed, most often for a lack of memory: --data.loading.num_workers 0 needs less.",
    }
    lines = [
        f"fold {index} ended with exit code {code}; finished epochs are kept.{hints.get(code, '')} "
        f"What it printed is in {run.fold(index).log}."
        for index, code in failed.items()
    ]
    if 2 not in failed.values():  # bad input: the same command would end in the same way
        lines.append(f"Go on with: {run.resume_command}")
    code = next(iter(failed.values()))
    return InputError("\n".join(lines)) if code == 2 else RunError("\n".join(lines), code)
