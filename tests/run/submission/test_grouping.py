"""Rows of a submission that are not rows to predict: from `check` to the file, through the front door."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, log_loss

from swinft.cli import main
from swinft.run.layout import Run
from tests.conftest import tiny_config, write_config
from tests.run.submission.copies import finished_with

COLORS = ["blue", "green", "red"]


@pytest.fixture(scope="module")
def studies(competition, tmp_path_factory):
    """The competition with a column `study`: of the training rows, two or more of one colour; of the test rows, two."""
    root = tmp_path_factory.mktemp("studies")
    (root / "images").symlink_to(competition / "images")
    rows = list(csv.reader((competition / "train.csv").open()))
    lines = [f"{','.join(row)},{row[1]}{number // 7}" for number, row in enumerate(rows[1:])]
    (root / "train.csv").write_text("\n".join([f"{','.join(rows[0])},study", *lines]) + "\n")
    (root / "test.csv").write_text("id,study\n" + "".join(f"t{i},00{(i + 1) // 2}\n" for i in range(1, 7)))
    (root / "groups.csv").write_text("study,blue,green,red\n003,0.2,0.3,0.5\n001,0.2,0.3,0.5\n002,0.2,0.3,0.5\n")
    (root / "long.csv").write_text(
        "row_id,value\n" + "".join(f"t{i}_{color},0.33\n" for color in COLORS for i in (3, 1, 2, 6, 5, 4))
    )
    (root / "ranked.csv").write_text("id,best\n" + "".join(f"t{i},red blue\n" for i in (3, 1, 2, 6, 5, 4)))
    return root


def checked(root: Path, tmp_path: Path, sample: str, capsys, **submission: object) -> tuple[int, str]:
    metrics = submission.pop("metrics", None)
    keys = {f"submission.{key}": value for key, value in submission.items()}
    keys |= {"model.metrics": metrics} if metrics else {}
    config = tiny_config(root, tmp_path / "runs", **{"data.sample_submission": sample, **keys})
    status = main(["check", "--config", str(write_config(tmp_path / "c.yaml", config))])
    out = capsys.readouterr()
    return status, out.out + out.err


def test_check_says_what_is_written_or_which_key_is_missing(studies, tmp_path, capsys):
    status, text = checked(studies, tmp_path, "groups.csv", capsys, id="study")
    assert status == 2
    assert "set submission.group: {by: study, how: mean}" in text
    status, text = checked(studies, tmp_path, "groups.csv", capsys, id="study", group={"by": "study", "how": "max"})
    assert status == 0, text
    assert "rows of the submission: max of those with the same 'study'" in text
    assert "different targets" not in text
    status, text = checked(studies, tmp_path, "groups.csv", capsys, id="study", group={"by": "color"})
    assert status == 2
    assert "submission.group reads the column 'color', which " in text
    status, text = checked(studies, tmp_path, "long.csv", capsys, id="row_id")
    assert status == 0, text
    assert "each in a row {id}_{output} of value" in text
    assert "like t3_blue,0.333333" in text
    status, text = checked(studies, tmp_path, "ranked.csv", capsys, format={"top_k": {"k": 1, "new": "pink"}})
    assert status == 0, text
    assert "the 1 most probable classes in best (blue, green, red), with pink before those below 0.5" in text
    assert "note: the score is not" not in text


def test_check_says_where_ranked_classes_are_scored_otherwise(studies, tmp_path, capsys):
    ranked, metric = {"top_k": {"k": 2, "new": "pink"}}, {"k": 2, "new": "pink", "threshold": 0.5}
    for changes, note in (
        ({}, ""),
        ({"k": 3}, "k 2 where the metric has 3"),
        ({"threshold": 0.4}, "threshold 0.5 where the metric has 0.4"),
        ({"new": None, "threshold": None}, "new pink where the metric has None"),
    ):
        metrics = [{"map_at_k": metric | changes}]
        status, text = checked(studies, tmp_path, "ranked.csv", capsys, format=ranked, metrics=metrics)
        assert status == 0, text
        assert (note in text) if note else ("the score is not" not in text)


def test_answers_that_are_no_class_are_scored_and_written(tiny_run, studies, tmp_path, capsys):
    (studies / "costs.csv").write_text("answer,blue,green,red\nblue,0,9,9\ngreen,9,0,9\nred,9,9,0\nany,0.1,0.1,0.1\n")
    rules = [{"expected_cost": {"costs": "costs.csv"}}]
    words = "".join(f"t{i},red\n" for i in (3, 1, 2, 6, 5, 4))
    (studies / "answers.csv").write_text("id,color\n" + words)
    status, text = checked(studies, tmp_path, "answers.csv", capsys, rules=rules)
    assert status == 0, text
    assert "rules: expected_cost(costs of 4 names)" in text
    status, text = checked(studies, tmp_path, "answers.csv", capsys, rules=[{"expected_cost": {"costs": "no.csv"}}])
    assert status == 2
    assert "no.csv cannot be read" in text
    status, text = checked(studies, tmp_path, "answers.csv", capsys, rules=rules, metrics=["quadratic_kappa"])
    assert status == 2
    assert "quadratic_kappa" in text
    run = finished_with(tiny_run, tmp_path / "run", {}, studies / "answers.csv", root=str(studies))
    assert main(["submit", str(run.root), "--rules", json.dumps(rules)]) == 0
    assert "adds any" in capsys.readouterr().out
    assert {row[1] for row in list(csv.reader(run.submission.open()))[1:]} <= {*COLORS, "any"}
    assert "any" in run.submission.read_text()
    recorded = json.loads(run.submission.with_name("submission.made_from.json").read_text())["out_of_fold"]
    assert recorded["with"]["accuracy"] < recorded["without"]["accuracy"]  # `any` is never right


def test_groups_are_scored_once_each_and_submitted_by_their_ids(tiny_run, studies, tmp_path, capsys):
    group = {"by": "study", "how": "mean"}
    keys = {"group": group, "id": "study", "rules": ["temperature"]}
    run = finished_with(tiny_run, tmp_path / "run", keys, studies / "groups.csv", root=str(studies))
    train = pd.read_csv(studies / "train.csv", dtype=str).set_index("id")
    oof = pd.read_csv(run.oof, dtype={"id": str}).set_index("id")
    found = run.read_scores()["with_rules"]
    assert found["group"] == {**group, "weight": None}
    values = oof[COLORS].groupby([oof["fold"], train["study"]]).mean()
    truth = train.groupby("study")["color"].first().reindex(values.index.get_level_values("study"))
    assert len(truth) < len(train)
    for scores, each in ((found["in_sample"], found["fitted"]["parameters"]),):
        powers = values.to_numpy() ** (1 / each[0]["temperature"])
        powers /= powers.sum(1, keepdims=True)
        assert scores["log_loss"] == pytest.approx(log_loss(truth, powers, labels=COLORS), rel=1e-3)
        assert scores["accuracy"] == pytest.approx(accuracy_score(truth, np.array(COLORS)[powers.argmax(1)]))
    assert main(["submit", str(run.root), "--rules", "[]"]) == 0
    raw = pd.read_csv(run.test_predictions, dtype={"id": str}).set_index("id")[COLORS]
    written = pd.read_csv(run.submission, dtype={"study": str}).set_index("study")
    assert written.index.tolist() == ["003", "001", "002"]
    test = pd.read_csv(studies / "test.csv", dtype=str).set_index("id")["study"]
    assert written.to_numpy() == pytest.approx(raw.groupby(test).mean().loc[written.index].to_numpy(), rel=1e-5)
    recorded = json.loads(run.submission.with_name("submission.made_from.json").read_text())
    assert recorded["options"]["group"]["by"] == "study"
    capsys.readouterr()
    assert main(["submit", str(run.root), "--dry-run", "--group", "{by: study, how: noisy_or}"]) == 2
    assert "noisy_or is for labels and for two classes" in capsys.readouterr().err
    assert main(["submit", str(run.root), "--dry-run", "--group.by", "patient"]) == 2


def test_a_long_sample_and_ranked_classes_are_submitted(tiny_run, studies, tmp_path, capsys):
    run = finished_with(tiny_run, tmp_path / "run", {"id": "row_id"}, studies / "long.csv", root=str(studies))
    assert main(["submit", str(run.root)]) == 0
    raw = pd.read_csv(run.test_predictions, dtype={"id": str}).set_index("id")
    rows = list(csv.reader(run.submission.open()))
    sample = list(csv.reader((studies / "long.csv").open()))
    assert [row[0] for row in rows] == [row[0] for row in sample]
    for id, cell in rows[1:]:
        row, color = id.split("_")
        assert float(cell) == pytest.approx(raw.loc[row, color], rel=1e-6)
    assert "18 rows, columns row_id, value: written to" in capsys.readouterr().out
    other = finished_with(tiny_run, tmp_path / "other", {}, studies / "ranked.csv", root=str(studies))
    assert (
        main(
            [
                "submit",
                str(other.root),
                "--format",
                "{top_k: {k: 3, new: other}}",
                "--rules",
                "[{new_class: {rate: 0.5}}]",
            ]
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "rule 1, new_class(rate=0.5): fitted on all out-of-fold rows: rate 0.5" in out
    first = raw[COLORS].idxmax(axis=1)
    cells = list(csv.reader(other.submission.open()))[1:]
    assert sum(cell.startswith("other ") for _, cell in cells) == len(cells) // 2
    for id, cell in cells:
        words = [word for word in cell.split(" ") if word != "other"]
        assert words[0] == first[id]
        assert {*words} < {*COLORS} or sorted(words) == COLORS
    assert Run.open(other.root).read_scores()["pooled"]
