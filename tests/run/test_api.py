"""A run in Python: what the commands do, as functions that return what they made."""

import os
import random
import shutil
import signal
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
import torch
import yaml

import swinft
from swinft.cli import main
from swinft.inference.predictions import Predictions
from tests.conftest import in_this_process, tiny_config

CPU = {"device": "cpu", "num_workers": 0}


@pytest.fixture
def run(tiny_run, tmp_path) -> swinft.Run:
    """A copy of a finished run, to be written to."""
    return swinft.open_run(shutil.copytree(tiny_run, tmp_path / "runs" / "tiny"))


def rows_of(competition: Path) -> pd.DataFrame:
    return pd.read_csv(competition / "test.csv", dtype=str)


def state() -> dict[str, object]:
    """All that a program may have set for its whole process."""
    return {
        "warnings": list(warnings.filters),
        "signals": [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)],
        "environment": dict(os.environ),
        "paths": list(sys.path),
        "folder": os.getcwd(),
        "threads": (torch.get_num_threads(), cv2.getNumThreads()),
        "flags": (torch.is_grad_enabled(), torch.backends.cudnn.benchmark, torch.get_default_dtype()),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "random": (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()),  # noqa: NPY002
    }


def test_a_fit_in_python_is_that_of_the_command_and_leaves_the_process_as_it_was(
    competition, tiny_run, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("swinft.run.fit.run_children", in_this_process)
    config = tiny_config(competition, tmp_path / "x", **{"trainer.max_epochs": 5, "data.batch_size": 2})
    cv2.setNumThreads(2)
    before = state()
    run = swinft.fit(config, {"trainer.max_epochs": 2, "runs": tmp_path}, data={"batch_size": np.int64(6)})
    run.predict(**CPU)
    run.submit()
    run.network(0)
    with pytest.raises(swinft.InputError, match="--resume continues it"):
        swinft.fit(config, {"runs": tmp_path})
    assert state() == before
    assert "pooled" in capsys.readouterr().out
    assert (run.config["trainer"]["max_epochs"], run.config["data"]["batch_size"], run.folds) == (2, 6, [0, 1])
    for name in ("oof.csv", "test_predictions.csv", "submission.csv"):
        assert (run.folder / name).read_bytes() == (tiny_run / name).read_bytes()


def test_a_run_goes_on_wherever_it_lies(run, monkeypatch):
    monkeypatch.setattr("swinft.run.fit.run_children", in_this_process)
    scores = run.scores["pooled"]
    shutil.rmtree(run.folder / "fold_1")
    moved = run.folder.rename(run.folder.with_name("moved"))
    again = swinft.fit(resume=moved, overrides={"data.loading.num_workers": 0})
    assert (again.folder, again.scores["pooled"]) == (moved, scores)


def test_a_fold_that_fails_is_an_error_with_the_way_to_go_on(competition, tmp_path, monkeypatch):
    monkeypatch.setattr("swinft.run.fit.run_children", lambda *_, **__: {0: 137, 1: 2})
    with pytest.raises(swinft.RunError, match="fold 0 ended with exit code 137") as error:
        swinft.fit(tiny_config(competition, tmp_path))
    assert error.value.code == 137
    monkeypatch.setattr("swinft.run.fit.run_children", lambda *_, **__: {1: 2})
    with pytest.raises(swinft.InputError, match="fold 1 ended with exit code 2"):
        swinft.fit(tiny_config(competition, tmp_path), resume=True)


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"trainer.max_epoch": 3}, r"overrides.*'trainer.max_epoch'.* Did you mean 'trainer.max_epochs'"),
        ({"trainer.max_epochs": "many"}, r"trainer.max_epochs"),
        ({"trainer": 3, "trainer.max_epochs": 3}, "'trainer' is given as 3 too"),
        ({"model.head": object()}, "a value in overrides cannot be written as YAML"),
        ({"fold": 0}, "fold"),
    ],
)
def test_wrong_overrides_are_refused(overrides, says, competition, tmp_path):
    with pytest.raises(swinft.InputError, match=says) as error:
        swinft.fit(tiny_config(competition, tmp_path / "runs"), overrides)
    assert "/tmp" not in str(error.value).replace(str(tmp_path), "")
    assert not (tmp_path / "runs").exists()


def test_what_a_run_has_found_out(tiny_run, competition):
    run = swinft.open_run(tiny_run)
    assert list(run.oof) == ["id", "blue", "green", "red", "fold"]
    assert run.oof["id"].tolist() == [f"{i:03d}" for i in range(24)]
    assert run.oof["fold"].dtype == "int64"
    errors = run.errors.merge(run.oof, on="id")
    truth = pd.read_csv(competition / "train.csv", dtype=str).set_index("id")["color"]
    assert errors["true"].tolist() == truth[errors["id"]].tolist()
    given = [row[row["true"]] for _, row in errors.iterrows()]
    assert errors["error"].tolist() == pytest.approx([1 - p for p in given], abs=1e-6)
    right = (errors["true"] == errors["predicted"]).mean()
    assert run.scores["pooled"]["accuracy"] == pytest.approx(right)
    assert repr(run) == f"swinft.open_run({str(tiny_run)!r})"


def test_what_is_not_there_yet_is_said(tiny_run, tmp_path):
    for name in ("oof.csv", "scores.json", "errors.csv"):
        shutil.copytree(tiny_run, tmp_path / name)
        (tmp_path / name / name).unlink()
        (tmp_path / name / ".commits" / f"{name}.json").unlink(missing_ok=True)
        with pytest.raises(swinft.InputError, match=f"has no {name} yet"):
            _ = getattr(swinft.open_run(tmp_path / name), name.partition(".")[0])


def test_rows_of_a_frame_are_predicted_as_those_of_a_csv(run, competition, capsys):
    whole = Predictions.read(run.folder / "test_predictions.csv", 3)
    (run.folder / "test_predictions.csv").write_text("not to be written")
    rows = rows_of(competition).iloc[[4, 1]].assign(note=[1.5, None])
    found = run.predict(rows, **CPU)
    assert found.ids == rows["id"].tolist()
    assert np.allclose(found.values, whole.join(whole.ids, "x").values[[whole.ids.index(id) for id in found.ids]])
    assert found.provenance.folds == [0, 1]
    assert "DataFrame" not in repr(found)
    assert "next:" not in capsys.readouterr().out
    rows.to_csv(run.folder / "some.csv", index=False)
    assert run.predict(run.folder / "some.csv", **CPU).to_bytes() == found.to_bytes()
    assert (run.folder / "test_predictions.csv").read_text() == "not to be written"
    assert run.predict(competition / "test.csv", views=["identity"], **CPU).to_bytes() == whole.to_bytes()
    assert (run.folder / "test_predictions.csv").read_bytes() == whole.to_bytes()  # they are the run's own rows


def test_odd_ids_of_a_frame_stay_what_they_are(tiny_run, competition, tmp_path):
    ids = ["t;1", "a,b", 'q"', "é", "1e5", "007"]
    (tmp_path / "images").mkdir()
    for id, known in zip(ids, rows_of(competition)["id"], strict=True):
        shutil.copy(competition / "images" / f"{known}.jpg", tmp_path / "images" / f"{id}.jpg")
    run = swinft.open_run(tiny_run)
    for some in (ids, ids[:1]):
        frame = pd.DataFrame({"id": some, "a;b;c": "x;y\rz"}, index=some)
        found = run.predict(frame, root=tmp_path, folds=np.array([0, 1]), **CPU)
        assert found.ids == some
    assert np.allclose(found.values[0], Predictions.read(tiny_run / "test_predictions.csv", 3).values[0], atol=1e-6)


def test_a_run_stays_the_same_run_in_another_folder(tiny_run, competition, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_run.parent)
    run = swinft.open_run(tiny_run.name)
    monkeypatch.chdir(tmp_path)
    assert run.folder == tiny_run
    assert len(run.oof) == 24
    assert run.predict(rows_of(competition), device=torch.device("cpu")).ids == rows_of(competition)["id"].tolist()


def test_no_device_for_a_fold_is_refused_and_not_taken_for_the_default(competition, tmp_path):
    with pytest.raises(swinft.InputError, match="--devices-per-fold is 0"):
        swinft.fit(tiny_config(competition, tmp_path), devices_per_fold=0)


def test_code_is_allowed_by_one_name_or_several(tiny_run, monkeypatch):
    said = []
    monkeypatch.setattr("swinft.run.api.fit_from_argv", said.extend)
    assert swinft.fit(tiny_run / "config.yaml", allow_code="mine") is None
    assert swinft.fit(tiny_run / "config.yaml", allow_code=["mine", "yours"], overwrite=True) is None
    assert [word for word in said if "--config" not in word] == [
        "--allow-code=mine",
        "--on=local",
        "--allow-code=mine,yours",
        "--on=local",
        "--overwrite",
    ]


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda rows: rows.assign(id=range(6)), r"column 'id' contains int, such as 0.*dtype=str"),
        (lambda rows: rows.rename(columns={"id": "Id"}), r"DataFrame.*\n?.*'id'"),
        (lambda rows: pd.concat([rows, rows]), "DataFrame"),
        (lambda rows: rows.assign(id=["t1;2", "a,b", 'q"', "x\ny", "", "é"]), "DataFrame"),
        (lambda rows: rows.assign(id=["t1", None, "t2", "t3", "t4", "t5"]), "DataFrame"),
        (lambda rows: rows.iloc[:0], "DataFrame"),
        (lambda rows: rows.set_index("id"), r"'id' is its index.*reset_index"),
        (lambda rows: pd.concat({"id": rows}, axis=1), r"columns have 2 levels, such as \('id', 'id'\)"),
    ],
)
def test_rows_that_are_not_right_are_refused(edit, says, tiny_run, competition):
    with pytest.raises(swinft.InputError, match=says) as error:
        swinft.open_run(tiny_run).predict(edit(rows_of(competition)), **CPU)
    assert "/tmp/tmp" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"view": ["hflip"]}, "'view' is not an option. Did you mean 'views'"),
        ({"views": ["hflop"]}, "views"),
        ({"devices": 0}, "devices"),
        ({"test": "x.csv"}, "Rows are the first argument"),
        ({"batch_size": "8.5"}, "batch_size"),
    ],
)
def test_wrong_options_are_refused(options, says, tiny_run):
    with pytest.raises(swinft.InputError, match=says):
        swinft.open_run(tiny_run).predict(**options)


def test_a_blend_is_submitted_from_a_frame(run, competition):
    a = Predictions.read(run.folder / "test_predictions.csv", 3)
    sure = run.submit(a)
    assert sure.path == run.folder / "submission.csv"
    assert sure.text == sure.path.read_text()
    assert sure.to_frame()["id"].tolist() == ["t3", "t1", "t2", "t6", "t5", "t4"]
    blend = a.to_frame()[["id", "red", "green", "blue"]].sample(frac=1, random_state=0)
    tried = run.submit(blend, dry_run=True, format="label")
    assert (tried.text, tried.path) == (sure.text, None)
    turned = Predictions(a.ids, a.values[:, ::-1], a.outputs[::-1])
    assert run.submit(turned, dry_run=True).text == sure.text
    with pytest.raises(swinft.InputError, match="Missing or duplicate: red"):
        run.submit(Predictions(a.ids, a.values, ["blue", "green", "rot"]))
    with pytest.raises(swinft.InputError, match="DataFrame"):
        run.submit(blend.drop(columns="red"))
    with pytest.raises(swinft.InputError, match="contains int"):
        run.submit(blend.assign(id=range(6)))
    with pytest.raises(swinft.InputError, match="format"):
        run.submit(format="labels of mine")


def test_two_devices_share_rows_that_are_not_kept(run, competition, monkeypatch):
    monkeypatch.setattr("swinft.run.prediction.shards.run_children", in_this_process)
    alone = run.predict(rows_of(competition), **CPU)
    shared = run.predict(rows_of(competition), device="cpu", devices=2)
    assert shared.ids == alone.ids
    assert np.allclose(shared.values, alone.values, atol=1e-5)


def test_the_command_and_python_write_the_same(run, tiny_run):
    run.predict(**CPU)
    run.submit()
    assert run.report() == run.folder / "report.html"
    for name in ("test_predictions.csv", "submission.csv", "errors.csv"):
        assert (run.folder / name).read_bytes() == (tiny_run / name).read_bytes()
    made = [
        yaml.safe_load((folder / "test_predictions.made_from.json").read_text()) for folder in (run.folder, tiny_run)
    ]
    assert made[0] == made[1]
    assert main(["submit", str(run.folder), "--dry-run"]) == 0
