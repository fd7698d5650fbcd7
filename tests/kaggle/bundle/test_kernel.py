"""What a bundle's notebook runs: the submission of `swinft predict` and `swinft submit`, within a time budget."""

import json
import shutil
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import swinft
from swinft.inference.predictions import Predictions
from swinft.kaggle.bundle import kernel
from swinft.kaggle.bundle.budget import Work, fitting
from swinft.kaggle.bundle.kernel import main
from swinft.run.layout import Run
from swinft.store import commit
from tests.kaggle.bundle.conftest import COMPETITION, make, mount


@pytest.fixture
def inputs(tiny_bundle, competition, tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("SWINFT_KAGGLE_INPUT", str(tmp_path / "input"))
    return mount(tiny_bundle, competition, tmp_path / "input")


def predict(weights: Path, output: Path, *words: str) -> int:
    return main([str(weights), "--root", f"kaggle://{COMPETITION}", "--output", str(output), "--device", "cpu", *words])


def test_the_submission_is_that_of_the_commands(inputs, tiny_run, tmp_path, capsys):
    before = {path: path.stat().st_mtime_ns for path in inputs.rglob("*")}
    assert predict(inputs / "datasets/me/swinft-tiny-weights", tmp_path / "submission.csv") == 0
    assert (tmp_path / "submission.csv").read_bytes() == (tiny_run / "submission.csv").read_bytes()
    assert f"kaggle://{COMPETITION}: {inputs}/competitions/{COMPETITION}" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in inputs.rglob("*")} == before


def test_hidden_rows_are_predicted(inputs, tiny_run, tmp_path):
    data = inputs / "competitions" / COMPETITION
    for id in ("h1", "h2"):
        shutil.copy(data / "images" / "t1.jpg", data / "images" / f"{id}.jpg")
    (data / "test.csv").write_text("id\nh1\nh2\n")
    (data / "sample_submission.csv").write_text("id,color\nh2,red\nh1,red\n")
    assert predict(inputs / "datasets/me/swinft-tiny-weights", tmp_path / "submission.csv") == 0
    known = pd.read_csv(tiny_run / "submission.csv", index_col="id")["color"]["t1"]
    assert (tmp_path / "submission.csv").read_text() == f"id,color\nh2,{known}\nh1,{known}\n"


@pytest.mark.slow  # eight predictions, two ensembles
def test_an_ensemble_and_a_mean_are_those_of_the_commands(runs, competition, tmp_path, monkeypatch):
    monkeypatch.setattr("swinft.run.ensemble.ensemble.write_report", lambda *_: None)
    folders = [runs / name for name in "ab"]
    commit(Run(folders[1]).fold(1).weights, Run(folders[1]).fold(0).weights.read_bytes(), "swinft fit")
    made = [swinft.open_run(folder).predict(device="cpu") for folder in folders]
    blend = swinft.ensemble(folders, "E", method="power", runs=runs, bootstrap=0, leave_one_out=False)
    for words, expected in (([blend.folder], blend.submit().text), (folders, None)):
        out = tmp_path / "out"
        assert make(*map(str, words), "--output", str(out), "--overwrite") == 0
        target = tmp_path / "submission.csv"
        root = ["--root", str(competition), "--output", str(target), "--device", "cpu"]
        assert main([str(out / "weights"), *root, "--work", str(tmp_path / f"work{len(words)}")]) == 0
        mean = np.mean([each.values.astype(float) for each in made], 0)
        expected = (
            expected
            or swinft.open_run(folders[0]).submit(Predictions(made[0].ids, mean, made[0].outputs), dry_run=True).text
        )
        assert target.read_text() == expected
    assert not np.allclose(made[0].values, made[1].values, atol=1e-6)


@pytest.mark.slow  # two predictions with two views
@pytest.mark.usefixtures("_not_loaded")
def test_views_and_folds_are_those_of_the_bundle(tiny_run, competition, tmp_path):
    out, target, work = tmp_path / "out", tmp_path / "submission.csv", tmp_path / "work"
    assert make(str(tiny_run), "--views", "identity,hflip", "--folds", "1", "--output", str(out)) == 0
    assert not [path for path in (out / "weights").iterdir() if "fold_0" in path.name]
    words = ["--root", str(competition), "--output", str(target), "--device", "cpu", "--work", str(work)]
    assert main([str(out / "weights"), *words]) == 0
    expected = swinft.open_run(tiny_run).predict(
        views=["identity", "hflip"], folds=[1], device="cpu", output=tmp_path / "p.csv"
    )
    assert (work / "tiny" / "test_predictions.csv").read_bytes() == expected.to_bytes()
    assert main([str(out / "weights"), *words]) == 2  # not a new folder


def test_nothing_is_left_where_an_input_is_missing(inputs, tmp_path, capsys):
    weights, output = inputs / "datasets/me/swinft-tiny-weights", tmp_path / "submission.csv"
    for words, says in (
        ([str(weights), "--root", "kaggle://pet-score"], "pet-score is not mounted below"),
        ([str(weights), "--root", "/nowhere"], "there is no folder /nowhere: the competition's data is not mounted"),
        ([str(inputs / "datasets/me/swinft-tiny-wheels"), "--root", str(inputs)], "has no bundle.json"),
        ([str(weights), "--root", str(inputs)], "there is no such file"),
        ([str(weights), "--rot", str(inputs)], "root"),
    ):
        output.write_text("an earlier one")
        assert main([*words, "--output", str(output)]) == 2
        assert says in capsys.readouterr().err
        assert not output.exists() or words[1] == "--rot"


def test_only_the_rerun_predicts_if_that_is_wanted(inputs, competition, tmp_path, capsys, monkeypatch):
    words = [inputs / "datasets/me/swinft-tiny-weights", tmp_path / "submission.csv", "--only-in-rerun", "true"]
    monkeypatch.delenv(kernel.RERUN, raising=False)
    assert predict(*words) == 0
    assert words[1].read_bytes() == (competition / "sample_submission.csv").read_bytes()
    assert "KAGGLE_IS_COMPETITION_RERUN is not set" in capsys.readouterr().out
    monkeypatch.setenv(kernel.RERUN, "1")
    monkeypatch.setattr(kernel.Kernel, "predictions", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict(*words)
    assert not words[1].exists()


@pytest.mark.slow  # ten predictions, to be timed
def test_less_is_predicted_with_where_the_time_is_short(inputs, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(kernel, "FEW", 3)
    monkeypatch.setattr(kernel, "TIMED", (2, 4))
    words = [inputs / "datasets/me/swinft-tiny-weights", tmp_path / "submission.csv", "--max-hours", "1"]
    assert predict(*words) == 0
    said = capsys.readouterr().out
    assert "predictions will take about" in said
    assert "WARNING" not in said
    started = ["--started", str(time.time() - 3600)]
    assert predict(*words, *started, "--work", str(tmp_path / "work")) == 0
    said = capsys.readouterr().out
    assert "WARNING: tiny: 2 folds × 1 view do not fit into the time budget; it predicts with 1 fold × 1 view" in said
    assert "WARNING: this is more than the time budget" in said
    made = json.loads((tmp_path / "work" / "tiny" / "test_predictions.made_from.json").read_text())
    assert (made["provenance"]["folds"], made["rows"]) == ([0], 6)


@pytest.mark.parametrize(
    ("left", "expected", "is_late"),
    [
        (1000, {"a": (5, 4), "b": (3, 2)}, False),
        (20, {"a": (5, 2), "b": (3, 1)}, False),
        (9.5, {"a": (5, 1), "b": (3, 1)}, False),
        (5, {"a": (2, 1), "b": (1, 1)}, False),
        (1, {"a": (1, 1), "b": (1, 1)}, True),
    ],
)
def test_views_are_left_out_before_folds(left, expected, is_late, capsys):
    whole = {"a": Work(5, 4), "b": Work(3, 2)}
    found = fitting(whole, lambda: left, lambda name, work: work.folds * work.views)
    assert {name: (work.folds, work.views) for name, work in found.items()} == expected
    said = capsys.readouterr().out
    assert ("more than the time budget" in said) == is_late
    assert said.count("do not fit into the time budget") == (found != whole) * 2


def test_what_does_not_get_faster_by_views_loses_folds():
    """Decoding takes all of the time: what is measured decides, not what was hoped for."""
    seen = []

    def measure(name: str, work: Work) -> float:
        seen.append(work)
        return 10.0 + work.folds

    found = fitting({"a": Work(5, 4)}, lambda: 14.0, measure)
    assert found["a"].folds == 1
    assert seen[-1] == found["a"]
