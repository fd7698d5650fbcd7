"""Fits every fold in a separate process, then joins their predictions.

A fold's process runs the same command with `--fold k`, so callbacks, GPU memory and crashes never affect other folds.
"""

import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from jsonargparse import Namespace

from swinft.data.roots import resolved_root
from swinft.errors import InputError, RunError, command, number_of
from swinft.run.checked_images import CheckedImages
from swinft.run.compute.devices import describe_slots, parallel_folds_variable, slots_for
from swinft.run.experiment import Experiment
from swinft.run.fold_files import ALL, FoldId, seed_in, trainings_of
from swinft.run.folds.dry_run import dry_run_config, predict_some
from swinft.run.folds.fold import fit_fold
from swinft.run.folds.hours import deadline
from swinft.run.freeze import prepare
from swinft.run.layout import Run
from swinft.run.lock import hold
from swinft.run.scores import join, summary
from swinft.run.trackers.run_records import send_run
from swinft.store import probe, sweep
from swinft.system.cluster.checks import check_nodes
from swinft.system.cluster.copies import list_data
from swinft.system.cluster.environment import is_on_cluster
from swinft.system.cluster.place import LOCAL, check_place
from swinft.system.log import logged
from swinft.system.orphans import is_child
from swinft.system.processes import Child, launcher_ranks, rank, run_children
from swinft.system.shown import ALONE, Following

FIRST_RANK_SECONDS = 3600.0  # for rank 0 to check every image
ORPHAN_SECONDS = 30.0  # for an orphaned process of the same fold to finish writing and end
JOIN_SECONDS, JOIN_SECONDS_PER_ROW = 5.0, 0.0006  # scores and report, for the time left: a CPU's for some thousand rows
LOST_SECONDS = 90.0  # for one on a node that cannot be reached; it notices within 30 s, and its lock outlives it by 20


def fit(experiment: Experiment) -> Run | None:
    """Runs a command line of `fit`: a dry run, one fold, or all folds and their scores.

    Returns:
        The run; None for a dry run, which saves nothing.

    Raises:
        InputError: Data or config are wrong.
        RunError: A fold has failed.
    """
    config = experiment.config
    if config.fold is not None and not re.fullmatch(r"-?\w+", str(config.fold)):  # it becomes a file's name
        raise InputError(f"--fold is '{config.fold}'; give the number of a fold, or all.")
    run = Run.at(Path(config.runs) / config.name)
    if rank():  # under DDP every rank runs this command again; rank 0 prepares and locks
        if config.fold is None:
            name, value = next(launcher_ranks())
            raise InputError(
                f"{name} is {value} in the environment, as if several processes fitted a fold together, but no --fold "
                f"is given. Unset {name} to fit all folds from this process, or give --fold to each process."
            )
        wait_for_first_rank(run, config)
        fit_fold(run, experiment, None)
        return run
    check_run_place(config, run)
    if config.trainer.fast_dev_run:
        fit_dry_run(experiment)
        return None
    if _has_seeds_of_fold(config):
        with hold(run.lock, root=run.root):
            found = prepare(run, experiment, run.lock)
            fit_each(run, experiment, found, trainings_of([config.fold], config.seeds))
        return run
    if config.fold is not None:
        lock = run.fold(config.fold).lock
        # After a killed parent, the earlier process of this fold may need a moment to end.
        patience = LOST_SECONDS if is_on_cluster() else ORPHAN_SECONDS
        with hold(lock, patience=patience if is_child() else 0, root=run.root):
            found = prepare(run, experiment, lock)
            with _logged(run, config), advice_if_interrupted(f"{run.resume_command} --fold {config.fold}"):
                fit_fold(run, experiment, found)
        return run
    with hold(run.lock, root=run.root):
        found = prepare(run, experiment, run.lock)
        sweep(run.root)
        fit_all(run, experiment, found)
    return run


@contextmanager
def advice_if_interrupted(command: str, saved: str = "finished epochs are saved") -> Iterator[None]:
    """Says how to go on after Ctrl-C or SIGTERM; the parent of a child does.

    Args:
        command: What continues.
        saved: What is not lost.
    """
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if not is_child():
            print(f"\ninterrupted; {saved}. Resume with: {command}", file=sys.stderr)
        raise


def _logged(run: Run, config: Namespace) -> AbstractContextManager[None]:
    """The log of a fold that this process fits; the parent of a child writes it, and one that is done needs none."""
    fold = run.fold(config.fold)
    if is_child() or fold.is_done:
        return nullcontext()
    return logged(fold.log, fold_child(run, config.fold, config.allow_code, {}).words)


def wait_for_first_rank(run: Run, config: Namespace) -> None:
    """Waits until rank 0 has checked and frozen the run: torchrun and SLURM start every rank at once.

    Raises:
        InputError: Rank 0 deletes the run first, so that this rank cannot tell the old one from the new one.
        RunError: There is no run after `FIRST_RANK_SECONDS`.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ and "SLURM_PROCID" not in os.environ:
        return  # started by Lightning in rank 0, after its checks
    if config.overwrite:
        raise InputError(f"--overwrite with processes that a launcher starts: delete {run.root} first, without it.")
    until = time.monotonic() + FIRST_RANK_SECONDS
    while not run.is_run():
        if time.monotonic() > until:
            raise RunError(f"rank {rank()}: rank 0 has not written {run.config} within {FIRST_RANK_SECONDS:.0f} s.")
        time.sleep(0.5)


def check_run_place(config: Namespace, run: Run) -> None:
    """Checks the folder of the runs, and for `--on` the nodes of the cluster.

    Raises:
        InputError: The folder is not writable, or a node lacks what a fold needs there; or one fold is for several
            machines, and no launcher has started this process.
    """
    if config.trainer.num_nodes > 1 and (config.fold is None or not list(launcher_ranks())):
        raise InputError(
            f"trainer.num_nodes is {config.trainer.num_nodes}: a launcher such as torchrun must start `swinft fit "
            f"--fold K` on each of them, see docs/cluster.md. --on fits each fold on one machine."
        )
    runs_here = config.trainer.fast_dev_run or (config.fold is not None and not _has_seeds_of_fold(config))
    if check_place(config.on) != LOCAL and runs_here:
        raise InputError(f"--on {config.on}: a dry run and a fold given by --fold run in this process. Remove --on.")
    if not config.trainer.fast_dev_run:
        probe(run.root.parent)
    if config.on != LOCAL:
        check_nodes(config.on, run.root.parent, [] if config.copy_data else files_to_read(config))
    elif config.copy_data:
        raise InputError("--copy-data copies the data to the nodes of a cluster: give --on, too.")


def _has_seeds_of_fold(config: Namespace) -> bool:
    """Whether `--fold` names a fold of which every seed is trained, each in a process of its own."""
    return config.fold is not None and bool(config.seeds) and seed_in(config.fold) is None


def files_to_read(config: Namespace) -> list[Path]:
    """The data's folder and the tables in it that every node must have."""
    root = Path(resolved_root(config.data.root))
    names = [getattr(config.data, key, None) for key in ("train", "test", "sample_submission")]
    tables = [root / name for name in names if isinstance(name, str)]
    return [root, *(table for table in tables if table.is_file())]


def fit_dry_run(experiment: Experiment) -> None:
    """Runs a few batches of the first fold, from the first check to predictions, and saves nothing."""
    config = experiment.config
    short = dry_run_config(config)
    with TemporaryDirectory() as folder:
        config.runs = short.runs = folder
        run = Run.at(Path(folder) / config.name)
        fit_fold(run, experiment.with_config(short), prepare(run, experiment, run.lock))
        predicted = predict_some(run, experiment.with_config(short))
    test_rows = (
        number_of(predicted, "test row was predicted", "test rows were predicted")
        if predicted
        else "there are no test rows"
    )
    print(f"fast_dev_run: the first fold was trained, validated and predicted in part; {test_rows}. Nothing is saved.")


def fit_all(run: Run, experiment: Experiment, found: CheckedImages | None) -> None:
    """Fits every unfinished fold, each in its own process, and joins them.

    Args:
        run: The prepared run.
        experiment: The experiment.
        found: The checked images; None if all folds are finished.

    Raises:
        InputError: A fold has ended with exit code 2; its output says why.
        RunError: A fold has failed; with its exit code.
    """
    started = time.perf_counter()
    on_all = run.trainings_on_all()
    more = sum(not run.fold(name).is_done for name in on_all)
    fit_each(run, experiment, found, run.planned_folds(), Following(more, join_seconds(run)))
    scores = join(run, experiment)
    print(summary(run, scores, time.perf_counter() - started))
    if on_all:
        fit_each(run, experiment, found, on_all)
        print(f"trained on every row: {command('predict', run.root, '--folds', ALL)}")
    send_run(run, experiment)


def fit_each(
    run: Run,
    experiment: Experiment,
    found: CheckedImages | None,
    folds: Sequence[FoldId],
    following: Following = ALONE,
) -> None:
    """Fits the unfinished ones of some trainings, each in its own process. Arguments and errors as `fit_all`.

    Args:
        run: The run.
        experiment: The experiment.
        found: The checked images.
        folds: The trainings.
        following: What is shown besides, and what the time left includes.
    """
    config = experiment.config
    for index in filter(lambda index: run.fold(index).is_done, folds):
        run.fold(index).delete_checkpoints()  # if a process was killed while it did
        print(f"fold {index}: done, skipped")
    waiting = [index for index in folds if not run.fold(index).is_done]
    if not waiting:
        return
    slots = slots_for(config, run.devices_per_fold(), len(waiting), config.on)
    if config.on == LOCAL:
        for line in describe_slots(config, slots, run.devices_per_fold(), len(waiting)):
            print(line)
    else:
        print(f"{config.on}: {number_of(len(waiting), 'fold')} on {number_of(len(slots), 'place')} at a time")
    variables = experiment.secrets() | (found.environment if found else {})
    variables |= deadline(run, config, len(slots)) | parallel_folds_variable(slots)
    with advice_if_interrupted(run.resume_command), data_on_nodes(config) as (words, listed):
        children = {
            index: replace(
                fold_child(run, index, config.allow_code, variables | listed, words),
                part=part_left(run, index, config.trainer.max_epochs),
            )
            for index in waiting
        }
        codes = run_children(children, slots, on=config.on, following=following)
    if failed := {index: code for index, code in codes.items() if code}:
        raise _failure(run, failed)


@contextmanager
def data_on_nodes(config: Namespace) -> Iterator[tuple[list[str], dict[str, str]]]:
    """Options and environment variables of a child whose node gets a copy of the data; none without `--copy-data`."""
    if not config.copy_data:
        yield [], {}
        return
    with TemporaryDirectory() as folder:
        root, listed = list_data(Path(resolved_root(config.data.root)), config.copy_data, Path(folder) / "files.json")
        yield [f"--data.root={root}"], listed


def fold_child(
    run: Run, index: FoldId, allow_code: list[str], variables: dict[str, str], more: Sequence[str] = ()
) -> Child:
    """The process that fits a fold.

    Args:
        run: The prepared run.
        index: Its name.
        allow_code: The option of this process.
        variables: Additional environment variables, such as secrets and the state of the images.
        more: Additional options.
    """
    words = ["fit", "--config", str(run.config), "--fold", str(index), "--resume", *more]
    words += ["--allow-code", ",".join(allow_code)] if allow_code else []
    return Child(words, variables, run.fold(index).log, f"fold {index}")


def join_seconds(run: Run) -> float:
    """About how long scores and report will take, in seconds."""
    return JOIN_SECONDS + JOIN_SECONDS_PER_ROW * run.folds.read_bytes().count(b"\n")


def part_left(run: Run, index: FoldId, max_epochs: int | None) -> float:
    """What of a fold is still to be trained, from 0 to 1: an earlier process may have trained some of its epochs."""
    done = run.fold(index).recorded_epochs()
    if not max_epochs or max_epochs < 1:
        return 0.99 if done else 1.0  # how much is left is not known here, only that it is not all
    return max(0.0, 1 - done / max_epochs)


def _failure(run: Run, failed: Mapping[FoldId, int]) -> InputError | RunError:
    """The error for folds that failed, with their exit codes."""
    hints = {
        2: " Its message says what to change.",
        137: " It was killed, most often for lack of memory: --data.loading.num_workers 0 needs less.",
    }
    lines = [
        f"fold {index} ended with exit code {code}; finished epochs are saved.{hints.get(code, '')} "
        f"Its output is in {run.fold(index).log}."
        for index, code in failed.items()
    ]
    if 2 not in failed.values():  # with bad input the same command would fail again
        lines.append(f"Resume with: {run.resume_command}")
    code = next(iter(failed.values()))
    return InputError("\n".join(lines)) if code == 2 else RunError("\n".join(lines), code)
