"""The report joins tables by id, and draws a run with the run's own tables only."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from swinft.cli import main
from swinft.errors import RunError
from swinft.inference.predictions import Predictions
from swinft.printing import format_number
from swinft.run.layout import Run
from swinft.run.report.contents import ReportInput
from swinft.run.report.sections.worst import worst_rows
from tests.conftest import fit_in_process, tiny_config, write_config


@pytest.fixture(scope="module")
def finished(competition, tmp_path_factory) -> Path:
    """A folder with data of its own and a finished run in `runs/tiny`."""
    folder = tmp_path_factory.mktemp("report")
    shutil.copytree(competition, folder / "data")
    config = tiny_config(folder / "data", folder / "runs", **{"trainer.max_epochs": 1})
    fit_in_process(write_config(folder / "c.yaml", config))
    return folder


@pytest.mark.parametrize("edit", ["sorted", "relabelled"])
def test_f102_a_report_with_another_training_table_is_refused(edit, finished, capsys):
    table, report = finished / "data" / "train.csv", finished / "runs" / "tiny" / "report.html"
    text, page = table.read_text(), report.read_bytes()
    header, *lines = text.splitlines()
    lines = lines[::-1] if edit == "sorted" else [line.replace("red", "green") for line in lines]
    try:
        table.write_text("\n".join([header, *lines]) + "\n")
        assert main(["report", str(report.parent)]) == 2
        assert "train.csv (SHA-256 was" in capsys.readouterr().err
        assert report.read_bytes() == page
    finally:
        table.write_text(text)
    assert main(["report", str(report.parent)]) == 0


def test_f102_a_report_needs_the_training_table_only(finished, capsys):
    test = finished / "data" / "test.csv"
    text = test.read_text()
    try:
        test.write_text(text + "\n")  # a hidden test set takes its place
        assert main(["report", str(finished / "runs" / "tiny")]) == 0
    finally:
        test.write_text(text)


@pytest.mark.parametrize("ids", [["a", "b"], ["a", "b", "c", "d"], ["a", "b", "b"]])
def test_f102_a_join_holds_every_id_once_or_is_an_error(ids):
    values = np.arange(3, dtype=np.float32)[:, None]
    table = Predictions(["c", "a", "b"], values, ["y"])
    assert table.join(["a", "b", "c"], "p.csv").values[:, 0].tolist() == [1, 2, 0]
    with pytest.raises(RunError, match=r"p\.csv does not contain every id exactly once"):
        Predictions(ids, np.zeros((len(ids), 1), np.float32), ["y"]).join(["a", "b", "c"], "p.csv")


def test_f102_the_worst_rows_are_those_of_the_out_of_fold_table(finished, tmp_path):
    """Whatever order oof.csv has."""
    from swinft.run.experiment import Experiment
    from swinft.run.scoring import training_rows
    from swinft.store import commit

    copy = Run.open(shutil.copytree(finished / "runs" / "tiny", tmp_path / "tiny"))
    data = training_rows(copy, Experiment.of_run(copy, "report", None))
    before = ReportInput.of(copy, data)
    header, *lines = copy.oof.read_text().splitlines()
    commit(copy.oof, "\n".join([header, *lines[::-1], ""]).encode(), "test")
    after = ReportInput.of(copy, data)
    assert np.array_equal(after.values, before.values)
    assert worst_rows(after) == worst_rows(before)
    truth = dict(zip(data.train_table.ids, data.train_table.column("color"), strict=True))
    assert all(row.lines[0] == f"true: {truth[row.id]}" for row in worst_rows(after))


def test_f122_every_row_has_its_truth_prediction_and_error(finished, competition):
    run = finished / "runs" / "tiny"
    with (run / "errors.csv").open(newline="") as file:
        errors = list(csv.DictReader(file))
    with (competition / "train.csv").open(newline="") as file:
        truth = {row["id"]: row["color"] for row in csv.DictReader(file)}
    with (run / "oof.csv").open(newline="") as file:
        oof = {row["id"]: row for row in csv.DictReader(file)}
    assert sorted(row["id"] for row in errors) == sorted(truth)
    values = [float(row["error"]) for row in errors]
    assert values == sorted(values, reverse=True)
    for row, value in zip(errors, values, strict=True):
        probabilities = {name: float(oof[row["id"]][name]) for name in ("blue", "green", "red")}
        assert (row["true"], row["fold"]) == (truth[row["id"]], oof[row["id"]]["fold"])
        assert row["predicted"] == max(probabilities, key=probabilities.__getitem__)
        assert value == pytest.approx(1 - probabilities[row["true"]], abs=1e-6)


@pytest.mark.parametrize(
    ("value", "text"), [(5858000.0, "5,858,000"), (17.36, "17.36"), (1e-7, "1e-07"), (1e20, "1e+20")]
)
def test_f122_numbers_are_shown_as_people_write_them(value, text):
    assert format_number(value) == text
