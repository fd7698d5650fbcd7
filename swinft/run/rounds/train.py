"""Trains rounds: finished ones are skipped, stale ones refused, and labels are filtered before a round that asks."""

import json
import shlex
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from swinft.data.datamodule import CSVDataModule
from swinft.data.dropped import ALL
from swinft.data.folds import folds_csv
from swinft.errors import InputError, RunError
from swinft.inference.predictions import Predictions
from swinft.printing import print_line
from swinft.run.experiment import Experiment
from swinft.run.fit import fit
from swinft.run.folds.teacher import check_teachers, teachers_of
from swinft.run.layout import ROUNDS, Run
from swinft.run.resume import check_resume
from swinft.run.rounds.noise import dropped_csv, paired_folds, pairings
from swinft.run.rounds.plan import Plan, overwrite, said_of
from swinft.run.rounds.settings import Round
from swinft.run.rounds.table import compare_rounds, table_lines
from swinft.run.scoring import training_rows
from swinft.store import commit, is_committed, is_temporary, json_bytes, sweep, verify
from swinft.whole_folders import clear_deleted

MAKER = "swinft fit"


def start(plan: Plan, is_resumed: bool, overwrites: bool) -> None:
    """Makes the folder of all rounds, and writes its plan.

    Raises:
        InputError: The folder exists, and neither `--resume` nor `--overwrite` was given; or it is something else.
    """
    if is_resumed and overwrites:
        raise InputError("--resume continues the rounds, --overwrite deletes them: give one of them.")
    clear_deleted(plan.folder)
    if overwrites:
        overwrite(plan)
    there = [path for path in plan.folder.iterdir() if not is_temporary(path.name)] if plan.folder.exists() else []
    has_plan = (plan.folder / ROUNDS).is_file()
    if there and not has_plan:
        raise InputError(f"{plan.folder} exists and does not hold rounds: give the rounds another --name.")
    if has_plan and not is_resumed:
        raise InputError(
            f"{plan.folder} exists. --resume continues its rounds, --overwrite deletes them, --name NAME starts others."
        )
    if has_plan:
        sweep(plan.folder)
        before = json.loads((plan.folder / ROUNDS).read_text(encoding="utf-8"))["rounds"]
        for name in before:
            if name not in [each.name for each in plan.rounds] and (plan.folder / name).is_dir():
                print_line(f"{plan.folder / name} is of a round that the config no longer has: nothing uses it.")
    _write_plan(plan, None)


def _write_plan(plan: Plan, table: object) -> None:
    rounds = {each.name: {"from": each.sources, "does": each.does} for each in plan.rounds}
    found = {"rounds": rounds, "last": plan.last.name, "command": plan.resume_command, "table": table}
    commit(plan.folder / ROUNDS, json_bytes(found), MAKER)


def is_trained(run: Run) -> bool:
    """Whether all trainings of a run are finished, and it is scored."""
    if not run.is_run():
        return False
    return not run.unfinished_trainings() and is_committed(run.oof) and is_committed(run.scores)


def train_rounds(plan: Plan) -> Run:
    """Trains all rounds, prints the table that compares them, and writes it into `rounds.json`.

    Returns:
        The run of the last round.

    Raises:
        InputError: A round that is there is stale.
        RunError: A fold has failed.
    """
    started = time.perf_counter()
    for number, each in enumerate(plan.rounds, start=1):
        print()
        print_line(f"round {number} of {len(plan.rounds)}: {each.name}")
        _train_round(plan, each)
    table = compare_rounds(plan)
    _write_plan(plan, table)
    print()
    for line in table_lines(table, plan, time.perf_counter() - started):
        print_line(line)
    return plan.run(plan.last.name)


def _train_round(plan: Plan, each: Round) -> None:
    """Trains one round, unless it is finished and up to date."""
    run, first = plan.run(each.name), plan.run(plan.rounds[0].name)
    with said_of(each):
        drop = _filter(plan, each, first) if each.drop_noisy else None
        folds = None if each is plan.rounds[0] else first.folds
        experiment = plan.experiment(each, folds, drop, resume=run.is_run())
        _fit(plan, each, run, experiment)


def _fit(plan: Plan, each: Round, run: Run, experiment: Experiment) -> None:
    """Fits a run, or goes on with it; one that is finished is compared with what it would be now."""
    if run.is_run():
        _check_fresh(plan, each, run, experiment)
        if is_trained(run) and is_committed(run.report):  # it comes last: without it, a process ended before
            print_line(f"{run.root}: done, skipped")
            return
    fit(experiment)
    if not is_trained(run):
        raise RunError(f"{run.root} is not finished. Resume with: {plan.resume_command}")


def _check_fresh(plan: Plan, each: Round, run: Run, experiment: Experiment) -> None:
    """Compares a run that is there with its config, its tables, its teachers and the rows that it drops.

    Raises:
        InputError: One of them has changed since it was started.
    """
    drop = experiment.config.data.folds.drop
    try:
        check_resume(run, experiment)
        check_teachers(run, teachers_of(experiment))
        if drop and verify(run.dropped).read_bytes() != Path(drop).read_bytes():
            raise InputError(f"{drop} has changed since {run.root} was started: the rows that it drops are others.")
    except InputError as error:
        after = plan.after(each.name)
        stale = [plan.run(name).root for name in after]
        stale += [plan.filtered(other) for other in plan.rounds if set(other.sources) & set(after)]
        stale += [plan.filtered(each)] if run.root.parent == plan.filtered(each) else []
        there = shlex.join(str(path) for path in dict.fromkeys(stale) if path.exists())
        raise InputError(
            f"{error}\n  To train this round again, and those that learned from it: rm -r {there} && "
            f"{plan.resume_command}"
        ) from error


def _filter(plan: Plan, each: Round, first: Run) -> Path:
    """Decides which rows each fold of a round drops, and writes their list.

    Returns:
        The list; the same predictions write the same bytes.
    """
    assert each.drop_noisy is not None
    sources = [Run.open(plan.source(name)) for name in each.sources]
    data = training_rows(first, Experiment.of_run(first, "fit", plan.base.config.allow_code))
    ids, outputs = data.train_table.ids, data.schema.outputs
    oofs = [Predictions.read(verify(run.oof), len(outputs)).select(outputs).join(ids, str(run.oof)) for run in sources]
    own: NDArray[np.float32] = np.stack([oof.values for oof in oofs]).mean(0)
    folds = range(int(data.fold_of_row.max()) + 1)
    values: dict[int | str, NDArray[np.float32]] = dict.fromkeys(folds, own)
    if each.drop_noisy.nested:
        values = _nested(plan, each, data)
    content = dropped_csv(data, {**values, ALL: own}, each.drop_noisy.share).encode()
    path = plan.dropped(each)
    if not path.is_file() or path.read_bytes() != content:
        commit(path, content, MAKER)
    many = content.count(b"\n") - 1
    print_line(f"{path}: {many:,} lines, a row and a fold that does not train on it")
    return path


def _nested(plan: Plan, each: Round, data: CSVDataModule) -> dict[int | str, NDArray[np.float32]]:
    """For each fold the predictions of the rows of the others, by networks that have seen neither.

    A network that holds out the folds j and k predicts the rows of j for k, and those of k for j.
    """
    ids, folds = data.train_table.ids, data.fold_of_row
    shape = (len(ids), len(data.schema.outputs))
    num_folds = int(folds.max()) + 1
    found: dict[int | str, NDArray[np.float32]] = {
        fold: np.full(shape, np.nan, dtype=np.float32) for fold in range(num_folds)
    }
    for number, pairs in enumerate(pairings(num_folds)):
        file = plan.filtered(each) / f"pairs_{number}.csv"
        content = folds_csv(ids, paired_folds(folds, pairs)).encode()
        if not file.is_file() or file.read_bytes() != content:
            commit(file, content, MAKER)
        run = Run.at(plan.filtered(each) / f"pairs_{number}")
        experiment = plan.inner(each, number, file, resume=run.is_run())
        _fit(plan, each, run, experiment)
        values = Predictions.read(verify(run.oof), shape[1]).select(data.schema.outputs).join(ids, str(run.oof)).values
        for a, b in pairs:
            found[a][folds == b], found[b][folds == a] = values[folds == b], values[folds == a]
    return found
