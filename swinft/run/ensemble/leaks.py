"""What a member's config says of its score: whether its networks may have seen the rows that they are scored on."""

from typing import Any

import numpy as np

from swinft.errors import InputError, listed
from swinft.printing import visible
from swinft.run.ensemble.members import Base, Member
from swinft.run.experiment import Experiment
from swinft.run.folds.pretrained import Leak, find_leak
from swinft.run.folds.teacher import TeacherRun, teachers_of
from swinft.run.layout import Run


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
        notes += [f"{name}: {note}" for note in _notes_on(run, base, allow_code)]
        theirs = run.read_config().get("submission") or {}
        if any(theirs.get(key) and theirs.get(key) != own.get(key) for key in ("rules", "group")):
            has_other_rules.append(name)
    if has_other_rules:
        notes.append(
            f"the submission.rules and submission.group of {listed(has_other_rules)} are not applied: predictions are "
            f"combined before rules, and then those of {base.run.root.name} act."
        )
    return notes


def _notes_on(run: Run, base: Base, allow_code: list[str] | None) -> list[str]:
    if run.is_ensemble:
        scores = run.read_scores()
        return list(scores.get("ensemble", scores.get("embedding", {})).get("warnings", ()))
    experiment = Experiment.of_run(run, "ensemble", allow_code)
    _check_teachers(run, experiment, base)
    notes, extra = [], experiment.config.data.folds.extra or []
    if tables := [str(each["table"]) for each in map(dict, extra) if not each.get("labels")]:
        notes.append(
            f"trained on the rows of {listed(tables)} with the targets of that table. If these were predicted by "
            f"networks that were trained on all folds, its score is too good: name their run in "
            f"data.folds.extra.labels, which labels the rows for each fold by the networks that did not see it."
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
    teachers: list[TeacherRun] = []
    try:
        teachers = teachers_of(experiment)
    except InputError:
        return  # moved or deleted: the run itself was checked when it was started
    for teacher in teachers:
        try:
            teacher.check_unseen(base.data)
        except InputError as error:
            raise InputError(f"{run.root} cannot be a member, since its score is too good. {error}") from None
