"""Predicts the test rows with an ensemble: its method on the current test predictions of its members."""

import os
from collections.abc import Callable, Container, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from swinft.data.schema import Schema
from swinft.errors import InputError, command, listed, number_of
from swinft.inference.predictions import ID, Predictions
from swinft.inference.provenance import PREDICT, Provenance
from swinft.printing import print_line
from swinft.run.ensemble.members import lacks_test, read_test, same_rows
from swinft.run.ensemble.method import Array
from swinft.run.ensemble.methods import method_of
from swinft.run.ensemble.nested import combined
from swinft.run.ensemble.recipe import MemberSpec
from swinft.run.experiment import Experiment
from swinft.run.layout import Run
from swinft.run.lock import hold_if_writable
from swinft.run.prediction.options import PredictOptions
from swinft.run.provenance import check_output, submit_command, write_made_from

TAKEN = ("output", "root", "allow_code")  # the options that act


def predict_ensemble(run: Run, options: PredictOptions, writes: bool = True) -> Predictions:
    """Combines the current test predictions of the members, and prints a summary.

    Args:
        run: The ensemble.
        options: Only `output`, `root` and `allow_code` act.
        writes: Whether to write the predictions, to `options.output` or the ensemble's test_predictions.csv.

    Returns:
        The predictions, in the order of the first member's, with their provenance.

    Raises:
        InputError: A member has no test predictions, or other rows than the first one; or another option is given.
    """
    refusal = (
        f"{run.root} is an ensemble, which combines the test predictions of its members: predict with the members' own "
        f"runs first, and give such options there."
    )
    check_taken(options, TAKEN, refusal)
    return predict_by(lambda: combine(run, options), run, options, writes)


def check_taken(options: PredictOptions, taken: Container[str], refusal: str) -> None:
    """Refuses options that do not act.

    Args:
        options: The options.
        taken: Names of those that act.
        refusal: Why the others do not, and what to do.

    Raises:
        InputError: Another one is given.
    """
    given = [field.name for field in fields(options) if getattr(options, field.name) != field.default]
    if odd := [f"--{name.replace('_', '-')}" for name in given if name not in taken]:
        raise InputError(f"{listed(odd)}: {refusal}")


def predict_by(make: Callable[[], Predictions], run: Run, options: PredictOptions, writes: bool) -> Predictions:
    """Makes predictions of a run that has members, writes them, and prints a summary.

    Args:
        make: Returns the predictions with their provenance; it is called with the run's lock.
        run: The run.
        options: Of which `output` acts.
        writes: As of `predict_ensemble`.
    """
    path = (Path(options.output) if options.output else run.test_predictions) if writes else None
    with hold_if_writable(run.lock):
        if path:
            check_output(run, path, PREDICT)
        found = make()
        if path:
            assert found.provenance
            made_from = {"rows": len(found), "provenance": asdict(found.provenance)}
            write_made_from(run, path, found.write_to, PREDICT, made_from)
    where = f": {path}" if path else ""
    print_line(f"{number_of(len(found), 'row')}, columns {listed(found.outputs)}{where}")
    print_line(f"  {run.read_ensemble()['described']}")
    if path:
        print_line(f"next: {submit_command(run, path)}")
    return found


def combine(run: Run, options: PredictOptions) -> Predictions:
    """The method on the current test predictions of the members.

    Raises:
        InputError: A member has no test predictions, or the table lacks some of its ids.
    """
    recipe, schema = run.read_ensemble(), Schema.from_dict(run.read_schema())
    specs = [placed(member, run) for member in recipe["members"]]
    if lacking := [spec for spec in specs if lacks_test(spec)]:
        commands = [f"`{command('predict', spec.run)}`" for spec in lacking if spec.run]
        raise InputError(
            f"without test predictions: {listed(spec.name for spec in lacking)}. Run {listed(commands)} first."
            if commands
            else f"without a table of test predictions: {listed(spec.name for spec in lacking)}. Name it in the recipe."
        )
    tests, files = tests_of(specs, schema, run.read_config()["data"]["id"])
    features = _features(run, tests[0].ids, options) if recipe["has_features"] else None
    hashes = {os.path.relpath(Path(name).resolve(), run.root.resolve()): sha for name, sha in files.items()}
    return by_method(run, tests, schema, features, hashes)


def tests_of(specs: Sequence[MemberSpec], schema: Schema, id: str) -> tuple[list[Predictions], dict[str, str]]:
    """The test predictions of all members in the order of the first ones, and the SHA-256 of their files by path.

    Args:
        specs: The members.
        schema: The outputs of the ensemble.
        id: Name of the id column in the training table, which tables of other programs may have as well.

    Raises:
        InputError: Some are missing, out of date, or of other rows.
    """
    tests: list[Predictions] = []
    files: dict[str, str] = {}
    for spec in specs:
        found, hashes = read_test(spec, schema, [ID, id])
        tests.append(found)
        files |= hashes
    return same_rows(tests, list(files)), files


def by_method(
    run: Run, tests: list[Predictions], schema: Schema, features: Array | None, hashes: dict[str, str]
) -> Predictions:
    """The ensemble's method on the predictions of its members.

    Args:
        run: The ensemble.
        tests: Predictions of the same rows by each member.
        schema: Its outputs.
        features: Metadata of the rows (N, F), if the method needs it.
        hashes: SHA-256 of the tables of these predictions, by their path relative to the ensemble.

    Raises:
        InputError: The method cannot combine them.
    """
    recipe, members = run.read_ensemble(), np.stack([test.values for test in tests]).astype(np.float64)
    method = method_of(recipe["method"], recipe["fitted"])
    if reason := method.refusal(members, schema.base, compares_order=True):
        raise InputError(f"method {method.name} cannot combine these test predictions: {reason}.")
    values = combined(method, recipe["fitted"], members, features, schema.base)
    files = {name: sha for member in recipe["members"] for name, sha in member["files"].items()} | hashes
    folds: list[Any] = run.planned_folds()
    made_with = Provenance(folds, folds, [], "ensemble", "", "", files, recipe["described"])
    return replace(tests[0], values=values, fold=None, status=None, provenance=made_with)


def placed(member: dict[str, Any], run: Run) -> MemberSpec:
    """A member in an ensemble's folder, whose paths are relative to it."""
    paths = {key: Path(os.path.normpath(run.root / member[key])) for key in ("run", "oof", "test") if key in member}
    return MemberSpec(member["name"], **paths)


def _features(run: Run, ids: list[str], options: PredictOptions) -> Array:
    """Metadata of the test rows, by id, (N, F).

    Raises:
        InputError: The test table lacks some of the ids.
    """
    changes: dict[str, Any] = {"root": options.root} if options.root else {}
    data = Experiment.of_run(run, "predict", options.allow_code).datamodule(**changes)
    data.schema = Schema.from_dict(run.read_schema())
    data.setup("predict")
    row_of = {id: row for row, id in enumerate(data.test_table.ids)}
    if unknown := [id for id in ids if id not in row_of]:
        raise InputError(f"the test table lacks {number_of(len(unknown), 'predicted id')}: {listed(unknown, 5)}.")
    features = data.splits.test.features
    assert features is not None
    return features[[row_of[id] for id in ids]].astype(np.float64)
