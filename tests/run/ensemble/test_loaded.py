"""An ensemble whose members stay loaded predicts what `swinft predict` does with each member and then with it."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

import swinft
from swinft.run.layout import Run
from swinft.store import commit

CPU = {"device": "cpu"}


@pytest.fixture
def ensemble(runs, monkeypatch) -> swinft.Run:
    """Of three runs with other weights: `b` has those of fold 0 in both folds, `c` those of fold 1."""
    monkeypatch.setattr("swinft.run.ensemble.ensemble.write_report", lambda *_: None)
    for name, only in {"b": 0, "c": 1}.items():
        weights = Run(runs / name).fold(only).weights.read_bytes()
        commit(Run(runs / name).fold(1 - only).weights, weights, "swinft fit")
    for name in "abc":
        swinft.open_run(runs / name).predict(**CPU)
    options = {"bootstrap": 0, "leave_one_out": False}
    return swinft.ensemble([runs / name for name in "abc"], "E", method="power", runs=runs, **options)


def test_members_and_method_are_those_of_the_command_and_what_predicts_no_other_rows_is_refused(ensemble, competition):
    rows = pd.read_csv(competition / "test.csv", dtype=str)
    predictor = ensemble.predictor(**CPU)
    found = predictor.predict(rows)
    assert found.to_bytes() == (ensemble.folder / "test_predictions.csv").read_bytes()
    alone = predictor.predict(rows.iloc[[3]], root=competition)
    assert np.allclose(alone.values[0], found.values[3], atol=1e-6)
    assert predictor.outputs == found.outputs
    assert repr(predictor) == f"predictor of {ensemble.folder}: power of 3 members: a, b, c"
    members = [swinft.open_run(ensemble.folder.parent / name).predictor(**CPU).predict(rows).values for name in "abc"]
    assert not np.allclose(members[0], members[1], atol=1e-6)
    told = Run(shutil.copytree(ensemble.folder, ensemble.folder.with_name("F")))
    recipe = json.loads(told.ensemble.read_text())
    for changed, says in (
        ({"method": "rank"}, "cannot predict them one by one"),
        ({"members": [*recipe["members"], {"name": "other", "oof": "x.csv", "files": {}}]}, "other: tables of another"),
    ):
        commit(told.ensemble, json.dumps(recipe | changed).encode(), "swinft ensemble")
        with pytest.raises(swinft.InputError, match=says):
            swinft.open_run(told.root).predictor(**CPU)
