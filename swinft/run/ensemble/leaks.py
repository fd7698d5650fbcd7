"""What a member's config says of its score: whether its networks may have seen the rows that they are scored on."""

import json
from typing import Any

import numpy as np

from swinft.errors import InputError, listed
from swinft.printing import visible
from swinft.run.ensemble.members import Base, Member
from swinft.run.experiment import Experiment
from swinft.run.folds.pretrained import Leak, find_leak
from swinft.run.folds.teacher import TeacherRun, teachers_of
from swinft.run.layout import ROUNDS, Run


def notes_on_members(members: list[Member], base: Base, allow_code: list[str] | None) -> list[str]:
    """One line for each doubt about a member that is a run, and for rules that do not act.

    Raises:
        InputError: The labels or the teacher of a member were made by networks that were trained on rows which are
            scored.
    """
    notes, has_other_rules = [], []
    own = base.run.read_config().get("submission") or {}
    for member in members:
        if member.spec.run is None:
            continue
        run, name = Run.open(member.spec.run), visible(member.spec.name)
        if not run.is_ensemble:
            _check_teachers(run, Experiment.of_run(run, "ensemble", allow_code), base)
        notes += [f"{name}: {note}" for note in doubts_of(run, base, allow_code)]
        theirs = run.read_config().get("submission") or {}
        if any(theirs.get(key) and theirs.get(key) != own.get(key) for key in ("rules", "group")):
            has_other_rules.append(name)
    if has_other_rules:
        notes.append(
            f"the submission.rules and submission.group of {listed(has_other_rules)} are not applied: predictions are "
            f"combined before rules, and then those of {base.run.root.name} act."
        )
    return notes


def doubts_of(run: Run, base: Base, allow_code: list[str] | None) -> list[str]:
    """One sentence for each reason to doubt the score of a run with the folds of the base; those that its members had.

    Args:
        run: The run.
        base: The base.
        allow_code: Packages or modules whose classes the run's config may name.
    """
    if run.is_ensemble:
        scores = run.read_scores()
        return list(scores.get("ensemble", scores.get("embedding", {})).get("warnings", ()))
    experiment = Experiment.of_run(run, "ensemble", allow_code)
    notes, extra = [], experiment.config.data.folds.extra or []
    if tables := [str(each["table"]) for each in map(dict, extra) if not each.get("labels")]:
        notes.append(
            f"trained on the rows of {listed(tables)} with the targets of that table. If these were predicted by "
            f"networks that were trained on all folds, its score is too good: name their run in "
            f"data.folds.extra.labels, which labels the rows for each fold by the networks that did not see it."
        )
    runs = [run, *(teacher.run for teacher in _teachers(experiment))]
    if found := list(dict.fromkeys(each.root.name for each in runs if drops_by_seen_labels(each))):
        what = "it does" if found == [run.root.name] else f"{listed(found)} {'does' if len(found) == 1 else 'do'}"
        notes.append(
            f"WARNING: rows that {what} not train on (data.folds.drop, or drop_noisy with nested: false) may have been "
            f"chosen by networks that had seen the labels of the rows that are scored: its score may be too good. "
            f"drop_noisy with nested: true chooses them without these labels."
        )
    folds = np.unique(base.data.fold_of_row[base.data.is_scored]).tolist()
    leaks = [leak for fold in folds if (leak := _leak(experiment.config, base, fold))]
    if leaks:
        rows, of = sum(leak.rows for leak in leaks), sum(leak.held_out for leak in leaks)
        notes.append(
            f"WARNING: it started from weights (model.pretrained {experiment.config.model.pretrained}), or these from "
            f"others, that were trained on {rows:,} of the {of:,} rows of the folds that they are scored on, such as "
            f"{leaks[0].file}: its score is too good."
        )
    return notes


def drops_by_seen_labels(run: Run) -> bool:
    """Whether a run drops rows by a list of unknown origin, or is marked as possibly too good among its rounds."""
    file = run.root.parent / ROUNDS
    if not file.is_file():
        return bool(run.read_config()["data"]["folds"].get("drop"))
    table = json.loads(file.read_text(encoding="utf-8")).get("table") or {}
    return any(each["is_optimistic"] for each in table.get("rounds", ()) if each["name"] == run.root.name)


def _leak(config: Any, base: Base, fold: int) -> Leak | None:
    """As `find_leak`; None if the weights are no longer here."""
    try:
        return find_leak(config, base.data, fold)
    except InputError:
        return None


def _check_teachers(run: Run, experiment: Experiment, base: Base) -> None:
    """Checks again what was checked when the run was fitted, where its teachers are still here.

    Raises:
        InputError: A teacher was trained on rows that are scored.
    """
    for teacher in _teachers(experiment):
        try:
            teacher.check_unseen(base.data)
        except InputError as error:
            raise InputError(f"{run.root} cannot be a member, since its score is too good. {error}") from None


def _teachers(experiment: Experiment) -> list[TeacherRun]:
    """What a run has learned from; nothing where that was moved or deleted: it was checked when the run was started."""
    try:
        return teachers_of(experiment)
    except InputError:
        return []
