"""A run that was made when the settings of the data were flat keys is read, predicted, submitted and resumed.

`tests/fixtures/run_before_rebuild` is a finished run of that code on the tiny competition, with a metadata column.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from swinft.cli import main
from swinft.run.config.old_keys import MOVED, current_key, migrated
from swinft.run.config.sections import build_parser
from swinft.run.layout import Run
from swinft.store import commit
from tests.conftest import ROOT, tiny_config, write_config

FIXTURE = ROOT / "tests" / "fixtures" / "run_before_rebuild"


@pytest.fixture
def old(competition: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, with the data where it was: beside `runs`."""
    shutil.copytree(competition, tmp_path / "competition")
    ids = (competition / "test.csv").read_text().split()[1:]
    lines = [f"{id},{30 + row}\n" for row, id in enumerate(ids)]
    (tmp_path / "competition" / "test.csv").write_text("id,brightness\n" + "".join(lines))
    shutil.copytree(FIXTURE, tmp_path / "runs" / "before_rebuild")
    monkeypatch.chdir(tmp_path)
    return Path("runs/before_rebuild")


def test_its_predictions_and_its_submission_are_the_same_again(old, capsys):
    predictions = pd.read_csv(old / "test_predictions.csv", dtype={"id": str})
    submission = (old / "submission.csv").read_bytes()
    for name in ("test_predictions", "submission"):
        (old / f"{name}.csv").unlink()
    assert main(["predict", str(old), "--device", "cpu"]) == 0
    assert main(["submit", str(old)]) == 0
    again = pd.read_csv(old / "test_predictions.csv", dtype={"id": str})
    assert again.columns.tolist() == predictions.columns.tolist()
    assert again[["id", "status"]].equals(predictions[["id", "status"]])
    numbers = predictions.columns[1:-1]
    assert np.abs(again[numbers].to_numpy() - predictions[numbers].to_numpy()).max() <= 1e-6
    assert (old / "submission.csv").read_bytes() == submission
    assert main(["report", str(old)]) == 0
    assert (old / "report.html").stat().st_size > 10_000
    assert "has moved" not in capsys.readouterr().err


def test_a_run_that_named_kernels_which_are_gone_predicts_with_those_that_are_left(old):
    run = Run.open(old)
    text = run.config.read_text()
    changed = text.replace("fast_attention: auto", "fast_attention: triton")
    assert changed != text
    commit(run.config, changed.encode(), "swinft fit")
    choice = json.loads(run.choice.read_text())
    commit(run.choice, json.dumps(choice | {"training": "triton", "prediction": "triton"}).encode(), "swinft fit")
    assert main(["predict", str(old), "--device", "cpu", "--folds", "0"]) == 0
    assert run.read_config()["model"]["compute"]["fast_attention"] is True


def test_a_fold_of_it_is_fitted_again_by_resume(old, capsys):
    run = Run.open(old)
    before = run.read_scores()["pooled"]
    for path in (*run.fold(1).root.glob("*"), *run.fold(1).root.glob(".commits/*")):
        if path.is_file():
            path.unlink()
    words = ["fit", "--resume", str(old)]
    assert main([*words, "--fold", "1"]) == 0
    assert main(words) == 0
    assert "changed since the start" not in capsys.readouterr().out
    assert run.read_scores()["pooled"].keys() == before.keys()
    data = yaml.safe_load(run.config.read_text())["data"]  # written again, so that it says what it means
    assert data["folds"]["num"] == 2
    assert data["columns"]["missing_features"] == "fill"
    assert not {key.removeprefix("data.") for key in MOVED if key != "data.folds"} & set(data)


def test_a_change_that_it_does_not_allow_is_named_by_todays_key(old, capsys):
    assert main(["fit", "--resume", str(old), "--data.loading.resize", "pad"]) == 2
    assert "data.loading.resize: was 'crop', is 'pad'" in capsys.readouterr().err
    assert main(["fit", "--resume", str(old), "--data.loading.num_workers", "1"]) == 0
    assert "without an effect on results: data.loading.num_workers: was 0, is 1" in capsys.readouterr().out


@pytest.mark.parametrize("old_key", MOVED)
def test_an_old_key_in_a_config_or_an_option_names_todays(old_key, competition, tmp_path, capsys):
    config = tiny_config(competition, tmp_path / "runs", **({} if old_key == "data.folds" else {old_key: None}))
    if old_key == "data.folds":
        config["data"]["folds"] = "runs/a/folds.csv"
    path = write_config(tmp_path / "c.yaml", config)
    line = 1 + next(
        n for n, text in enumerate(path.read_text().splitlines()) if f"  {old_key.rpartition('.')[2]}:" in text
    )
    assert main(["check", "--config", str(path)]) == 2
    assert re.search(rf"c\.yaml:{line}: .*{MOVED[old_key]}\.$", capsys.readouterr().err, re.MULTILINE)
    path = write_config(path, tiny_config(competition, tmp_path / "runs"))
    assert main(["check", "--config", str(path), f"--{old_key}", "x"]) == 2
    assert MOVED[old_key] in capsys.readouterr().err


def test_every_old_key_leads_to_one_of_today_and_none_of_these_is_old():
    known = {action.dest for action in build_parser("check")._actions}
    assert set(MOVED.values()) <= known
    assert [key for key in known if current_key(key) and key != "data.folds"] == []


def test_todays_configs_are_left_as_they_are(competition, tmp_path):
    text = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path)).read_text()
    assert migrated(text) is text
    frozen = (FIXTURE / "config.yaml").read_text()
    assert migrated(migrated(frozen)) == migrated(frozen)
    held = {**yaml.safe_load(frozen), "data": {"folds": "a/folds.csv", "num_folds": None, "target": "y"}}
    moved = yaml.safe_load(migrated(yaml.safe_dump(held)))["data"]
    assert moved == {"target": "y", "folds": {"num": None, "file": "a/folds.csv"}}
