"""`swinft compare` through the front door: what it says, what it refuses, and tables of other programs."""

import csv
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import swinft
from swinft.cli import main
from swinft.inference.predictions import Predictions
from swinft.inference.rules.named import rules_of
from swinft.run.compare.ledger_table import WIDTH
from swinft.run.ensemble.members import Base
from swinft.run.layout import Run
from swinft.run.submission.fitting import score_with_rules
from swinft.store import commit
from tests.json_documents import document_of
from tests.run.ensemble.conftest import write_oof

QUICK = ["--resamples", "100"]


def compared(capsys, *words: object) -> dict:
    return document_of(capsys, "compare", *map(str, words), *QUICK)


def refused(capsys, *words: object) -> str:
    assert main(["compare", *map(str, words), *QUICK]) == 2
    return " ".join(capsys.readouterr().err.split())


@pytest.fixture
def runs(three, tmp_path) -> Path:
    return Path(shutil.copytree(three, tmp_path / "runs"))


def test_two_runs_are_compared_on_the_same_rows(three, competition, capsys):
    a, b = three / "a", three / "b"
    found = compared(
        capsys, a, b, "--metric", "log_loss", "--rows", 400, "--public", 0.25, "--medals", "gold=0.5,bronze=0.9"
    )
    first, second = found["runs"]
    assert second["gain"] == pytest.approx(first["score"] - second["score"])
    colors = ["blue", "green", "red"]
    truth = pd.read_csv(competition / "train.csv")["color"].map(colors.index).to_numpy()
    losses = [-np.log(Predictions.read(run / "oof.csv", 3).values[np.arange(24), truth]) for run in (a, b)]
    assert [first["score"], second["score"]] == pytest.approx([each.mean() for each in losses], rel=1e-5)
    folds = pd.read_csv(a / "oof.csv")["fold"]
    by_fold = [(losses[0] - losses[1])[folds == fold].mean() for fold in (0, 1)]
    assert [each["gain"] for each in second["folds"]] == pytest.approx(by_fold, rel=1e-5)
    assert (found["private_rows"], found["rows"], found["units"]) == (300, 24, 24)
    low, high = second["private"]["gain_interval"]
    assert low < second["gain"] < high
    medals = first["private"]["medals"]
    assert medals["any"] == pytest.approx(medals["gold"] + medals["bronze"])
    assert sum(each["best"] for each in found["runs"]) == pytest.approx(1)
    values = [Predictions.read(run / "oof.csv", 3).values for run in (a, b)]
    largest = np.abs(values[0] - values[1]).max(1).argmax()
    assert found["ids"]["b"][0]["id"] == f"{largest:03d}"
    turned = compared(capsys, b, a, "--metric", "log_loss", "--rows", 400)
    assert turned["runs"][1]["gain"] == pytest.approx(-second["gain"])
    assert turned["private_rows"] == 400
    assert main(["compare", str(a), str(b), *QUICK, "--rows", "90", "--medals", "gold=0.99"]) == 0
    said = capsys.readouterr().out
    assert "accuracy, higher is better; 24 rows in 2 folds" in said
    assert "test rows are drawn as the training rows are" in said
    assert max(map(len, said.splitlines())) <= WIDTH


def test_what_cannot_be_compared_is_refused_with_the_reason(runs, capsys, tmp_path):
    a, b, c = (runs / name for name in "abc")
    assert "name at least two runs" in refused(capsys, a)
    (tmp_path / "again").symlink_to(a)
    assert "name each once" in refused(capsys, a, tmp_path / "again")
    assert "there is no run folder" in refused(capsys, a, runs / "nowhere")
    (runs / "empty").mkdir()
    assert "is not a run" in refused(capsys, a, runs / "empty")
    for words, reason in {
        ("--medals", "gold=0.5,silver=0.9", "--rows", "100"): "gold needs the highest score",
        ("--medals", "gold=0.5,silver=0.4", "--rows", "100", "--metric", "log_loss"): "gold needs the lowest score",
        ("--medals", "golden=0.5"): "Did you mean 'gold'",
        ("--medals", "gold=x"): "gold needs one number",
        ("--medals", "gold=0.9"): "Give the test rows: --rows N",
        ("--metric", "acuracy"): "Did you mean 'accuracy'",
        ("--public", "1"): "public is 1",
        ("--rows", "0"): "rows is 0",
    }.items():
        assert reason in refused(capsys, a, b, *words)
    shutil.rmtree(b / "fold_1")
    for name in ("oof.csv", "scores.json"):
        (b / name).unlink()
        (b / ".commits" / f"{name}.json").unlink()
    assert "has no out-of-fold predictions yet" in refused(capsys, a, b)
    values = Predictions.read(c / "oof.csv", 3).values.copy()
    values[2, 0] = np.nan
    write_oof(Run(c), values)
    assert "1 row without a prediction: 002" in refused(capsys, a, c)
    found = compared(capsys, a, c, "--common-rows")
    assert found["rows"] == 23


def test_a_table_of_another_program_is_compared_by_its_ids(runs, capsys, tmp_path):
    table = pd.read_csv(runs / "b" / "oof.csv", dtype=str).iloc[::-1]
    table[["red", "id", "blue", "green"]].to_csv(tmp_path / "other.csv", index=False)  # without folds
    found = compared(capsys, runs / "b", tmp_path / "other.csv")
    assert (found["runs"][1]["gain"], found["runs"][1]["interval"]) == (0, [0, 0])
    assert found["correlations"][0][1] == pytest.approx(1)
    assert found["ids"]["other"] == []
    only = [["id", "blue", "green", "red"], ["zzz", "1", "0", "0"]]
    with (tmp_path / "unknown.csv").open("w") as file:
        csv.writer(file).writerows(only)
    assert "not in the training table" in refused(capsys, runs / "a", tmp_path / "unknown.csv")
    assert "add --base" in refused(capsys, tmp_path / "other.csv", tmp_path / "unknown.csv")


@pytest.mark.parametrize("name", ["semicolons.csv", "tabs.csv", "packed.csv"])
def test_folds_of_tables_are_read_whatever_separates_their_fields(name, runs, tmp_path, capsys):
    table = pd.read_csv(runs / "b" / "oof.csv", dtype=str)
    table["fold"] = table["fold"].map({"0": "1", "1": "0"})
    file, how = tmp_path / name, {"semicolons.csv": {"sep": ";"}, "tabs.csv": {"sep": "\t"}}.get(name, {})
    table.to_csv(file, index=False, compression=None if how else "gzip", **how)
    assert compared(capsys, runs / "a", file)["other_folds"] == {Path(name).stem: 24}


def test_other_folds_are_said_and_other_targets_refused(runs, capsys):
    found = Predictions.read(runs / "b" / "oof.csv", 3)
    Predictions(found.ids, found.values, found.outputs, 1 - found.fold, found.status).write(
        Run(runs / "b").oof, "swinft fit"
    )
    table = compared(capsys, runs / "a", runs / "b")
    assert table["other_folds"] == {"b": 24}
    assert main(["compare", str(runs / "a"), str(runs / "b"), *QUICK]) == 0
    assert "b has other folds (24 rows in another one)" in capsys.readouterr().out


def test_scores_are_those_after_rules_that_were_fitted_on_other_folds(runs, capsys):
    run = Run(runs / "b")
    config = run.read_config()
    config["submission"]["rules"] = ["class_weights"]
    config["model"]["optim"]["lr"] = 0.5
    commit(run.config, yaml.safe_dump(config).encode(), "swinft fit")
    base = Base.open(run.root, None)
    oof = Predictions.read(run.oof, 3)
    wanted = score_with_rules(rules_of(["class_weights"]), oof, base.data, list(run.read_scores()["pooled"]), "")
    found = compared(capsys, run.root, runs / "a")
    assert found["runs"][0]["score"] == pytest.approx(wanted["pooled"]["accuracy"])
    assert found["has_rules"]
    without = compared(capsys, run.root, runs / "a", "--rules", "false")
    assert not without["has_rules"]
    assert set(found["config_differences"]) == {"submission.rules", "model.optim.lr"}
    assert found["config_differences"]["model.optim.lr"][0] == 0.5


def test_a_dozen_runs_fit_a_terminal(three, tmp_path, capsys):
    folders = []
    for number in range(12):
        name = f"{'long' * 10}{number}" if number % 2 else f"esc\x1b[31m{number}"
        folders.append(Path(shutil.copytree(three / "abc"[number % 3], tmp_path / name)))
    assert main(["compare", *map(str, folders), *QUICK, "--rows", "1000", "--medals", "gold=0.9,silver=0.8"]) == 0
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert max(map(len, said.splitlines())) <= WIDTH
    assert "is partly luck" in said


def test_the_same_from_python(three):
    found = swinft.compare([swinft.open_run(three / "a"), three / "b"], rows=1000, medals={"gold": 0.9}, resamples=100)
    frame = found.to_frame()
    assert frame["name"].tolist() == ["a", "b"]
    assert 0 <= frame["beats_reference"][1] <= 1
    assert frame["any"].notna().all()
    assert "a private split of 1,000 rows" in str(found)
    assert "<table" in found._repr_html_()
    with pytest.raises(swinft.InputError, match="name at least two"):
        swinft.compare([three / "a"])
