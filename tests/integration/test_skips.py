"""Rows that cannot be used stay in every table, with a status, and count in no score."""

import csv
import json
import shutil

import numpy as np
import pytest

from swinft.cli import main
from tests.conftest import fit_in_process, tiny_config, write_config


def read(path):
    with path.open(newline="") as file:
        return {row["id"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def run(competition, tmp_path_factory):
    """A finished run with a damaged training image, a damaged test image, a row without class and a class of one row."""
    folder = tmp_path_factory.mktemp("skips")
    root = folder / "data"
    shutil.copytree(competition, root)
    for name in ("005", "t2"):
        (root / "images" / f"{name}.jpg").write_bytes(b"<!DOCTYPE html>")
    table = (root / "train.csv").read_text().replace("\n007,green", "\n007,").replace("\n008,blue", "\n008,pink")
    (root / "train.csv").write_text(table)
    changes = {
        "data.loading.on_bad_image": "skip",
        "data.columns.on_missing_target": "skip",
        "data.folds.rare_classes": "train",
        "data.sample_submission": None,
        "submission.format": "label",
        "checkpoint": "best",
    }
    config = write_config(folder / "c.yaml", tiny_config(root, folder / "runs", **changes))
    fit_in_process(config)
    path = folder / "runs" / "tiny"
    assert main(["predict", str(path), "--device", "cpu"]) == 0
    assert main(["submit", str(path)]) == 0
    return path


def test_the_oof_holds_every_id_and_says_why_some_have_no_prediction(run):
    oof = read(run / "oof.csv")
    assert list(oof) == [f"{i:03d}" for i in range(24)]
    assert {id: row["status"] for id, row in oof.items() if row["status"] != "ok"} == {
        "005": "bad image",
        "007": "no target",
        "008": "in no fold",
    }
    outputs = ["blue", "green", "pink", "red"]
    for id, row in oof.items():
        is_scored = id not in ("005", "007", "008")
        assert all((row[name] != "") == is_scored for name in outputs)
        assert (row["fold"] in ("0", "1")) == is_scored


def test_the_score_is_of_the_rows_that_have_a_prediction(run):
    scores = json.loads((run / "scores.json").read_text())
    assert scores["rows"] == 21
    assert scores["not_scored"] == {"bad image": 1, "no target": 1, "in no fold": 1}
    assert sum(fold["rows"] for fold in scores["folds"]) == 21
    oof, train = read(run / "oof.csv"), read(run.parent.parent / "data" / "train.csv")
    right = [
        max(("blue", "green", "pink", "red"), key=lambda name: float(row[name])) == train[id]["color"]
        for id, row in oof.items()
        if row["status"] == "ok"
    ]
    assert scores["pooled"]["accuracy"] == pytest.approx(np.mean(right))


def test_a_skipped_test_row_is_predicted_as_the_training_rows_mean(run):
    predictions = read(run / "test_predictions.csv")
    assert len(predictions) == 6
    assert {id for id, row in predictions.items() if row["status"] == "bad image"} == {"t2"}
    # 22 rows are trained on: 7 blue, 7 green, 1 pink, 7 red, less the damaged blue one.
    prior = [float(predictions["t2"][name]) for name in ("blue", "green", "pink", "red")]
    assert prior == pytest.approx([6 / 22, 7 / 22, 1 / 22, 8 / 22])
    assert len(read(run / "submission.csv")) == 6


def test_the_report_says_what_is_not_in_the_score(run):
    page = (run / "report.html").read_text()
    assert "1 bad image, 1 no target, 1 in no fold" in " ".join(page.split())


def test_a_class_of_one_row_is_trained_on_by_every_fold(run, competition):
    from swinft.run.experiment import Experiment
    from swinft.run.layout import Run

    opened = Run.open(str(run))
    experiment = Experiment.of_run(opened, "fit", None)
    for fold in (0, 1):
        data = experiment.datamodule(opened, folds={"held_out": fold})
        data.setup("fit")
        trained = {data.train_table.ids[row] for batch in data.train_dataloader() for row in batch["row"].tolist()}
        held_out = {data.train_table.ids[row] for batch in data.val_dataloader() for row in batch["row"].tolist()}
        assert data.training_targets.min() >= 0
        assert not {"005", "007"} & (trained | held_out)
        assert "008" not in held_out


def test_without_skipping_a_damaged_test_image_stops_prediction_with_its_name(tiny_run, competition, tmp_path, capsys):
    root = tmp_path / "data"
    shutil.copytree(competition, root)
    (root / "images" / "t2.jpg").write_bytes(b"<!DOCTYPE html>")
    output = tmp_path / "p.csv"
    words = ["predict", str(tiny_run), "--root", str(root), "--device", "cpu", "--output", str(output)]
    assert main(words) == 2
    assert "test.csv:3: id 't2': the image cannot be used" in capsys.readouterr().err
    assert not output.exists()


def test_groups_of_duplicates_reach_the_folds(competition, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(competition, root)
    pairs = [("000", "003"), ("001", "004"), ("002", "005"), ("006", "009")]
    for one, other in pairs:
        shutil.copy(root / "images" / f"{one}.jpg", root / "images" / f"{other}.jpg")
    changes = {"data.folds.duplicates": "group", "trainer.max_epochs": 1}
    config = write_config(tmp_path / "c.yaml", tiny_config(root, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    folds = read(tmp_path / "runs" / "tiny" / "folds.csv")
    assert all(folds[one]["fold"] == folds[other]["fold"] for one, other in pairs)
