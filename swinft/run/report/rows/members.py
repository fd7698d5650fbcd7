"""The runs behind an ensemble, whose networks and embeddings its report shows, as it has none of its own."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from swinft.data.datamodule import CSVDataModule
from swinft.errors import InputError, StoreError
from swinft.printing import visible
from swinft.run.experiment import Experiment
from swinft.run.layout import Run
from swinft.run.scoring import training_rows
from swinft.store import digest


@dataclass(frozen=True)
class Behind:
    """A run behind an ensemble.

    Args:
        name: The name of the member that it is, or is in.
        run: A run that was trained, or whose rows were frozen without a training.
        is_fitted_on: Whether a model on its embeddings predicts, and not its own networks.
    """

    name: str
    run: Run
    is_fitted_on: bool


@dataclass(frozen=True, eq=False)
class Explaining:
    """Networks that explain rows.

    Args:
        name: The name of the member whose they are; empty for those of the run itself.
        run: Their run.
        data: Its datamodule after `setup("fit")`.
        experiment: Its experiment.
    """

    name: str
    run: Run
    data: CSVDataModule
    experiment: Experiment


def members_of(run: Run, notes: list[str]) -> list[tuple[str, Run]]:
    """The members of an ensemble that are runs, with their names, those with the best score first.

    Args:
        run: The ensemble, or a run of models on embeddings, whose only member is the run of these.
        notes: A sentence is appended for each member that is no run, is gone, or has changed since.
    """
    found = []
    for member in _strongest_first(run, run.read_ensemble()["members"]):
        name = str(member["name"])
        if "run" not in member:
            notes.append(f"{visible(name)} is a table of another program.")
            continue
        folder = Path(os.path.normpath(run.root / member["run"]))
        try:
            own = Run.open(folder)
        except InputError:
            notes.append(f"The run of {visible(name)} is not at {folder}.")
            continue
        if _has_changed(run, member):
            notes.append(f"{visible(name)} has changed, or lost files, since {visible(run.root.name)} was made.")
        else:
            found.append((name, own))
    return found


def runs_behind(run: Run, notes: list[str]) -> Iterator[Behind]:
    """The trained runs behind an ensemble, those of the member with the best score first.

    Args:
        run: The ensemble, or a run of models on embeddings.
        notes: As of `members_of`.
    """
    for name, own in members_of(run, notes):
        if own.is_ensemble:
            yield from (Behind(name, each.run, each.is_fitted_on) for each in runs_behind(own, notes))
        else:
            yield Behind(name, own, run.is_embedding)


def explaining(run: Run, allow_code: Sequence[str] | None) -> Explaining | str:
    """The networks of the strongest member that predicts with networks of its own; or why there are none.

    Args:
        run: The ensemble.
        allow_code: Packages or modules whose classes the runs' configs may name.
    """
    notes: list[str] = []
    if run.is_embedding:
        return "a Grad-CAM would be of the network's own head, and not of the models on its embeddings"
    for behind in runs_behind(run, notes):
        if behind.is_fitted_on or behind.run.unfinished_folds():
            continue
        try:
            experiment = Experiment.of_run(behind.run, "report", list(allow_code or []) or None)
            return Explaining(behind.name, behind.run, training_rows(behind.run, experiment), experiment)
        except (InputError, StoreError) as error:
            notes.append(f"{visible(behind.name)}: {str(error).partition(chr(10))[0]}")
    return " ".join(notes) or "no member has networks of its own"


def _strongest_first(run: Run, members: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The members by their score on the rows of the ensemble."""
    table = run.read_scores().get("ensemble", {}).get("members", [])
    gains = {each["name"]: each["gain"] for each in table if each["gain"] is not None}
    return sorted(members, key=lambda member: -gains.get(member["name"], -math.inf))


def _has_changed(run: Run, member: dict[str, Any]) -> bool:
    """Whether what the ensemble was made of is no longer what the member has."""
    try:
        return any(digest(Path(os.path.normpath(run.root / path))) != sha for path, sha in member["files"].items())
    except StoreError:
        return True
