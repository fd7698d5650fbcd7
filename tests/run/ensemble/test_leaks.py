"""Runs whose networks saw the rows that they are scored on: warned of or refused; seeds and extra tables are no leak."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from swinft.cli import main
from swinft.run.layout import Run
from swinft.store import record_existing
from tests.conftest import in_this_process, tiny_config, write_config, write_image
from tests.run.ensemble.test_ensemble import QUICK, error

FOLDS = {"file": "runs/plain/folds.csv", "num": None}
EXTRA = {"table": "more.csv"}
RUNS = {
    "plain": {},
    "extra": {"data.folds": {**FOLDS, "extra": [EXTRA]}},
    "pseudo": {"data.folds": {**FOLDS, "extra": [{**EXTRA, "labels": "runs/plain"}]}},
    "seeds": {"data.folds": FOLDS, "seeds": [1, 2], "submission": {"rules": [{"power": {"exponent": 2}}]}},
    "started": {"data.folds": FOLDS, "model.pretrained": "runs/plain/fold_0"},
}


@pytest.fixture
def fitted(competition, tmp_path, monkeypatch, capsys) -> Path:
    """The working folder with these runs in `runs`."""
    monkeypatch.setattr("swinft.run.ensemble.ensemble.write_report", lambda *_: None)
    monkeypatch.setattr("swinft.run.fit.run_children", in_this_process)
    monkeypatch.chdir(tmp_path)
    data = Path(shutil.copytree(competition, tmp_path / "data"))
    table = pd.read_csv(data / "train.csv", dtype=str).iloc[:6]
    table.assign(id="x" + table["id"]).to_csv(data / "more.csv", index=False)
    rng = np.random.default_rng(0)
    for row in range(6):
        write_image(data / "images" / f"x{row:03d}.jpg", (90, 200, 10 * row), rng)
    for name, changes in RUNS.items():
        config = tiny_config(data, Path("runs"), **{"name": name, "trainer.max_epochs": 1, **changes})
        assert main(["fit", "--config", str(write_config(tmp_path / f"{name}.yaml", config))]) == 0
    capsys.readouterr()
    return tmp_path


def combine(*names: str) -> int:
    words = [f"runs/{name}" for name in names]
    return main(["ensemble", *words, "--name=E", "--overwrite", "--method=mean", *QUICK])


@pytest.mark.slow
def test_leaks_of_members_are_said_and_those_of_labels_refused(fitted, capsys):
    assert combine("plain", "pseudo", "seeds") == 0
    said = capsys.readouterr().out
    assert "WARNING" not in said.replace("WARNING: the same predictions", "")
    assert "trained on the rows of" not in said
    assert "the submission.rules and submission.group of seeds are not applied" in said
    assert combine("seeds", "extra", "plain") == 0  # in any order, though one has more rows in its table
    said = capsys.readouterr().out
    assert "extra: trained on the rows of more.csv with the targets of that table" in said
    assert "are not applied" not in said  # they are those of the ensemble
    assert main(["ensemble", "runs/E", "runs/pseudo", "--name=F", "--method=mean", *QUICK]) == 0
    assert "E: extra: trained on the rows of more.csv" in capsys.readouterr().out
    assert combine("plain", "started") == 0
    said = capsys.readouterr().out
    assert (
        "started: WARNING: it started from weights (model.pretrained runs/plain/fold_0), or these from others, that were "
        "trained on 12 of" in said
    )

    teacher = Run(fitted / "runs" / "plain")  # as if it had had other folds: the planted leak
    table = pd.read_csv(teacher.folds, dtype=str)
    table.assign(fold=1 - table["fold"].astype(int)).to_csv(teacher.folds, index=False)
    record_existing(teacher.folds, "swinft fit")
    assert combine("extra", "pseudo") == 2
    assert "runs/pseudo cannot be a member, since its score is too good" in (message := error(capsys))
    assert "its fold 0 does not hold out" in message
    shutil.rmtree(teacher.root)
    assert combine("extra", "pseudo") == 0  # it was checked when it was fitted
