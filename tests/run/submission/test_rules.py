"""Rules in a run: checked before training, scored out of fold, and applied by `submit`."""

import csv
import inspect
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import log_loss

from swinft.cli import main
from swinft.inference.rules.named import BUILTIN, FITTED, RULES, rules_of
from swinft.run.config.old_keys import migrated
from swinft.run.layout import Run
from tests.conftest import ROOT, tiny_config, write_config
from tests.run.submission.copies import finished_with

POWER = [{"power": {"exponent": 3}}]


@pytest.fixture(scope="module")
def grouped(competition, tmp_path_factory):
    """The competition with a column `patient` in both tables: the target's three classes in turn."""
    root = tmp_path_factory.mktemp("grouped")
    (root / "images").symlink_to(competition / "images")
    shutil.copy(competition / "sample_submission.csv", root)
    for name in ("train", "test"):
        header, *lines = (competition / f"{name}.csv").read_text().splitlines()
        rows = [f"{line},p{number // 2}" for number, line in enumerate(lines)]
        (root / f"{name}.csv").write_text("\n".join([f"{header},patient", *rows]) + "\n")
    return root


def check(root, tmp_path, *rules: object, **changes: object) -> int:
    config = tiny_config(root, tmp_path / "runs", **{"submission.rules": list(rules), **changes})
    return main(["check", "--config", str(write_config(tmp_path / "c.yaml", config))])


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            [{"power": {"exponent": 2, "of": ["rde"]}}],
            "rule 1, power(exponent=2, of=['rde']): there is no output 'rde'",
        ),
        ([{"group": {"by": "brightness"}}], "reads the column 'brightness', which "),  # of the training table alone
        (["clipp"], "Did you mean 'clip'"),
        ([{"class_path": "swinft.ClassificationHead"}], "submission.rules needs a class derived from swinft's Rule"),
    ],
)
def test_what_is_wrong_is_found_before_training(rules, message, competition, tmp_path, capsys):
    assert check(competition, tmp_path, *rules) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count(message) == 1  # found by one check, not by two


KINDS = {
    "classification": {"model.metrics": ["log_loss", "accuracy"], "data.columns.class_order": ["blue", "green", "red"]},
    "regression": {
        "data.target": "is_red", "model.head": {"class_path": "swinft.RegressionHead"}, "model.metrics": ["quadratic_kappa"],
    },
    "multilabel": {
        "data.target": ["is_red", "is_green"], "model.head": {"class_path": "swinft.MultilabelHead"},
        "model.metrics": ["macro_f1"],
    },
}  # fmt: skip
ALLOWED = [(rule.name, kind) for rule in FITTED for kind in rule.kinds if rule.name != "new_class" and kind in KINDS]


@pytest.mark.parametrize(("name", "kind"), ALLOWED)
def test_every_fitted_rule_of_a_kind_of_target_passes_check(name, kind, competition, tmp_path, capsys):
    changes = {"data.target_kind": kind, "data.sample_submission": None, **KINDS[kind]}
    if (name, kind) == ("thresholds", "classification"):  # for two classes
        changes |= {"data.target": "is_red", "data.columns.class_order": None, "model.metrics": ["accuracy"]}
    metric = {} if kind != "classification" or name != "class_weights" else {"metric": "accuracy"}
    assert check(competition, tmp_path, {name: metric} if metric else name, **changes) == 0, capsys.readouterr().err


def test_check_prints_rules_and_groups_in_several_folds(grouped, tmp_path, capsys):
    assert check(grouped, tmp_path, {"group": {"by": "patient", "how": "max"}}, *POWER) == 0
    out = capsys.readouterr().out
    assert "rules: group(by=patient, how=max), then power(exponent=3)" in out
    assert "have rows in several folds" in out
    assert "no group" not in out
    assert check(grouped, tmp_path, {"group": {"by": "patient"}}, **{"data.folds.group": "patient"}) == 0
    assert "several folds" not in capsys.readouterr().out


@pytest.fixture(scope="module")
def ruled(tiny_run, tmp_path_factory):
    """A finished run with rules and its submission of probabilities: the tiny run with another config and sample."""
    folder = tmp_path_factory.mktemp("ruled")
    sample = folder / "sample.csv"
    sample.write_text("id,blue,green,red\n" + "".join(f"t{i},0.2,0.3,0.5\n" for i in (3, 1, 2, 6, 5, 4)))
    run = finished_with(tiny_run, folder / "tiny", {"rules": POWER}, sample)
    assert main(["submit", str(run.root)]) == 0
    return run.root


def cells(path) -> np.ndarray:
    """The numbers of a submission, columns in the order of the classes."""
    return pd.read_csv(path).sort_values("id")[["blue", "green", "red"]].to_numpy()


def powers(values: np.ndarray, exponent: float) -> np.ndarray:
    return values**exponent / (values**exponent).sum(1, keepdims=True)


def test_the_score_with_rules_is_that_of_what_is_submitted(ruled, competition):
    scores, oof = Run.open(ruled).read_scores(), pd.read_csv(ruled / "oof.csv", dtype={"id": str})
    with (competition / "train.csv").open() as file:
        truth = [row["color"] for row in csv.DictReader(file)]
    values = powers(oof[["blue", "green", "red"]].to_numpy(np.float64), 1)  # float32 sums to 1 in seven digits
    assert scores["with_rules"]["rules"] == POWER
    for found, wanted in ((scores["pooled"], values), (scores["with_rules"]["pooled"], powers(values, 3))):
        assert found["log_loss"] == pytest.approx(log_loss(truth, wanted, labels=["blue", "green", "red"]), rel=1e-5)
    assert scores["pooled"]["log_loss"] != scores["with_rules"]["pooled"]["log_loss"]
    assert scores["folds"][0]["oof"].keys() == scores["pooled"].keys()
    raw = pd.read_csv(ruled / "test_predictions.csv").sort_values("id")[["blue", "green", "red"]].to_numpy(np.float64)
    assert cells(ruled / "submission.csv") == pytest.approx(powers(raw, 3), rel=1e-5)
    page = (ruled / "report.html").read_text()
    assert "<td>with rules</td>" in page
    assert "show the predictions without rules" in page


def test_submit_changes_rules_and_says_what_they_score(ruled, tmp_path, capsys):
    raw = pd.read_csv(ruled / "test_predictions.csv").sort_values("id")[["blue", "green", "red"]].to_numpy(np.float64)
    before = Run.open(ruled).read_scores()
    words = ["submit", str(ruled), "--output", str(tmp_path / "s.csv"), "--rules"]
    assert main([*words, "[]"]) == 0
    assert cells(tmp_path / "s.csv") == pytest.approx(raw, rel=1e-6)
    assert "out-of-fold" not in capsys.readouterr().out
    assert main([*words, "{power: {exponent: 3}}"]) == 0
    recorded = json.loads((tmp_path / "s.made_from.json").read_text())
    assert recorded["out_of_fold"] == {"without": before["pooled"], "with": before["with_rules"]["pooled"]}
    assert main([*words, "[{power: {exponent: 2}}]"]) == 0
    out = capsys.readouterr().out
    assert cells(tmp_path / "s.csv") == pytest.approx(powers(raw, 2), rel=1e-5)
    assert "rule 1, power(exponent=2): 18 of 18 values change, by at most 0." in out
    recorded = json.loads((tmp_path / "s.made_from.json").read_text())
    assert recorded["options"]["rules"] == [{"power": {"exponent": 2}}]
    both = recorded["out_of_fold"]
    assert both["without"] == before["pooled"]
    assert both["with"]["log_loss"] not in (before["pooled"]["log_loss"], before["with_rules"]["pooled"]["log_loss"])
    assert f"log_loss {both['without']['log_loss']:.4f} without rules, {both['with']['log_loss']:.4f} with them" in out
    assert Run.open(ruled).read_scores() == before


def test_submit_takes_a_class_with_arguments(ruled, tmp_path, monkeypatch, capsys):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "flatter.py").write_text(
        "from swinft import Rule\n\n\nclass Flatter(Rule):\n"
        "    def __init__(self, share: float) -> None:\n        self.share = share\n\n"
        "    def apply(self, values, rows):\n        return (1 - self.share) * values + self.share / 3\n"
    )
    raw = pd.read_csv(ruled / "test_predictions.csv").sort_values("id")[["blue", "green", "red"]].to_numpy(np.float64)
    words = ["submit", str(ruled), "--output", str(tmp_path / "s.csv"), "--allow-code", "flatter", "--rules"]
    spec = {"class_path": "flatter.Flatter", "init_args": {"share": 0.5}}
    assert main([*words, json.dumps(spec)]) == 0
    assert cells(tmp_path / "s.csv") == pytest.approx(raw / 2 + 1 / 6, rel=1e-5)
    assert json.loads((tmp_path / "s.made_from.json").read_text())["options"]["rules"] == [spec]
    assert main([*words, "flatter.Flatter"]) == 2
    assert "missing 1 required positional argument: 'share'" in capsys.readouterr().err


def test_submit_without_the_training_table_says_that_the_score_is_not_known(ruled, competition, tmp_path, capsys):
    for name in ("test.csv", "images"):
        (tmp_path / name).symlink_to(competition / name)
    words = ["submit", str(ruled), "--root", str(tmp_path), "--dry-run", "--rules", "normalize"]
    assert main(words) == 0
    assert "the score with these rules is not known" in capsys.readouterr().out


def test_submit_refuses_what_check_refuses(ruled, capsys):
    for rules, message in (
        ("{group: {by: patient}}", "there is no such column. Change submission.rules: rule 1, group(by=patient)."),
        ("{clip: {min: 2}}", "2 is no limit of probabilities"),
        ("{power: {}}", "power needs exponent"),
        ("powr", "'powr' is not a rule. Did you mean 'power'"),
        ("own.Rule", "add --allow-code own"),
    ):
        assert main(["submit", str(ruled), "--dry-run", "--rules", rules]) == 2
        assert message in capsys.readouterr().err


def test_a_group_needs_its_column_of_the_rows_to_predict(ruled, grouped, tmp_path):
    raw = pd.read_csv(ruled / "test_predictions.csv", dtype={"id": str}).set_index("id")
    with (grouped / "test.csv").open() as file:
        patients = {row["id"]: row["patient"] for row in csv.DictReader(file)}
    wanted = raw[["blue", "green", "red"]].groupby(patients).transform("max").sort_index().to_numpy()
    words = ["--root", str(grouped), "--rules", "{group: {by: patient, how: max}}", "--output", str(tmp_path / "s.csv")]
    assert main(["submit", str(ruled), *words]) == 0
    assert cells(tmp_path / "s.csv") == pytest.approx(wanted, rel=1e-6)


@pytest.mark.slow
def test_a_finished_run_takes_other_rules_when_it_is_resumed(ruled, tmp_path, capsys):
    folder = tmp_path / "copy"
    shutil.copytree(ruled, folder)
    before = (folder / "oof.csv").read_bytes()
    words = ["fit", "--resume", str(folder)]
    assert main([*words, "--submission.rules", "[{power: {exponent: 2}}]"]) == 0
    assert "with rules" in capsys.readouterr().out
    scores = Run.open(folder).read_scores()
    assert scores["with_rules"]["rules"] == [{"power": {"exponent": 2}}]
    assert (folder / "oof.csv").read_bytes() == before
    assert main([*words, "--submission.rules", "[]"]) == 0
    assert "with_rules" not in Run.open(folder).read_scores()


def test_the_rules_of_their_page_can_be_built():
    page = (ROOT / "docs" / "submissions.md").read_text()
    rows = re.findall(r"^\| `(.+?)` \|", page.partition("| rule | what it does |")[2], re.MULTILINE)
    shown = [yaml.safe_load(text) for text in rows[: len(BUILTIN)]]
    assert {rule.name for rule in rules_of(shown)} == {rule.name for rule in BUILTIN}
    text = page.partition("| rule | what is fitted |")[2]
    shown = [yaml.safe_load(text) for text in re.findall(r"^\| `(.+?)` \|", text, re.MULTILINE)[: len(FITTED)]]
    assert {rule.name for rule in rules_of(shown)} == {rule.name for rule in FITTED}
    for each in (each for each in shown if isinstance(each, dict)):  # the arguments are shown at their defaults
        (name,) = each
        known = inspect.signature(RULES[name].__init__).parameters
        assert each[name] == {key: known[key].default for key in list(known)[1:]}


def test_clip_and_normalize_of_earlier_versions_are_rules(competition, ruled, tmp_path, capsys):
    old = {"submission": {"format": "number", "clip": [1, 5], "normalize": True, "drop": ["x"]}}
    assert yaml.safe_load(migrated(yaml.safe_dump(old)))["submission"] == {
        "format": "number",
        "drop": ["x"],
        "rules": [{"normalize": {"without": ["x"]}}, {"clip": {"min": 1, "max": 5}}],
    }
    none = {"submission": {"clip": None, "normalize": False}}
    assert yaml.safe_load(migrated(yaml.safe_dump(none)))["submission"] == {"rules": []}
    assert check(competition, tmp_path, **{"submission.clip": [0, 1]}) == 2
    assert "has moved: it is now submission.rules: [{clip: {min: …, max: …}}]." in capsys.readouterr().err


def test_clip_is_an_option_for_a_rule_that_comes_last(ruled, tmp_path, capsys):
    def recorded(*words):
        assert main(["submit", str(ruled), "--output", str(tmp_path / "s.csv"), *words]) == 0
        (made_from,) = tmp_path.glob("s*.made_from.json")
        return json.loads(made_from.read_text())["options"]["rules"], (tmp_path / "s.csv").read_bytes()

    short = recorded("--rules", "normalize", "--clip", "0.2,0.3")
    assert short == recorded("--rules", "[normalize, {clip: {min: 0.2, max: 0.3}}]")
    assert short[1] != recorded("--rules", "[]")[1]
    assert len(recorded("--clip", "0.2,0.3")[0]) == len(recorded()[0]) + 1
    assert main(["submit", str(ruled), "--normalize"]) == 2
    assert "option '--normalize' has moved: it is now rules: [normalize]." in capsys.readouterr().err
    for wrong, says in (("1", "give the smallest and the largest number"), ("2,1", "must be below")):
        assert main(["submit", str(ruled), "--clip", wrong]) == 2
        assert says in capsys.readouterr().err


@pytest.mark.slow
def test_an_ensemble_has_the_rules_of_its_first_run(ruled, tmp_path):
    shutil.copytree(ruled, tmp_path / "other")
    words = ["ensemble", str(ruled), str(tmp_path / "other"), "--method", "mean", "--runs", str(tmp_path)]
    assert main([*words, "--name", "blend", "--leave-one-out", "false"]) == 0
    found, one = (Run.open(run).read_scores()["with_rules"] for run in (tmp_path / "blend", ruled))
    assert found["rules"] == one["rules"]
    assert found["pooled"]["log_loss"] == pytest.approx(one["pooled"]["log_loss"], rel=1e-4)
    assert main(["submit", str(tmp_path / "blend")]) == 0
    assert cells(tmp_path / "blend" / "submission.csv") == pytest.approx(cells(ruled / "submission.csv"), rel=1e-4)
    assert main(["submit", str(tmp_path / "blend"), "--rules", "{power: {exponent: 2}}"]) == 0
    recorded = json.loads((tmp_path / "blend" / "submission.made_from.json").read_text())["out_of_fold"]
    assert recorded["with"]["log_loss"] not in (recorded["without"]["log_loss"], found["pooled"]["log_loss"])
