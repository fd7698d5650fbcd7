"""Fitted rules in a run: cross-fitted scores, stored parameters, and what `submit` does where they are out of date."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import accuracy_score, log_loss

from swinft.cli import main
from swinft.inference.predictions import Predictions
from swinft.inference.provenance import sha256
from swinft.run.layout import Run
from swinft.store import commit
from tests.conftest import tiny_config, write_config
from tests.run.submission.copies import finished_with

COLORS = ["blue", "green", "red"]
RULES = ["temperature", {"class_weights": {"metric": "accuracy", "min_positives": 0}}]


@pytest.fixture(scope="module")
def fitted_run(tiny_run, tmp_path_factory):
    """A finished run with fitted rules and its submission of probabilities."""
    folder = tmp_path_factory.mktemp("fitted")
    sample = folder / "sample.csv"
    sample.write_text("id,blue,green,red\n" + "".join(f"t{i},0.2,0.3,0.5\n" for i in (3, 1, 2, 6, 5, 4)))
    run = finished_with(tiny_run, folder / "tiny", {"rules": RULES}, sample)
    assert main(["submit", str(run.root)]) == 0
    return run.root


def truth_of(competition: Path) -> list[str]:
    with (competition / "train.csv").open() as file:
        return [row["color"] for row in csv.DictReader(file)]


def changed(values: np.ndarray, parameters: list) -> np.ndarray:
    """What temperature and weights make of probabilities."""
    values = values ** (1 / parameters[0]["temperature"])
    values = values / values.sum(1, keepdims=True) * [parameters[1]["weights"][color] for color in COLORS]
    return values / values.sum(1, keepdims=True)


def test_the_score_with_rules_is_cross_fitted_and_submit_applies_the_parameters_of_all_rows(fitted_run, competition):
    run, truth = Run.open(fitted_run), np.array(truth_of(competition))
    oof = pd.read_csv(run.oof, dtype={"id": str})
    values, folds = oof[COLORS].to_numpy(np.float64), oof["fold"].to_numpy()
    found = run.read_scores()["with_rules"]
    assert found["rules"] == [{"temperature": {}}, RULES[1]]
    assert found["fitted"]["oof"] == sha256(run.oof.read_bytes())
    assert found["fitted"]["folds"].keys() == {"0", "1"}
    outside = np.empty_like(values)
    for fold in (0, 1):
        outside[folds == fold] = changed(values[folds == fold], found["fitted"]["folds"][str(fold)])
    inside = changed(values, found["fitted"]["parameters"])
    for scores, each in ((found["pooled"], outside), (found["in_sample"], inside)):
        assert scores["log_loss"] == pytest.approx(log_loss(truth, each, labels=COLORS), rel=1e-4)
        assert scores["accuracy"] == pytest.approx(accuracy_score(truth, np.array(COLORS)[each.argmax(1)]))
    raw = pd.read_csv(fitted_run / "test_predictions.csv").sort_values("id")[COLORS].to_numpy(np.float64)
    written = pd.read_csv(fitted_run / "submission.csv").sort_values("id")[COLORS].to_numpy()
    assert written == pytest.approx(changed(raw, found["fitted"]["parameters"]), rel=1e-4)
    page = (fitted_run / "report.html").read_text()
    assert "<td>with rules, in sample</td>" in page
    assert "temperature: fitted on all out-of-fold rows: temperature" in page


def test_the_parameters_of_a_fold_do_not_depend_on_its_own_rows(fitted_run, competition, tmp_path):
    """Other predictions for fold 0: fold 0 keeps its parameters, which are those of the rows of fold 1."""
    other = Path(shutil.copytree(fitted_run, tmp_path / "other"))
    run = Run.open(other)
    oof = Predictions.read(run.fold(0).oof, 3)
    Predictions(oof.ids, oof.values[:, [1, 2, 0]], oof.outputs, oof.fold, oof.status).write(
        run.fold(0).oof, "swinft fit"
    )
    again = finished_with(other, tmp_path / "joined", {})
    before, after = (Run.open(each).read_scores()["with_rules"]["fitted"] for each in (fitted_run, again.root))
    assert before["folds"]["0"] == after["folds"]["0"]
    assert before["folds"]["1"] != after["folds"]["1"]
    assert before["parameters"] != after["parameters"]


def submit(run: Path, output: Path, *words: str) -> dict:
    assert main(["submit", str(run), "--output", str(output), *words]) == 0
    return json.loads(output.with_name(f"{output.stem}.made_from.json").read_text())


def test_submit_prints_and_records_what_it_applies(fitted_run, tmp_path, capsys):
    stored = Run.open(fitted_run).read_scores()["with_rules"]
    recorded = submit(fitted_run, tmp_path / "s.csv")["out_of_fold"]
    out = capsys.readouterr().out
    assert "rule 1, temperature: fitted on all out-of-fold rows: temperature " in out
    assert "(fitted on other folds; " in out
    assert recorded["fitted"] == {"oof": stored["fitted"]["oof"], "parameters": stored["fitted"]["parameters"]}
    assert recorded["with"] == stored["pooled"]
    assert recorded["in_sample"] == stored["in_sample"]


def test_other_rules_are_fitted_by_submit(fitted_run, tmp_path):
    recorded = submit(fitted_run, tmp_path / "s.csv", "--rules", "[{calibrate: {min_positives: 1}}]")["out_of_fold"]
    assert recorded["fitted"]["parameters"][0].keys() == {"platt"}
    assert recorded["with"] != recorded["in_sample"]
    assert Run.open(fitted_run).read_scores()["with_rules"]["rules"] != ["calibrate"]


def test_parameters_of_other_predictions_are_never_used(fitted_run, competition, tmp_path, capsys):
    stale = Path(shutil.copytree(fitted_run, tmp_path / "stale"))
    run = Run.open(stale)
    oof = Predictions.read(run.oof, 3)
    commit(
        run.oof,
        Predictions(oof.ids, oof.values[:, [1, 2, 0]], oof.outputs, oof.fold, oof.status).to_bytes(),
        "swinft fit",
    )
    before = run.read_scores()["with_rules"]["fitted"]
    found = submit(stale, tmp_path / "s.csv")["out_of_fold"]["fitted"]  # the training table is here: fitted again
    assert found["oof"] == sha256(run.oof.read_bytes()) != before["oof"]
    assert found["parameters"][0]["temperature"] > 1 > before["parameters"][0]["temperature"]  # all rows are wrong now
    for name in ("test.csv", "images"):
        (tmp_path / name).symlink_to(competition / name)
    capsys.readouterr()
    assert main(["submit", str(stale), "--root", str(tmp_path), "--dry-run"]) == 2
    err = capsys.readouterr().err
    assert "rule 1, temperature" in err
    assert "are fitted on all out-of-fold predictions" in err
    assert "--rules '[]'" in err
    assert main(["submit", str(stale), "--root", str(tmp_path), "--dry-run", "--rules", "[]"]) == 0


def test_without_the_training_table_the_stored_parameters_are_applied(fitted_run, competition, tmp_path, capsys):
    """On another machine: the same rules, and the same rules with `--clip` after them."""
    for name in ("test.csv", "images"):
        (tmp_path / name).symlink_to(competition / name)
    words = ["submit", str(fitted_run), "--root", str(tmp_path), "--output", str(tmp_path / "s.csv")]
    assert main(words) == 0
    assert (tmp_path / "s.csv").read_bytes() == (fitted_run / "submission.csv").read_bytes()
    assert main([*words, "--clip", "0.3,0.4"]) == 0
    out = capsys.readouterr().out
    assert "the score with these rules is not known" in out
    cells = pd.read_csv(tmp_path / "s.csv")[COLORS].to_numpy()
    stored = pd.read_csv(fitted_run / "submission.csv")[COLORS].to_numpy()
    assert cells == pytest.approx(stored.clip(0.3, 0.4), abs=1e-6)
    copied = Path(shutil.copytree(fitted_run, tmp_path / "bundled"))
    (copied / "oof.csv").unlink()  # as in a bundle for Kaggle
    assert main(["submit", str(copied), "--root", str(tmp_path)]) == 0
    assert (copied / "submission.csv").read_bytes() == (fitted_run / "submission.csv").read_bytes()
    assert main([*words, "--rules", "[clip_fitted]"]) == 2
    assert "name its folder by --root" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ("[thresholds]", "it is for labels and for two classes, not for 3. See `class_weights`."),
        ("[cuts]", "the classes have no order. Set data.columns.class_order."),
        ("[affine]", "it is for regression, not for classification."),
    ],
)
def test_rules_that_are_for_other_outputs_are_refused_before_they_are_fitted(fitted_run, rules, said, capsys):
    assert main(["submit", str(fitted_run), "--dry-run", "--rules", rules]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert "are not known" not in err


def test_a_run_without_all_folds_has_no_parameters(fitted_run, tmp_path, capsys):
    part = Path(shutil.copytree(fitted_run, tmp_path / "part"))
    for name in ("scores.json", "oof.csv"):
        (part / name).unlink()
    assert main(["submit", str(part), "--dry-run"]) == 2
    err = capsys.readouterr().err
    assert "not every fold is finished. Run `swinft fit" in err


def test_one_fold_alone_has_an_in_sample_score_and_says_so(tiny_run, competition, tmp_path, capsys):
    """A single scored fold: its parameters act, and no score of other rows is known."""
    part = Path(shutil.copytree(tiny_run, tmp_path / "part"))
    run = Run.open(part)
    rows = list(csv.reader(run.folds.open()))
    commit(run.folds, "".join(f"{id},{'fold' if id == 'id' else -1 if fold == '1' else 0}\n" for id, fold in rows)
           .encode(), "swinft fit")  # fmt: skip
    config = run.read_config()
    (tmp_path / "folds.csv").write_bytes(run.folds.read_bytes())
    config["data"]["folds"] |= {"file": str(tmp_path / "folds.csv"), "num": None}
    commit(run.config, yaml.safe_dump(config).encode(), "swinft fit")
    one = finished_with(part, tmp_path / "one", {"rules": RULES})
    scores = one.read_scores()
    assert scores["with_rules"]["pooled"] == {}
    assert "only one fold is scored" in scores["with_rules"]["problem"]
    assert scores["with_rules"]["in_sample"].keys() == scores["pooled"].keys()
    assert main(["predict", str(one.root), "--device", "cpu"]) == 0
    capsys.readouterr()
    assert main(["submit", str(one.root)]) == 0
    out = capsys.readouterr().out
    assert "on the rows that they were fitted on, which is too good: accuracy" in out
    assert "rule 1, temperature: fitted on all out-of-fold rows" in out


def test_a_wrong_objective_is_found_before_training(competition, tmp_path, capsys):
    for rules, message in (
        ([{"class_weights": {"metric": "acuracy"}}], "there is no metric 'acuracy'. Did you mean 'accuracy'"),
        (["thresholds"], "it is for labels and for two classes, not for 3"),
        (["cuts"], "Set data.columns.class_order"),
    ):
        config = tiny_config(competition, tmp_path / "runs", **{"submission.rules": rules})
        assert main(["check", "--config", str(write_config(tmp_path / "c.yaml", config))]) == 2
        assert message in capsys.readouterr().err
    config = tiny_config(competition, tmp_path / "runs", **{"submission.rules": RULES})
    assert main(["check", "--config", str(write_config(tmp_path / "c.yaml", config))]) == 0
    assert "fitted on the out-of-fold predictions: temperature, class_weights(" in capsys.readouterr().out


@pytest.mark.slow
def test_an_ensemble_fits_the_rules_on_its_own_out_of_fold_predictions(fitted_run, tmp_path):
    other = Path(shutil.copytree(fitted_run, tmp_path / "other"))
    words = ["ensemble", str(fitted_run), str(other), "--method", "mean", "--runs", str(tmp_path), "--name", "blend"]
    assert main([*words, "--leave-one-out", "false"]) == 0
    run = Run.open(tmp_path / "blend")
    found = run.read_scores()["with_rules"]
    assert found["fitted"]["oof"] == sha256(run.oof.read_bytes())
    assert found["fitted"]["folds"].keys() == {"0", "1"}
    recorded = submit(run.root, tmp_path / "s.csv")["out_of_fold"]
    assert recorded["fitted"]["parameters"] == found["fitted"]["parameters"]


@pytest.mark.slow
def test_a_finished_run_takes_fitted_rules_when_it_is_resumed(tiny_run, tmp_path, capsys):
    copied = shutil.copytree(tiny_run, tmp_path / "copy")
    assert main(["fit", "--resume", str(copied), "--submission.rules", "[temperature]"]) == 0
    out = capsys.readouterr().out
    assert "in sample" in out
    assert "rule 1, temperature: fitted on all out-of-fold rows: temperature" in out
