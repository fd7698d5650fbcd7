"""The members of an ensemble: runs, and tables of other programs, aligned by id and checked.

Shapes: N rows, K outputs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from swinft.data.datamodule import CSVDataModule
from swinft.data.schema import Schema
from swinft.errors import InputError, RunError, listed, number_of
from swinft.inference.foreign import header, read_foreign
from swinft.inference.predictions import FOLD, ID, Predictions
from swinft.printing import print_line
from swinft.run.ensemble.recipe import MemberSpec
from swinft.run.experiment import Experiment
from swinft.run.inputs import frozen_sha256
from swinft.run.layout import NO_FOLD, Run
from swinft.run.lock import hold_if_writable
from swinft.run.provenance import predictions_made_with
from swinft.run.scoring import training_rows
from swinft.store import digest, is_committed, sha256_of

Read = TypeVar("Read")
SHOWN = 5  # ids in a message
TOLERANCE = 1e-2  # of probabilities, as in metrics: the rounding error of a softmax in bf16


@dataclass(frozen=True)
class Base:
    """The run that an ensemble has its table, folds, metrics and submission from.

    Args:
        run: The run.
        experiment: Its experiment.
        data: Its datamodule, set up with the training rows.
        metrics: Its metrics, the first one first.
    """

    run: Run
    experiment: Experiment
    data: CSVDataModule
    metrics: list[Any]

    @classmethod
    def open(cls, folder: Path, allow_code: list[str] | None) -> "Base":
        """Reads the training table of a finished run; no image is read.

        Raises:
            InputError: It is no run, or not finished, or its training table has changed.
        """
        run = Run.open(folder)
        check_finished(run)
        experiment = Experiment.of_run(run, "ensemble", allow_code)
        data = training_rows(run, experiment)
        return cls(run, experiment, data, experiment.section("model")["metrics"] or list(run.read_scores()["pooled"]))


@dataclass(frozen=True)
class Member:
    """A member with its predictions.

    Args:
        spec: Where they are.
        oof: Out-of-fold predictions of all training rows, in the order of the table; NaN for rows without one.
        files: SHA-256 of the tables, by path.
    """

    spec: MemberSpec
    oof: Predictions
    files: dict[str, str]

    @property
    def has_values(self) -> NDArray[np.bool_]:
        """Which training rows it predicted, bool (N,)."""
        found: NDArray[np.bool_] = np.logical_and.reduce(np.isfinite(self.oof.values), axis=1)
        return found


def check_finished(run: Run) -> None:
    """Checks that a run has its out-of-fold predictions and scores.

    Raises:
        InputError: It has not.
    """
    if not is_committed(run.oof) or not is_committed(run.scores):
        raise InputError(f"{run.root} has no out-of-fold predictions yet. Run `{run.resume_command}` first.")


def refuse_maps(run: Run, schema: Schema) -> None:
    """Refuses runs of segmentation.

    Raises:
        InputError: The run predicts masks.
    """
    if schema.base.are_maps:
        raise InputError(
            f"{run.root} predicts masks ({schema.kind}), which ensembles do not combine: their members would "
            f"need the maps of every row at once. `seeds` in one config averages the maps of several trainings."
        )


def read_oof(spec: MemberSpec, base: Base, allow_code: list[str] | None, same_folds: bool = True) -> Member:
    """Reads a member's out-of-fold predictions, and compares ids, outputs, targets and folds with those of the base.

    Args:
        spec: The member.
        base: The base.
        allow_code: Packages or modules whose classes the run's config may name.
        same_folds: Whether its folds must be those of the base; if not, another program's table may lack them.

    Raises:
        InputError: They differ.
    """
    if spec.run is None:
        assert spec.oof is not None
        path = spec.oof
        has_folds = same_folds or FOLD in header(path, base.data.schema.outputs)
        (found, notes), sha = _with_sha256(
            path, lambda: read_foreign(path, base.data.schema, [ID, base.data.settings.id], has_folds=has_folds)
        )
        if found.fold is None:
            found = replace(found, fold=np.full(len(found), NO_FOLD))
        for note in notes:
            print_line(f"  {note}")
        found = _among_rows(found, base, path)
    else:
        run = Run.open(spec.run)
        path = run.oof
        with hold_if_writable(run.lock):
            check_finished(run)
            schema = Schema.from_dict(run.read_schema())
            refuse_maps(run, schema)
            if schema.kind_name != base.data.schema.kind_name:
                raise InputError(
                    f"{run.root} predicts {schema.kind_name}, and {base.run.root} {base.data.schema.kind_name}: the "
                    f"members of an ensemble predict the same target."
                )
            found = selected(Predictions.read(path, len(schema.outputs)), base.data.schema, path)
            found, sha = _joined(found, base.data.train_table.ids, path), digest(path)
            _check_targets(run, base, allow_code)
    if same_folds:
        _check_folds(found, base, path)
    check_range(found, base.data.schema, path)
    return Member(spec, found, {str(path): sha})


def read_test(spec: MemberSpec, schema: Schema, id_names: Sequence[str]) -> tuple[Predictions, dict[str, str]]:
    """Reads a member's test predictions; a run's must be of its current weights.

    Args:
        spec: The member.
        schema: The outputs of the ensemble.
        id_names: Allowed names of the id column of a table that no run wrote.

    Returns:
        The predictions, and the SHA-256 of their file by its path.

    Raises:
        InputError: They are missing, out of date, or have other outputs.
    """
    if spec.run is None:
        assert spec.test is not None
        path = spec.test
        (found, _), sha = _with_sha256(path, lambda: read_foreign(path, schema, id_names))
    else:
        run = Run.open(spec.run)
        path = run.test_predictions
        with hold_if_writable(run.lock):
            predictions_made_with(run)
            found, sha = Predictions.read(path, len(run.read_schema()["outputs"])), digest(path)
        found = selected(found, schema, path)
    check_range(found, schema, path)
    return found, {str(path): sha}


def _with_sha256(path: Path, read: Callable[[], Read]) -> tuple[Read, str]:
    """What is read of a file that another program may be writing, and the file's SHA-256.

    Raises:
        InputError: It changed in the meantime.
    """
    before = sha256_of(path) if path.is_file() else ""
    found = read()
    if sha256_of(path) != before:
        raise InputError(f"{path} changed while it was read: run the command again when it is complete.")
    return found, before


def same_rows(tests: Sequence[Predictions], paths: Sequence[str]) -> list[Predictions]:
    """Test predictions in the order of the first ones.

    Raises:
        InputError: Some have other ids.
    """
    return [_joined(found, tests[0].ids, Path(path)) for found, path in zip(tests, paths, strict=True)]


def selected(found: Predictions, schema: Schema, path: Path) -> Predictions:
    """The outputs of a schema, in its order.

    Raises:
        InputError: The predictions have others.
    """
    try:
        if len(found.outputs) != len(schema.outputs):
            raise InputError(f"it has the outputs {listed(found.outputs)}, and the first run {listed(schema.outputs)}.")
        return found.select(schema.outputs)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def check_range(found: Predictions, schema: Schema, path: Path) -> None:
    """Checks that predictions that should be probabilities are in 0–1.

    Raises:
        InputError: Some are not.
    """
    if not schema.base.are_probabilities:
        return
    low, high = float(np.nanmin(found.values)), float(np.nanmax(found.values))
    if not (low >= -TOLERANCE and high <= 1 + TOLERANCE):
        raise InputError(
            f"{path}: the predictions are from {low:.4g} to {high:.4g}, and {schema.kind_name} needs probabilities in "
            f"0–1: write probabilities, not logits or percentages."
        )


def common_rows(members: Sequence[Member], base: Base, may_differ: bool) -> NDArray[np.int64]:
    """Numbers of the training rows that every member predicted and the base scores.

    Args:
        members: The members.
        base: The base.
        may_differ: Whether rows are left out that some members did not predict.

    Raises:
        InputError: There are such rows, and they may not differ; or no row is left.
    """
    ids = np.array(base.data.train_table.ids)
    scored = base.data.is_scored
    common: NDArray[np.bool_] = scored
    for member in members:
        common = np.logical_and(common, member.has_values)
    lines = [
        f"{next(iter(member.files))}: {number_of(len(lacking), 'row')} without a prediction: "
        f"{listed(ids[lacking].tolist(), SHOWN)}"
        for member in members
        if len(lacking := np.flatnonzero(scored & ~member.has_values))
    ]
    if lines and not may_differ:
        advice = (
            "Their scores would be of different rows. Predict these rows, or add --common-rows to leave them out of "
            "every member: the scores are then not those of the runs, and often too good, as such rows are hard."
        )
        raise InputError("\n  ".join(["the members predicted different training rows:", *lines, advice]))
    if not common.any():
        raise InputError("the members have no training row in common that is scored.")
    return np.flatnonzero(common)


def _joined(found: Predictions, ids: Sequence[str], path: Path) -> Predictions:
    """The rows of these ids, each once.

    Raises:
        InputError: Ids are missing, duplicate or unknown.
    """
    try:
        return found.join(ids, str(path))
    except RunError as error:
        raise InputError(f"{error}\n  The members of an ensemble predict the same rows.") from None


def _among_rows(found: Predictions, base: Base, path: Path) -> Predictions:
    """Predictions of another program for all training rows, in their order; NaN for those that it lacks.

    Raises:
        InputError: Ids are unknown.
    """
    ids = base.data.train_table.ids
    if unknown := sorted(set(found.ids) - set(ids)):
        raise InputError(
            f"{path}: {number_of(len(unknown), 'id is', 'ids are')} not in the training table of {base.run.root}: "
            f"{listed(unknown, SHOWN)}."
        )
    assert found.fold is not None
    fold_of = dict(zip(found.ids, found.fold.tolist(), strict=True))
    folds = [fold_of.get(id, NO_FOLD) for id in ids]
    return replace(found.among(ids, np.nan), fold=np.array(folds, dtype=np.int64))


def _check_folds(found: Predictions, base: Base, path: Path) -> None:
    """Compares the folds of the predicted rows.

    Raises:
        InputError: They differ.
    """
    assert found.fold is not None
    data = base.data
    rows = np.flatnonzero(data.is_scored & np.isfinite(found.values).all(1) & (found.fold != data.fold_of_row))
    if len(rows):
        shown = [f"{found.ids[row]} is in {found.fold[row]}, not {data.fold_of_row[row]}" for row in rows[:SHOWN]]
        raise InputError(
            f"{path}: {number_of(len(rows), 'row is', 'rows are')} in another fold than in {base.run.folds}: "
            f"{listed(shown)}. Scores on different folds cannot be compared row by row, and weights could not be "
            f"scored on a fold that none of the members has seen. Fit this member with data.folds.file "
            f"{base.run.folds}."
        )


def _check_targets(run: Run, base: Base, allow_code: list[str] | None) -> None:
    """Compares a member's targets with those of the base, by id; the table is read only if it may hold others.

    Raises:
        InputError: They differ.
    """
    config, own = run.read_config()["data"], base.run.read_config()["data"]
    tables = {frozen_sha256(run, config["train"]), frozen_sha256(base.run, own["train"])}
    keys = ("train", "target", "target_kind", "id", "columns")
    if len(tables) == 1 and None not in tables and all(config[key] == own[key] for key in keys):
        return
    theirs = _truth(training_rows(run, Experiment.of_run(run, "ensemble", allow_code)), base.data.schema)
    ours = _truth(base.data, base.data.schema)
    differ = [id for id in ours if theirs.get(id) != ours[id]]
    if differ:
        raise InputError(
            f"{run.root} was trained on other targets than {base.run.root}: those of "
            f"{number_of(len(differ), 'id')} differ: {listed(differ, SHOWN)}. The members of an ensemble predict the "
            f"same target."
        )


def _truth(data: CSVDataModule, schema: Schema) -> dict[str, tuple[str, ...]]:
    """The target of each training row as text, by id, whatever the order of the outputs is."""
    if data.targets.ndim == 1:
        names = [(data.schema.outputs[k] if k >= 0 else "",) for k in data.targets.tolist()]
        return dict(zip(data.train_table.ids, names, strict=True))
    columns = [data.schema.outputs.index(name) for name in schema.outputs]
    rows = data.targets[:, columns].tolist()
    return {id: tuple(map(str, row)) for id, row in zip(data.train_table.ids, rows, strict=True)}


def lacks_test(spec: MemberSpec) -> bool:
    """Whether a member has no test predictions yet."""
    return spec.test is None if spec.run is None else not Run.open(spec.run).test_predictions.is_file()
