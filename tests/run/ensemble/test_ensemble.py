"""`swinft ensemble` through the front door: what is written, what is refused, and what other commands make of it."""

import csv
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import swinft
from swinft.cli import main
from swinft.inference.predictions import Predictions
from swinft.inference.provenance import sha256
from swinft.run.ensemble import folder
from swinft.run.ensemble import members as reading
from swinft.run.ensemble.engines import PARAMETERS
from swinft.run.ensemble.fits import climb
from swinft.run.ensemble.members import Base
from swinft.run.ensemble.methods import METHODS
from swinft.run.layout import Run
from swinft.run.lock import hold
from swinft.run.scoring import row_scorer, score_rows
from swinft.store import commit, record_existing
from tests.conftest import ROOT, in_this_process, tiny_config, write_config
from tests.json_documents import document
from tests.run.ensemble.conftest import write_oof, write_test

QUICK = ["--bootstrap", "20", "--leave-one-out", "false"]


@pytest.fixture(autouse=True)
def _no_report(request, monkeypatch):
    """Most tests do without a report: its figures take longer than the rest."""
    if "report" not in request.node.name:
        monkeypatch.setattr("swinft.run.ensemble.ensemble.write_report", lambda *_: None)


def combine(runs: Path, *words: str, name: str = "E", members: str = "abc") -> int:
    folders = [str(runs / each) for each in members]
    return main(["ensemble", *folders, "--name", name, "--runs", str(runs), *QUICK, *words])


def values(run: Path, table: str = "oof.csv") -> np.ndarray:
    return Predictions.read(run / table, 3).values


def error(capsys) -> str:
    return " ".join(capsys.readouterr().err.split())


def rewrite(path: Path, change) -> None:
    """A table with changed rows; each row is a list of cells."""
    rows = list(csv.reader(path.open()))
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(change(rows))


def pair(runs: Path, name: str, folder: Path) -> tuple[Path, Path]:
    """A member's tables as another program would have written them, in another order."""
    oof, test = folder / f"{name}_oof.csv", folder / f"{name}_test.csv"
    pd.read_csv(runs / name / "oof.csv", dtype=str).iloc[::-1][["id", "red", "fold", "green", "blue"]].to_csv(
        oof, index=False
    )
    pd.read_csv(runs / name / "test_predictions.csv", dtype=str).iloc[::-1].to_csv(test, index=False)
    return oof, test


def test_a_mean_is_a_run_of_its_own_with_a_report(runs, competition, capsys):
    assert combine(runs, "--method", "mean", "--json") == 0
    out, said = capsys.readouterr()
    found = document(out, "fit", "ensemble")
    made = runs / "E"
    assert (found["run"], found["folds"], found["ensemble"]["method"]) == (str(made), [], "mean")
    mean = np.mean([values(runs / name) for name in "abc"], 0)
    assert np.allclose(values(made), mean, atol=1e-6)
    assert np.allclose(
        values(made, "test_predictions.csv"),
        np.mean([values(runs / name, "test_predictions.csv") for name in "abc"], 0),
        atol=1e-6,
    )
    assert (made / "folds.csv").read_bytes() == (runs / "a" / "folds.csv").read_bytes()
    truth = pd.read_csv(competition / "train.csv", dtype=str)["color"].map(["blue", "green", "red"].index).to_numpy()
    scores = json.loads((made / "scores.json").read_text())
    assert scores["pooled"]["accuracy"] == pytest.approx((mean.argmax(1) == truth).mean())
    assert set(scores["pooled"]) == {"accuracy", "macro_f1", "log_loss"}
    assert [each["rows"] for each in scores["folds"]] == [12, 12]
    for name in "abc":
        alone = (values(runs / name).argmax(1) == truth).mean()
        assert f"{alone:.4f}" in next(line for line in said.splitlines() if line.startswith(f"{name} "))
    assert main(["submit", str(made)]) == 0
    assert "predictions: mean of 3 members: a, b, c" in capsys.readouterr().out
    submission = pd.read_csv(made / "submission.csv", dtype=str)
    tests = Predictions.read(made / "test_predictions.csv", 3)
    named = dict(zip(tests.ids, np.array(["blue", "green", "red"])[tests.values.argmax(1)], strict=True))
    assert submission["color"].tolist() == [named[id] for id in submission["id"]]
    assert main(["report", str(made)]) == 0
    page = (made / "report.html").read_text()
    assert "Methods and members" in page
    assert "mean of 3 members" in page
    assert "last epoch" not in page
    assert (made / "errors.csv").read_text().count("\n") == 25
    assert main(["predict", str(made), "--output", str(runs / "p.csv")]) == 0
    assert f"next: swinft submit {made} --predictions {runs / 'p.csv'}\n" in capsys.readouterr().out


def test_fitted_weights_are_applied_to_the_fold_that_they_did_not_see(runs, competition, capsys):
    assert combine(runs, "--method", "hill") == 0
    made, folds = Run(runs / "E"), Predictions.read(runs / "a" / "oof.csv", 3).fold
    members = np.stack([values(runs / name) for name in "abc"]).astype(np.float64)
    truth = pd.read_csv(competition / "train.csv", dtype=str)["color"].map(["blue", "green", "red"].index).to_numpy()
    accuracy = lambda rows: lambda found: float((found.argmax(1) == truth[rows]).mean())  # noqa: E731
    for fold in (0, 1):
        weights = climb(members[:, folds != fold], accuracy(folds != fold))
        expected = np.tensordot(weights, members[:, folds == fold], 1)
        assert np.allclose(values(made.root)[folds == fold], expected, atol=1e-6)
    weights = climb(members, accuracy(folds >= 0))
    assert made.read_ensemble()["fitted"]["weights"] == pytest.approx(weights.tolist())
    tests = np.stack([values(runs / name, "test_predictions.csv") for name in "abc"]).astype(np.float64)
    assert np.allclose(values(made.root, "test_predictions.csv"), np.tensordot(weights, tests, 1), atol=1e-6)
    assert "weights: " in capsys.readouterr().out


def test_a_table_of_targets_is_a_member_that_looks_too_good(runs, competition, tmp_path, capsys):
    oof, test = pair(runs, "c", tmp_path)
    truth = pd.read_csv(competition / "train.csv", dtype=str).set_index("id")["color"]
    table = pd.read_csv(oof, dtype={"id": str})
    for name in ("blue", "green", "red"):
        table[name] = (table["id"].map(truth) == name).astype(float)
    table.to_csv(oof, index=False)
    words = [str(runs / "a"), str(runs / "b"), f"{oof}:{test}", "--name=E", f"--runs={runs}", "--method=nnls", *QUICK]
    assert main(["ensemble", *words]) == 0
    assert "WARNING: c_oof predicts the targets with less than a fifth of the error" in capsys.readouterr().out
    table = json.loads((runs / "E" / "scores.json").read_text())["ensemble"]
    assert "c_oof predicts the targets" in table["warnings"][0]
    assert len(table["differences"]) == 10  # of two methods and three members


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["xgboost", "catboost"])
def test_all_methods_are_compared_with_trees_of_any_engine(engine, runs, capsys):
    pytest.importorskip(engine, reason=f"{engine} is not installed")
    assert combine(runs, "--method", "all", "--engine", engine) == 0
    table = json.loads((runs / "E" / "scores.json").read_text())["ensemble"]
    assert {each["name"] for each in table["methods"]} == set(METHODS) - {"rank"}
    assert combine(runs, "--method", "gbdt", "--engine", engine, "--overwrite") == 0
    assert Run(runs / "E").read_ensemble()["fitted"]["engine"] == engine
    assert engine in Run(runs / "E").read_environment()["versions"]
    before = (runs / "E" / "test_predictions.csv").read_bytes()
    assert combine(runs, "--method", "gbdt", "--engine", engine, "--overwrite") == 0
    assert main(["predict", str(runs / "E")]) == 0
    assert (runs / "E" / "test_predictions.csv").read_bytes() == before
    assert main(["submit", str(runs / "E")]) == 0
    assert combine(runs, "--method", "mean", "--engine", engine, "--overwrite") == 2
    assert f"engine {engine} is for method gbdt" in error(capsys)


@pytest.mark.slow
def test_masks_are_refused(runs, capsys):
    path = runs / "b" / "schema.json"
    schema = json.loads(path.read_text())
    commit(path, json.dumps({**schema, "kind": "segmentation"}).encode(), "swinft fit")
    assert combine(runs, "--method", "mean") == 2
    assert "b predicts masks (segmentation), which ensembles do not combine" in error(capsys)


@pytest.mark.slow
def test_weights_of_each_output_predict_the_test_rows(runs, capsys):
    assert combine(runs, "--method", "nnls-per-output") == 0
    assert "weights of blue: " in capsys.readouterr().out
    weights = np.array(Run(runs / "E").read_ensemble()["fitted"]["weights_per_output"])
    assert np.allclose(weights.sum(0), 1)
    tests = np.stack([values(runs / name, "test_predictions.csv") for name in "abc"])
    expected = np.einsum("mk,mnk->nk", weights, tests)
    found = values(runs / "E", "test_predictions.csv")
    assert np.allclose(found, expected / expected.sum(1, keepdims=True), atol=1e-6)
    assert np.allclose(found.sum(1), 1, atol=1e-6)


@pytest.mark.slow
def test_auto_prints_every_method_and_what_choosing_costs(runs, capsys):
    assert main(["ensemble", *(str(runs / name) for name in "abc"), "--name=E", f"--runs={runs}"]) == 0
    said = capsys.readouterr().out
    table = json.loads((runs / "E" / "scores.json").read_text())["ensemble"]
    order = [each["name"] for each in table["methods"]]
    expected = {"mean", "geometric", "power", "hill", "nnls", "nelder-mead", "nnls-per-output", "ridge", "logistic"}
    assert set(order) == expected
    shown = [line.split()[0] for line in said.splitlines() if line.startswith(tuple(f"{name} " for name in order))]
    assert shown == order
    assert table["method"] == order[0]
    assert f"auto chose {order[0]}, the best nested score of 9 methods" in said
    assert "is a small optimism of its own" in said
    assert "rank: not tried, the metric compares values" in said
    assert all(each["adds"] is not None for each in table["members"])
    assert np.allclose(np.diag(table["correlations"]), 1)


@pytest.mark.slow
def test_tables_of_other_programs_are_members_like_runs(runs, tmp_path):
    assert combine(runs, "--method", "nnls") == 0
    oof, test = pair(runs, "b", tmp_path)
    words = [str(runs / "a"), f"{oof}:{test}", str(runs / "c"), "--name=F", f"--runs={runs}", "--method=nnls", *QUICK]
    assert main(["ensemble", *words]) == 0
    for table in ("oof.csv", "test_predictions.csv"):
        assert (runs / "F" / table).read_bytes() == (runs / "E" / table).read_bytes()
    named = yaml.safe_load((runs / "F" / "ensemble.yaml").read_text())["members"]
    assert named[1] == {"name": "b_oof", "oof": str(oof), "test": str(test)}


@pytest.mark.slow
def test_only_tables_need_a_base(runs, tmp_path, capsys):
    pairs = [":".join(map(str, pair(runs, name, tmp_path))) for name in "bc"]
    words = ["ensemble", *pairs, "--name", "F", "--runs", str(runs), "--method", "mean", *QUICK]
    assert main(words) == 2
    assert "no member is a run: add --base runs/NAME" in error(capsys)
    assert main([*words, "--base", str(runs / "a")]) == 0
    assert np.allclose(values(runs / "F"), np.mean([values(runs / name) for name in "bc"], 0), atol=1e-6)


@pytest.mark.slow
def test_a_recipe_in_yaml_and_in_python_is_that_of_the_command(runs, tmp_path, monkeypatch):
    assert combine(runs, "--method", "hill") == 0
    oof, test = pair(runs, "b", tmp_path)
    recipe = {"name": "Y", "runs": str(runs), "method": "mean", "bootstrap": 0, "leave_one_out": False}
    recipe["members"] = [str(runs / "a"), {"name": "other", "oof": str(oof), "test": str(test)}, str(runs / "c")]
    (tmp_path / "e.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["ensemble", "--config", str(tmp_path / "e.yaml"), "--method", "hill"]) == 0  # options override it
    members = [swinft.open_run(runs / "a"), runs / "b", str(runs / "c")]
    made = swinft.ensemble(members, "P", runs=runs, method="hill", bootstrap=0, leave_one_out=False)
    assert made.scores["ensemble"]["method"] == "hill"
    assert made.submit().path == runs / "P" / "submission.csv"
    for name in "YP":
        for table in ("oof.csv", "test_predictions.csv"):
            assert (runs / name / table).read_bytes() == (runs / "E" / table).read_bytes()
    again = swinft.ensemble(runs / "E" / "ensemble.yaml", "again")
    assert (again.folder / "oof.csv").read_bytes() == (runs / "E" / "oof.csv").read_bytes()


@pytest.mark.slow
def test_an_ensemble_is_a_member_of_another(runs):
    assert combine(runs, "--method", "mean", members="ab") == 0
    assert (
        main(["ensemble", str(runs / "E"), str(runs / "c"), "--name=F", f"--runs={runs}", "--method=mean", *QUICK]) == 0
    )
    inner = np.mean([values(runs / name) for name in "ab"], 0)
    assert np.allclose(values(runs / "F"), (inner + values(runs / "c")) / 2, atol=1e-6)


def test_a_folder_with_rounds_is_the_round_that_was_the_last_one(runs):
    (runs / "all").mkdir()
    for name in "ab":
        (runs / name).rename(runs / "all" / name)
    plan = {"rounds": {"a": {}, "b": {}}, "last": "a", "command": ""}
    (runs / "all" / "rounds.json").write_text(json.dumps(plan))
    assert main(["ensemble", str(runs / "all"), str(runs / "c"), "--name=E", f"--runs={runs}", "--method=mean"]) == 0
    before = values(runs / "E", "test_predictions.csv")
    (runs / "all" / "rounds.json").write_text(json.dumps({**plan, "last": "b"}))  # a round was added
    assert main(["predict", str(runs / "E")]) == 0
    assert (values(runs / "E", "test_predictions.csv") == before).all()


def test_rows_that_were_dropped_by_labels_of_scored_rows_are_a_doubt(runs, capsys):
    doubt = "WARNING: rows that it does not train on"
    (runs / "all").mkdir()
    for name in "ab":
        (runs / name).rename(runs / "all" / name)
    marked = [{"name": "a", "is_optimistic": False}, {"name": "b", "is_optimistic": True}]
    plan = {"rounds": {"a": {}, "b": {}}, "last": "b", "table": {"rounds": marked}}
    (runs / "all" / "rounds.json").write_text(json.dumps(plan))
    words = [str(runs / "all" / "a"), str(runs / "all"), str(runs / "c")]
    for command in (["ensemble", *words, "--name=E", f"--runs={runs}", "--method=mean", *QUICK], ["compare", *words]):
        assert main(command) == 0
        said = " ".join(capsys.readouterr().out.split())
        assert said.count(doubt) == 1
        assert f"all: {doubt}" in said
    config = Run(runs / "c").read_config()
    config["data"]["folds"]["drop"] = "mine.csv"
    commit(Run(runs / "c").config, yaml.safe_dump(config).encode(), "swinft fit")
    assert main(["compare", str(runs / "all" / "a"), str(runs / "c")]) == 0
    assert f"c: {doubt}" in " ".join(capsys.readouterr().out.split())


def fold_of_one(rows):
    rows[3][4] = str(1 - int(rows[3][4]))
    return rows


def test_a_run_with_other_folds_is_refused(runs, capsys):
    path = runs / "c" / "oof.csv"
    rewrite(path, fold_of_one)
    record_existing(path, "swinft fit")
    assert combine(runs) == 2
    assert "c/oof.csv: 1 row is in another fold than in" in (said := error(capsys))
    assert "002 is in " in said
    assert not (runs / "E").exists()


CHANGES = {
    "missing id": (
        lambda rows: rows[:-1],
        "c/oof.csv does not contain every id exactly once: 1 id is without a prediction: 023",
    ),
    "doubled id": (lambda rows: [*rows, rows[1]], "1 id is predicted twice: 000"),
    "unknown id": (lambda rows: [*rows[:-1], ["x", *rows[-1][1:]]], "1 id is not known: x"),
    "other outputs": (lambda rows: [["id", "blue", "green", "grey", "fold"], *rows[1:]], "Missing or duplicate: red"),
    "other folds": (fold_of_one, "c/oof.csv: 1 row is in another fold than in"),
    "logits": (lambda rows: [rows[0], [rows[1][0], "7", *rows[1][2:]], *rows[2:]], "the predictions are from"),
    "a gap": (
        lambda rows: [rows[0], [rows[1][0], "", "", "", rows[1][4]], *rows[2:]],
        "1 row without a prediction: 000",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_a_run_that_does_not_fit_is_refused_with_its_file_and_id(change, runs, capsys):
    edit, message = CHANGES[change]
    path = runs / "c" / "oof.csv"
    rewrite(path, edit)
    record_existing(path, "swinft fit")
    assert combine(runs) == 2
    assert message in error(capsys)
    assert not (runs / "E").exists()
    assert not list(runs.glob(".*E*"))


FOREIGN = {
    "no fold": (lambda rows: [row[:2] + row[3:] for row in rows], "column 'fold': there is no such column"),
    "other folds": (
        lambda rows: [rows[0], *([*row[:2], "1", *row[3:]] for row in rows[1:])],
        "12 rows are in another fold",
    ),
    "unknown id": (lambda rows: [*rows, ["x", *rows[1][1:]]], "1 id is not in the training table"),
    "doubled id": (lambda rows: [*rows, rows[1]], "023"),
    "words": (lambda rows: [*rows[:-1], [rows[-1][0], "much", *rows[-1][2:]]], "much"),
    "missing id": (lambda rows: rows[:-2], "2 rows without a prediction: 000, 001"),
    "half a fold": (lambda rows: [*rows[:-1], [*rows[-1][:2], "0.5", *rows[-1][3:]]], "not a whole number"),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", FOREIGN)
def test_a_table_that_does_not_fit_is_refused_with_its_file_and_id(change, runs, tmp_path, capsys):
    edit, message = FOREIGN[change]
    oof, test = pair(runs, "c", tmp_path)
    rewrite(oof, edit)
    words = ["ensemble", str(runs / "a"), f"{oof}:{test}", "--name", "E", "--runs", str(runs), *QUICK]
    assert main(words) == 2
    said = error(capsys)
    assert message.replace("column 'fold'", "column fold") in said.replace("'fold'", "fold")
    assert str(oof) in said


def test_a_table_that_changes_while_it_is_read_is_refused(runs, tmp_path, capsys, monkeypatch):
    """The predictions were those before, and the recorded SHA-256 was that of the file afterwards."""
    oof, test = pair(runs, "c", tmp_path)
    read = reading.read_foreign

    def written_meanwhile(path, *given, **options):
        found = read(path, *given, **options)
        rewrite(path, lambda rows: rows[::-1])
        return found

    monkeypatch.setattr(reading, "read_foreign", written_meanwhile)
    words = ["ensemble", str(runs / "a"), f"{oof}:{test}", "--name", "E", "--runs", str(runs), *QUICK]
    assert main(words) == 2
    assert f"{oof} changed while it was read" in error(capsys)


WORDS = {
    "one member": (["a"], "it combines at least 2 members"),
    "one twice": (["a", "a"], "two members have the name a"),
    "no run": (["a", "nothing"], "there is no run folder"),
    "one table": (["a", "x.csv"], "write OOF.csv:TEST.csv"),
    "no members": ([], "name the members"),
}


@pytest.mark.slow
@pytest.mark.parametrize("wrong", WORDS)
def test_members_that_cannot_be_read_are_refused(wrong, three_runs, capsys, tmp_path):
    names, message = WORDS[wrong]
    words = [str(three_runs / name) if ".csv" not in name else name for name in names]
    assert main(["ensemble", *words, "--name", "E", "--runs", str(tmp_path), "--method", "mean"]) == 2
    assert message in error(capsys)


@pytest.mark.slow
def test_keys_of_a_recipe_are_checked(three_runs, tmp_path, capsys):
    recipe = tmp_path / "e.yaml"
    recipe.write_text("name: E\nmethd: mean\nmembers: [x]\n")
    assert main(["ensemble", "--config", str(recipe)]) == 2
    assert f"{recipe}:2: unknown key 'methd'. Did you mean 'method'?" in error(capsys)
    recipe.write_text("name: E\nmembers: [x]\nallow_code: [os]\n")
    assert main(["ensemble", "--config", str(recipe)]) == 2
    assert "unknown key 'allow_code'" in error(capsys)
    recipe.write_text("name: E\nmembers: [{name: x, oofs: y}]\n")
    assert main(["ensemble", "--config", str(recipe)]) == 2
    assert "no 'oofs'. Did you mean 'oof'?" in error(capsys)
    members = [str(three_runs / "a"), str(three_runs / "b")]
    assert main(["ensemble", *members, "--name", "E", "--method", "hil"]) == 2
    assert "hill" in error(capsys)
    assert main(["ensemble", *members, "--name", "E", "--bootstrap", "-1"]) == 2
    assert "bootstrap is -1" in error(capsys)
    assert main(["ensemble", *members, "--name", "a/b"]) == 2
    assert "contains a slash" in error(capsys)
    assert main(["ensemble", *members, "--name", "E", "--runs", str(tmp_path), "--method", "rank"]) == 2
    assert "--method rank: the metric compares values, and ranks are none. Use --method mean or" in error(capsys)


@pytest.mark.slow
def test_other_targets_are_refused(runs, competition, tmp_path, capsys):
    """The same ids and folds, and a table in which one of the classes is another."""
    other = tmp_path / "other"
    shutil.copytree(competition, other)
    table = other / "train.csv"
    table.write_text(table.read_text().replace("000,red", "000,blue"))
    run = Run(runs / "b")
    config = yaml.safe_load(run.config.read_text())
    config["data"]["root"] = str(other)
    commit(run.config, yaml.safe_dump(config).encode(), "swinft fit")
    hashes = {name: sha256((other / name).read_bytes()) for name in ("train.csv", "test.csv", "sample_submission.csv")}
    commit(run.inputs, json.dumps(hashes).encode(), "swinft fit")
    assert combine(runs) == 2
    assert "b was trained on other targets than" in (said := error(capsys))
    assert "those of 1 id differ: 000" in said
    table.write_text(table.read_text().replace("000,blue", "000,red") + "\n")
    commit(run.inputs, json.dumps(hashes | {"train.csv": sha256(table.read_bytes())}).encode(), "swinft fit")
    assert combine(runs, "--method", "mean") == 0  # another file with the same targets


@pytest.mark.slow
def test_common_rows_leave_out_what_a_member_lacks_in_the_report_as_well(runs, capsys):
    found = values(runs / "b").copy()
    found[[2, 5]] = np.nan
    write_oof(Run(runs / "b"), found)
    assert combine(runs, "--method", "mean") == 2
    assert "b/oof.csv: 2 rows without a prediction: 002, 005" in (said := error(capsys))
    assert "add --common-rows to leave them out of every member" in said
    assert combine(runs, "--method", "mean", "--common-rows") == 0
    made = Predictions.read(runs / "E" / "oof.csv", 3)
    assert np.flatnonzero(np.isnan(made.values[:, 0])).tolist() == [2, 5]
    assert made.status[2] == "not predicted by every member"
    scores = json.loads((runs / "E" / "scores.json").read_text())
    assert scores["rows"] == 22
    assert scores["not_scored"] == {"not predicted by every member": 2}
    assert "WARNING" not in capsys.readouterr().err  # the report leaves these rows out
    assert {"002", "005"}.isdisjoint(pd.read_csv(runs / "E" / "errors.csv", dtype=str)["id"])


@pytest.mark.slow
def test_a_member_that_changed_is_seen(runs, capsys):
    assert combine(runs, "--method", "mean") == 0
    before = values(runs / "E", "test_predictions.csv")
    write_test(Run(runs / "b"), values(runs / "c", "test_predictions.csv"))
    capsys.readouterr()
    assert main(["submit", str(runs / "E")]) == 2
    assert "files of members have changed since" in (said := error(capsys))
    assert f"{runs / 'b' / 'test_predictions.csv'}" in said
    assert f"run `swinft predict {runs / 'E'}` again" in said
    assert main(["predict", str(runs / "E")]) == 0
    assert not np.allclose(values(runs / "E", "test_predictions.csv"), before)
    assert main(["submit", str(runs / "E")]) == 0
    write_oof(Run(runs / "b"), values(runs / "c"))
    capsys.readouterr()
    assert main(["submit", str(runs / "E")]) == 2
    assert "make the ensemble again" in error(capsys)
    shutil.rmtree(runs / "b")
    assert main(["submit", str(runs / "E")]) == 0
    assert "whether this member has changed since is unknown" in capsys.readouterr().out


def test_a_member_of_a_member_that_changed_is_seen(runs, capsys):
    assert combine(runs, "--method", "mean", members="ab") == 0
    assert combine(runs, "--method", "mean", members="Ec", name="F") == 0
    before = values(runs / "E")
    for members in ("Ec", "Fc"):
        assert combine(runs, "--method", "mean", "--overwrite", members=members) == 2
        assert f"{runs / members[0]} is, or is made of, {runs / 'E'}, which --overwrite would delete" in error(capsys)
    assert (values(runs / "E") == before).all()
    write_test(Run(runs / "b"), values(runs / "c", "test_predictions.csv"))
    capsys.readouterr()
    assert main(["submit", str(runs / "F")]) == 2
    said = error(capsys)
    assert f"{runs / 'E' / 'test_predictions.csv'} is out of date" in said
    assert f"run `swinft predict {runs / 'E'}` again" in said
    assert main(["predict", str(runs / "E")]) == 0
    assert main(["submit", str(runs / "F")]) == 2
    assert f"run `swinft predict {runs / 'F'}` again" in error(capsys)
    assert main(["predict", str(runs / "F")]) == 0
    assert main(["submit", str(runs / "F")]) == 0


@pytest.mark.slow
def test_members_without_test_predictions_can_follow_later(runs, capsys):
    for path in (runs / "b").glob("test_predictions*"):
        path.unlink()
    assert combine(runs, "--method", "mean") == 0
    assert "no test predictions yet of b" in capsys.readouterr().out
    assert not (runs / "E" / "test_predictions.csv").exists()
    assert main(["submit", str(runs / "E")]) == 2
    assert f"swinft predict {runs / 'E'}" in error(capsys)
    assert main(["predict", str(runs / "E")]) == 2
    assert f"without test predictions: b. Run `swinft predict {runs / 'b'}` first." in error(capsys)
    shutil.copy(runs / "a" / "test_predictions.csv", runs / "b")
    shutil.copy(runs / "a" / "test_predictions.made_from.json", runs / "b")
    shutil.copytree(runs / "a" / ".commits", runs / "b" / ".commits", dirs_exist_ok=True)
    assert main(["predict", str(runs / "E")]) == 0
    assert main(["submit", str(runs / "E")]) == 0


@pytest.mark.slow
def test_test_predictions_of_other_rows_are_refused(runs, tmp_path, capsys):
    oof, test = pair(runs, "b", tmp_path)
    test.write_text("\n".join(test.read_text().splitlines()[:-1]) + "\n")
    words = ["ensemble", str(runs / "a"), f"{oof}:{test}", "--name", "E", "--runs", str(runs), "--method=mean", *QUICK]
    assert main(words) == 2
    assert f"{test} does not contain every id exactly once" in error(capsys)
    assert not (runs / "E").exists()


@pytest.mark.slow
def test_commands_that_need_networks_say_that_it_has_none(runs, capsys, tmp_path):
    assert combine(runs, "--method", "mean") == 0
    made = str(runs / "E")
    for words in (["fit", "--resume", made], ["export", made, "--fold", "0", "--to", "timm"]):
        assert main(words) == 2
        assert "E is an ensemble and has no networks: name the run of a member: a, b, c" in error(capsys)
    words = [
        "fit",
        "--config",
        str(runs / "a" / "config.yaml"),
        "--name",
        "new",
        "--runs",
        str(tmp_path),
        "--fold",
        "0",
    ]
    assert main([*words, "--model.pretrained", made]) == 2
    assert "E is an ensemble and has no networks" in error(capsys)
    assert main(["predict", made, "--views", "hflip"]) == 2
    assert "--views: " in (said := error(capsys))
    assert "predict with the members' own runs first" in said
    with pytest.raises(swinft.InputError, match="has no networks"):
        swinft.open_run(made).network(0)


@pytest.mark.slow
def test_a_name_is_taken_once_and_only_ensembles_are_overwritten(runs, capsys):
    assert combine(runs, "--method", "mean") == 0
    before = (runs / "E" / "oof.csv").read_bytes()
    assert combine(runs, "--method", "geometric") == 2
    assert "E exists. --overwrite deletes it" in error(capsys)
    assert combine(runs, "--method", "geometric", "--overwrite") == 0
    assert (runs / "E" / "oof.csv").read_bytes() != before
    assert combine(runs, "--overwrite", name="a", members="bc") == 2
    assert "a is not an ensemble" in error(capsys)
    assert sorted(path.name for path in runs.iterdir()) == [".locks", "E", "a", "b", "c"]


@pytest.mark.slow
@pytest.mark.parametrize("file", ["oof", "config"])
def test_a_crash_leaves_the_earlier_ensemble_or_none(file, runs, monkeypatch):
    whole = folder.commit

    def stop(path, content, maker):
        if path.stem == file:
            raise KeyboardInterrupt
        whole(path, content, maker)

    with monkeypatch.context() as patch:
        patch.setattr("swinft.run.ensemble.folder.commit", stop)
        patch.setattr("swinft.inference.predictions.commit", stop)
        assert combine(runs, "--method", "mean") == 130
        assert not (runs / "E").exists()
    (runs / ".E.unfinished").mkdir()  # of a process that was killed
    (runs / ".E.unfinished" / "oof.csv").write_text("half")
    assert combine(runs, "--method", "mean") == 0
    assert not list(runs.glob(".E.*"))
    before = (runs / "E" / "oof.csv").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("swinft.run.ensemble.folder.commit", stop)
        patch.setattr("swinft.inference.predictions.commit", stop)
        assert combine(runs, "--method", "geometric", "--overwrite") == 130
    assert (runs / "E" / "oof.csv").read_bytes() == before
    assert main(["submit", str(runs / "E")]) == 0


@pytest.mark.slow
def test_a_run_in_use_is_waited_for_by_its_user(runs, capsys):
    with hold(Run(runs / "b").lock):
        assert combine(runs) == 2
    assert "b is in use by process" in error(capsys)
    with hold(Run(runs / "E").lock):
        assert combine(runs) == 2
    assert "E is in use by process" in error(capsys)


@pytest.mark.slow
def test_the_examples_of_the_page_run(runs, tmp_path, monkeypatch, capsys):
    page = (ROOT / "docs" / "ensembles.md").read_text()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    oof, test = pair(runs, "b", tmp_path)
    oof.rename(tmp_path / "other" / "oof.csv")
    test.rename(tmp_path / "other" / "test.csv")
    rewrite(tmp_path / "other" / "oof.csv", lambda rows: [rows[0], *([*row[:1], "0", *row[2:]] for row in rows[1:])])
    commands, recipe, code = re.findall(r"```\w*\n(.*?)```", page, re.DOTALL)
    assert commands.count("swinft ") == 3
    for line in commands.splitlines():
        assert main(line.split()[1:]) == 0, line
    (tmp_path / "blend.yaml").write_text(recipe)
    assert main(["ensemble", "--config", "blend.yaml"]) == 0
    exec(code, {})
    assert Path("runs/mean_of_two/submission.csv").is_file()
    for name in METHODS:
        assert f"`{name}`" in page


@pytest.mark.slow
def test_trees_see_the_metadata_of_test_rows_and_a_metric_the_table(competition, tmp_path, monkeypatch, capsys):
    """Two real runs of numbers, with groups, a column of metadata and a metric that reads another column."""
    pytest.importorskip("lightgbm", reason="LightGBM is not installed: pip install 'swinft[gbdt]'")
    data = tmp_path / "data"
    shutil.copytree(competition, data)
    for name in ("train.csv", "test.csv"):
        table = pd.read_csv(data / name, dtype=str)
        table["age"] = [str(7 * row % 24) for row in range(len(table))]
        table["clinic"] = [f"c{row % 8}" for row in range(len(table))]
        table.to_csv(data / name, index=False)
    (tmp_path / "seen.py").write_text(METRIC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("swinft.run.fit.run_children", in_this_process)
    for seed, name in enumerate("xy"):
        changes = {
            "name": name,
            "seed": 42,
            "data.target": "brightness",
            "data.target_kind": "regression",
            "data.folds": {"num": 2, "group": "clinic"} if name == "x" else {"file": "runs/x/folds.csv", "num": None},
            "data.columns": {"numeric_features": ["age"]},
            "model.head": {"class_path": "swinft.RegressionHead"},
            "model.metrics": [{"class_path": "seen.OldError"}, "rmse"],
            "model.optim": {"lr": 3e-3 * (seed + 1), "warmup_epochs": 0.5},
            "trainer.max_epochs": 1,
        }
        config = write_config(tmp_path / f"{name}.yaml", tiny_config(data, Path("runs"), **changes))
        assert main(["fit", "--config", str(config), "--allow-code", "seen"]) == 0
        assert main(["predict", f"runs/{name}", "--device", "cpu", "--allow-code", "seen"]) == 0
    monkeypatch.setitem(PARAMETERS, "lightgbm", {**PARAMETERS["lightgbm"], "min_data_in_leaf": 2})
    words = ["ensemble", "runs/x", "runs/y", "--name", "E", "--method", "gbdt", "--bootstrap", "10"]
    assert main(words) == 2
    assert "--allow-code seen" in error(capsys)
    assert main([*words, "--allow-code", "seen"]) == 0
    said = capsys.readouterr().out
    assert "OldError, lower is better; 24 rows in 2 folds" in said
    assert "10 resamples of the groups of rows" in said
    made = Run(tmp_path / "runs" / "E")
    assert made.read_ensemble()["fitted"]["features"] == 3
    scores = made.read_scores()
    truth = pd.read_csv(data / "train.csv")
    oof = Predictions.read(made.oof, 1)
    errors = np.abs(oof.values[:, 0] - truth["brightness"])
    assert scores["pooled"]["OldError"] == pytest.approx(errors[truth["age"] > 11].mean(), rel=1e-6)
    base, rows = Base.open(tmp_path / "runs" / "x", ["seen"]), np.arange(24)
    some = np.array([20, 3, 3, 11, 23, 7])  # as resampled rows and folds are
    found = row_scorer(base.metrics, base.data, rows)(oof.values[some], some)
    assert found == score_rows(base.metrics, base.data, rows[some], oof.values[some])
    before = Predictions.read(made.test_predictions, 1).values
    table = pd.read_csv(data / "test.csv", dtype=str)
    table["age"] = "23"
    table.to_csv(data / "test.csv", index=False)
    assert main(["predict", "runs/E", "--allow-code", "seen"]) == 0
    assert not np.array_equal(Predictions.read(made.test_predictions, 1).values, before)  # the column is an input
    (data / "test.csv").write_text("\n".join((data / "test.csv").read_text().splitlines()[:-1]) + "\n")
    capsys.readouterr()
    assert main(["predict", "runs/E", "--allow-code", "seen"]) == 2
    assert "the test table lacks 1 predicted id" in error(capsys)


METRIC = """from swinft import Metric


class OldError(Metric):
    higher_is_better = False

    def compute(self, predictions, targets, rows):
        old = rows["age"].astype(float).to_numpy() > 11
        return float(abs(predictions[old] - targets[old]).mean())
"""
