"""What leaves: a submission is what the sample asks for, or an error before anything is trained."""

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from sklearn.metrics import cohen_kappa_score, log_loss, roc_auc_score

from swinft.cli import main
from swinft.data.schema import Schema
from swinft.errors import InputError
from swinft.inference.predictions import Predictions
from swinft.inference.rules.named import rules_of
from swinft.inference.rules.rule import apply_rules
from swinft.model.metrics import METRICS, traits_of
from swinft.run.submission.decide import plan_submission
from swinft.run.submission.plan import (
    SubmissionConfig,
    as_csv,
    build_submission,
    check_submission,
)
from swinft.run.submission.sample import Sample
from tests.conftest import fit_in_process, tiny_config, write_config, write_image

NUM_ROWS = 16
BINARY = {"data.target_kind": "classification", "model.head": {"class_path": "swinft.ClassificationHead"}}
NUMBER = {"data.target_kind": "regression", "model.head": {"class_path": "swinft.RegressionHead"}}
LABELS = {"data.target_kind": "multilabel", "model.head": {"class_path": "swinft.MultilabelHead"}}


def write_table(path: Path, header: str, rows: list[str], encoding: str = "utf-8") -> None:
    path.write_bytes("".join(f"{line}\n" for line in [header, *rows]).encode(encoding))


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    """A folder of images whose brightness follows their number, with every kind of target."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(NUM_ROWS):
        write_image(root / "images" / f"{i:02d}.jpg", (15 * i, 255 - 15 * i, 90), rng, (16, 16))
        late = i % 4 > 1
        cells = [f"{i:02d}", "dog" if late else "cat", str(int(late)), f"{late:.1f}", str(i % 4), "abc"[i % 3]]
        rows.append(",".join([*cells, str(i % 4 / 4), str(i / 5), "big plant|cool" if late else "cool"]))
    write_table(root / "train.csv", "id,animal,flag,flag_point,grade,letter,share,height,tags", rows)
    write_table(root / "test.csv", "id", [f"{i:02d}" for i in range(NUM_ROWS)])
    return root


def ask(images: Path, tmp_path: Path, header: str, cells: str, command: str = "check", **changes: object) -> int:
    """`check` with a sample submission of these columns, each row with these cells."""
    root = tmp_path / "data"
    if not root.exists():
        root.mkdir()
        (root / "images").symlink_to(images / "images")
        for name in ("train.csv", "test.csv"):
            shutil.copy(images / name, root / name)
    write_table(root / "sample.csv", header, [f"{i:02d},{cells}" for i in range(NUM_ROWS)])
    changes = {"data.sample_submission": "sample.csv", "trainer.max_epochs": 1, "data.batch_size": 8, **changes}
    return main(
        [command, "--config", str(write_config(tmp_path / "c.yaml", tiny_config(root, tmp_path / "r", **changes)))]
    )


DECISIONS = {
    # target, metric, sample's columns, its cells, what check says
    "dogs-vs-cats": ("animal", "log_loss", "id,dog", "0.5", "the probability of dog"),
    "siim": ("flag", "auc", "id,target", "0", "the probability of 1 in target"),
    "isic-2024": ("flag", "auc", "id,target", "0.3", "the probability of 1 in target"),
    "cells-alone": ("flag", "accuracy", "id,target", "0.5", "the probability of 1 in target"),
    "classes": ("flag", "accuracy", "id,target", "0", "the most probable class in target (0, 1)"),
    "names": ("animal", "accuracy", "id,animal", "cat", "the most probable class in animal (cat, dog)"),
    "wide": ("animal", "accuracy", "id,dog,cat", "0.5,0.5", "the probability of dog, cat"),
    "empty": ("letter", "accuracy", "id,label", "", "the most probable class in label (a, b, c)"),
}


@pytest.mark.parametrize(("target", "metric", "header", "cells", "said"), DECISIONS.values(), ids=list(DECISIONS))
def test_f001_probabilities_are_written_where_metric_or_cells_ask_for_them(
    target, metric, header, cells, said, images, tmp_path, capsys
):
    changes = {"data.target": target, "model.metrics": [metric]}
    assert ask(images, tmp_path, header, cells, **BINARY, **changes) == 0
    assert f"submission: writes {said}" in capsys.readouterr().out


UNCLEAR = {
    "which class": ("animal", "log_loss", "id,label", "0.5", "submission.columns to {label: dog}"),
    "numbers or flags": ("animal", "accuracy", "id,label", "0", "{cat: '0', dog: '1'}"),
    "a number for three classes": ("letter", "log_loss", "id,label", "0.5", "has no room for their probabilities"),
    "words for probabilities": ("animal", "log_loss", "id,cat,dog", "low,high", "has words, like 'low'"),
    "foreign words": ("animal", "accuracy", "id,animal", "wolf", "submission.words: {cat: …, dog: …}"),
}


@pytest.mark.parametrize(("target", "metric", "header", "cells", "said"), UNCLEAR.values(), ids=list(UNCLEAR))
@pytest.mark.parametrize("command", ["check", "fit"])
def test_f001_what_is_not_clear_is_asked_for_before_anything_is_trained(
    command, target, metric, header, cells, said, images, tmp_path, capsys
):
    changes = {"data.target": target, "model.metrics": [metric]}
    assert ask(images, tmp_path, header, cells, command, **BINARY, **changes) == 2
    assert said in capsys.readouterr().err
    assert not list((tmp_path / "r").glob("[!.]*"))


@pytest.mark.parametrize(
    ("metric", "cells", "said"),
    [
        ("quadratic_kappa", "0", "whole numbers 0–3"),
        ("quadratic_kappa", "0.5", "numbers: grade"),
        ("rmse", "0", "note: the sample's cells are whole numbers"),
    ],
)
def test_f002_whole_numbers_are_written_where_kappa_scores_whole_cells(metric, cells, said, images, tmp_path, capsys):
    assert (
        ask(images, tmp_path, "id,grade", cells, **NUMBER, **{"data.target": "grade", "model.metrics": [metric]}) == 0
    )
    assert said in capsys.readouterr().out


def test_f004_labels_are_joined_as_in_the_sample_or_the_training_table(images, tmp_path, capsys):
    changes = {"data.target": "tags", "data.columns.label_delimiter": "|", **LABELS}
    assert ask(images, tmp_path, "id,tags", "cool|big plant", **changes) == 0
    assert "joined by '|'" in capsys.readouterr().out
    assert ask(images, tmp_path, "id,tags", "cool;big plant", **changes) == 0
    assert "joined by ';'" in capsys.readouterr().out
    assert ask(images, tmp_path, "id,tags", "cool", **changes, **{"submission.delimiter": " "}) == 2
    assert "the labels ['big plant'] contain ' '" in capsys.readouterr().err
    assert ask(images, tmp_path, "id,tags", "cool|big plant", **changes, **{"submission.delimiter": ";"}) == 2
    assert "has '|' between labels" in capsys.readouterr().err


def test_f005_classes_are_written_in_the_samples_words(images, tmp_path, capsys):
    changes = {"data.target": "flag_point", **BINARY}
    assert ask(images, tmp_path, "id,flag", "0", **changes) == 0
    out = capsys.readouterr().out
    assert "the most probable class in flag (0, 1)" in out
    assert "0.0 as 0, 1.0 as 1" in out
    assert ask(images, tmp_path, "id,animal", "Dog", **{**changes, "data.target": "animal"}) == 0
    assert "cat as Cat, dog as Dog" in capsys.readouterr().out


COLUMNS = {
    "another name": ("height", NUMBER, "id,X4", "0.5", "submission.columns: {X4: height}"),
    "a column more": ("height", NUMBER, "id,height,area", "0.5,3", "without a prediction: area"),
    "a target more": (["height", "share"], NUMBER, "id,height", "0.5", "predicted, but without a column: share"),
    "a class more": ("letter", BINARY, "id,a,b,c,d", "0,0,0,0", "submission.keep: [d]"),
}


@pytest.mark.parametrize(("target", "kind", "header", "cells", "said"), COLUMNS.values(), ids=list(COLUMNS))
@pytest.mark.parametrize("command", ["check", "fit"])
def test_f006_columns_that_cannot_be_filled_stop_check_with_the_setting_that_mends_it(
    command, target, kind, header, cells, said, images, tmp_path, capsys
):
    assert ask(images, tmp_path, header, cells, command, **kind, **{"data.target": target}) == 2
    assert said in capsys.readouterr().err
    assert not list((tmp_path / "r").glob("[!.]*"))


def test_f007_the_mapping_that_the_message_names_mends_it(images, tmp_path, capsys):
    changes = {"data.target": ["height", "share"], **NUMBER}
    mapping = {"X4": "height", "X11": "share"}
    assert ask(images, tmp_path, "id,X4,X11", "0.5,0.25", **changes, **{"submission.columns": mapping}) == 0
    assert "numbers: height in X4, share in X11" in capsys.readouterr().out
    for wrong, mend in (({"X5": "height"}, "Allowed: X4, X11."), ({"X4": "heigth"}, "Did you mean 'height'?")):
        assert ask(images, tmp_path, "id,X4,X11", "0.5,0.25", **changes, **{"submission.columns": wrong}) == 2
        assert mend in capsys.readouterr().err


def test_f007_ids_may_have_other_names_in_test_and_sample(images, tmp_path, capsys):
    changes = {"data.target": "height", "submission.id": "Id", **NUMBER}
    assert ask(images, tmp_path, "Id,height", "0.5", **changes) == 0
    assert ask(images, tmp_path, "Id,height", "0.5", **{**changes, "submission.id": ["Id"]}) == 0  # as of an option
    data = tmp_path / "data"
    write_table(data / "test.csv", "name", [f"{i:02d}" for i in range(NUM_ROWS)])
    assert ask(images, tmp_path, "Id,height", "0.5", **changes) == 2
    assert "data.columns.test_id" in capsys.readouterr().err
    changes |= {"data.columns.test_id": "name", "data.columns.test_image": "images/{name}.jpg"}
    assert ask(images, tmp_path, "Id,height", "0.5", **changes) == 0


def test_f119_columns_that_are_not_predicted_stay_where_they_are_told_to(images, tmp_path, capsys):
    changes = {"data.target": "height", **NUMBER}
    assert ask(images, tmp_path, "id,price,height,area", "7,0.5,3", **changes) == 2
    error = capsys.readouterr().err
    assert "without a prediction: price, area" in error
    assert (
        ask(images, tmp_path, "id,price,height,area", "7,0.5,3", **changes, **{"submission.keep": ["price", "area"]})
        == 0
    )
    assert ", like 00,7,1.5,3" in capsys.readouterr().out


IDS = ["007", "1e5"]


def written(
    schema: Schema, header: list[str], cells: list[str], values: list[list[float]], metric="", **options
) -> str:
    """The text of a submission for two rows, after its own check."""
    columns = {name: [cell] * 2 for name, cell in zip(header, cells, strict=True)}
    sample = Sample("sample.csv", "id", ["id", *header], IDS, columns)
    config = SubmissionConfig(**options)
    plan = plan_submission(sample, schema, traits_of(metric), config)
    predicted = Predictions(IDS, np.array(values, np.float32), schema.outputs)
    changed, _ = apply_rules(rules_of(config.rules), predicted, pd.DataFrame(index=IDS), schema)
    rows, notes = build_submission(plan, changed)
    text = as_csv(plan, rows)
    assert check_submission(text, plan) == []
    return text + "\n".join(notes)


def test_f003_zeros_have_no_sign_and_grades_stay_in_the_training_range():
    schema = Schema("regression", ["y"], ranges=[[0, 4]])
    text = written(schema, ["y"], ["0"], [[-0.3], [4.7]], "quadratic_kappa")
    assert text.splitlines()[1:3] == ["007,0", "1e5,4"]
    assert "1 of 2 values are clipped to 0–4" in text
    text = written(schema, ["y"], ["0.5"], [[-0.0], [4.7]], "rmse")
    assert text.splitlines()[1:3] == ["007,0", "1e5,4.69999981"]
    assert "1 of 2 values are outside the training targets' range 0–4" in text
    text = written(schema, ["y"], ["0.5"], [[0.2], [4.7]], "rmse", rules=[{"clip": {"min": 1, "max": 3}}])
    assert text.splitlines()[1:3] == ["007,1", "1e5,3"]


@pytest.mark.parametrize("cell", ["-0", "-0.0", "1.5", "5", "-1", "x", "", "1e0"])
def test_f011_a_cell_of_another_sort_or_range_is_found(cell):
    schema = Schema("regression", ["y"], ranges=[[0, 4]])
    sample = Sample("sample.csv", "id", ["id", "y"], ["a"], {"y": ["0"]})
    plan = plan_submission(sample, schema, traits_of("quadratic_kappa"), SubmissionConfig())
    assert check_submission("id,y\na,2\n", plan) == []
    assert "line 2, column 'y'" in "\n".join(check_submission(f"id,y\na,{cell}\n", plan))


def test_f011_rows_that_do_not_sum_to_one_are_said_and_can_be_divided():
    schema = Schema("regression", ["x", "y"], ranges=[[0, 1], [0, 1]])
    values = [[0.5, 0.25], [0.25, 0.5]]
    text = written(schema, ["x", "y"], ["0.5", "0.5"], values)
    assert "the sample's rows sum to 1, these to 0.75–0.75" in text
    text = written(schema, ["x", "y"], ["0.5", "0.5"], values, rules=["normalize"])
    assert [float(cell) for cell in text.splitlines()[1].split(",")[1:]] == pytest.approx([2 / 3, 1 / 3], rel=1e-7)
    assert "sum" not in text
    # The cells of plant-pathology-2020 do not sum to one, nor do zeros.
    assert "sum" not in written(schema, ["x", "y"], ["0", "0"], values)


DEAD = [
    (Schema("classification", ["a", "b"]), ["a"], {"rules": [{"clip": {"max": 2}}]}, "2 is no limit of probabilities"),
    (Schema("classification", ["a", "b"]), ["a"], {"threshold": 0.4}, "submission.threshold"),
    (Schema("classification", ["a", "b"]), ["a"], {"format": "label", "columns": {"y": "a"}}, "submission.columns"),
    (Schema("regression", ["y"]), ["0"], {"words": {"y": "z"}}, "submission.words"),
    (Schema("regression", ["y"]), ["0"], {"delimiter": "|"}, "submission.delimiter"),
    (
        Schema("multilabel", ["a", "b"]),
        ["a"],
        {"rules": [{"sum": {"total": "a", "of": ["b"]}}]},
        "it is for regression",
    ),
    (Schema("multilabel", ["a", "b"]), ["a"], {"threshold": 1.5}, "must be in 0–1"),
    (Schema("classification", ["a", "b"]), ["a"], {"format": {"top_k": {"threshold": 0.3}}}, "is for the answer `new`"),
    (Schema("regression", ["y"]), ["0"], {"rules": [{"clip": {"min": 1, "max": 1}}]}, "must be below"),
    (Schema("regression", ["y"]), ["0"], {"format": "label"}, "number or integer"),
    (Schema("regression", ["y"]), ["0"], {"keep": ["y"]}, "no column to fill"),
    (Schema("regression", ["y"]), ["0"], {"keep": ["z"]}, "names 'z'"),
]


@pytest.mark.parametrize(("schema", "cells", "options", "message"), DEAD)
def test_f009_a_setting_acts_or_is_refused(schema, cells, options, message):
    with pytest.raises(InputError) as error:
        written(schema, ["y"], cells, [[0.5] * len(schema.outputs)] * 2, **options)
    assert message in str(error.value)


def test_f001_every_metric_of_classes_is_known_to_score_probabilities_or_classes():
    of_classes = {
        name: metric.wants_probabilities for name, metric in METRICS.items() if "classification" in metric.kinds
    }
    of_probabilities = {"auc", "partial_auc", "gini", "log_loss", "kaggle_log_loss", "kl_divergence", "brier"}
    of_ranks = {"top_k_accuracy", "map_at_k"}
    of_groups = {"grouped_log_loss", "probabilistic_f1"}
    wanting = {name for name, wants in of_classes.items() if wants}
    assert wanting == of_probabilities | of_ranks | of_groups
    decisions = {"accuracy", "balanced_accuracy", "macro_f1", "f1", "mcc", "hierarchical_distance", "quadratic_kappa"}
    assert {name for name, wants in of_classes.items() if not wants} == decisions


LAYOUTS = {
    "dogs-vs-cats": ("animal", BINARY, "log_loss", "id,label", "0.5", {"submission.columns": {"label": "dog"}}),
    "siim-isic": ("flag", BINARY, "auc", "image_name,target", "0", {"submission.id": "image_name"}),
    "isic-2024": ("flag", BINARY, "auc", "isic_id,target", "0.3", {"submission.id": "isic_id"}),
    "aptos": ("grade", NUMBER, "quadratic_kappa", "id_code,diagnosis", "0", {}),
}


def scored_by_scikit_learn(layout: str, truth: list[str], cells: list[str]) -> float:
    if layout == "dogs-vs-cats":
        return log_loss([cell == "dog" for cell in truth], [float(cell) for cell in cells])
    if layout == "aptos":
        return cohen_kappa_score([int(cell) for cell in truth], [int(cell) for cell in cells], weights="quadratic")
    return roc_auc_score([int(cell) for cell in truth], [float(cell) for cell in cells])


@pytest.fixture(scope="module")
def runs(images, tmp_path_factory) -> dict[str, Path]:
    """A finished run of each layout, whose rows to predict are the training rows. Read them, do not change them."""
    folder = tmp_path_factory.mktemp("runs")
    found = {}
    for layout, (target, kind, metric, header, cells, changes) in LAYOUTS.items():
        root = folder / layout
        root.mkdir()
        (root / "images").symlink_to(images / "images")
        shutil.copy(images / "test.csv", root / "test.csv")
        shutil.copy(images / "train.csv", root / "train.csv")
        write_table(root / "sample.csv", header, [f"{i:02d},{cells}" for i in reversed(range(NUM_ROWS))])
        if layout == "aptos":
            changes = {"submission.id": "id_code", "submission.columns": {"diagnosis": "grade"}}
        changes = {"name": layout, "data.target": target, "model.metrics": [metric], **kind, **changes}
        changes |= {"data.sample_submission": "sample.csv", "trainer.max_epochs": 1, "data.batch_size": 4}
        fit_in_process(write_config(root / "c.yaml", tiny_config(root, folder / "runs", **changes)))
        found[layout] = folder / "runs" / layout
    return found


def read(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_f001_the_default_submission_scores_what_the_run_says(layout, runs, images, tmp_path):
    output = tmp_path / "submission.csv"
    assert (
        main(["submit", str(runs[layout]), "--predictions", str(runs[layout] / "oof.csv"), "--output", str(output)])
        == 0
    )
    header, *rows = read(output)
    assert header == LAYOUTS[layout][3].split(",")
    assert [row[0] for row in rows] == [f"{i:02d}" for i in reversed(range(NUM_ROWS))]
    names, *table = read(images / "train.csv")
    truth = {row[0]: row[names.index(LAYOUTS[layout][0])] for row in table}
    score = scored_by_scikit_learn(layout, [truth[row[0]] for row in rows], [row[1] for row in rows])
    pooled = json.loads((runs[layout] / "scores.json").read_text())["pooled"]
    assert score == pytest.approx(pooled[LAYOUTS[layout][2]], abs=1e-6)


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_f008_the_sample_is_read_as_the_other_tables(encoding, tmp_path, capsys):
    rng = np.random.default_rng(0)
    names = [f"é{i}" for i in range(8)]
    for i, name in enumerate(names):
        write_image(tmp_path / "images" / f"{name}.jpg", (30 * i, 90, 90), rng, (16, 16))
    write_table(tmp_path / "train.csv", "id,étang", [f"{name},{i}.5" for i, name in enumerate(names)], encoding)
    write_table(tmp_path / "test.csv", "id", names, encoding)
    write_table(tmp_path / "sample.csv", "id, étang", [f"{name},0.5" for name in names], encoding)
    changes = {
        "data.target": "étang",
        "data.columns.encoding": encoding,
        "data.sample_submission": "sample.csv",
        **NUMBER,
    }
    changes |= {"trainer.max_epochs": 1}
    fit_in_process(write_config(tmp_path / "c.yaml", tiny_config(tmp_path, tmp_path / "r", **changes)))
    run = tmp_path / "r" / "tiny"
    assert main(["predict", str(run), "--device", "cpu"]) == 0
    assert main(["submit", str(run)]) == 0
    header, *rows = read(run / "submission.csv")
    assert header == ["id", " étang"]  # exactly the sample's
    assert [row[0] for row in rows] == names


def submit(run: Path, *options: str) -> int:
    return main(["submit", str(run), "--predictions", str(run / "oof.csv"), *options])


def test_f009_everything_about_a_submission_can_be_changed_after_the_fit(runs, tmp_path, capsys):
    run, output = runs["aptos"], tmp_path / "s.csv"
    assert submit(run, "--output", str(output), "--format", "number", "--rules", "{clip: {min: 1, max: 2}}") == 0
    values = [float(row[1]) for row in read(output)[1:]]
    assert all(1 <= value <= 2 for value in values)
    assert any(value != round(value) for value in values)
    made_from = json.loads((tmp_path / "s.made_from.json").read_text())
    assert made_from["format"] == "number"
    assert made_from["options"]["rules"] == [{"clip": {"min": 1, "max": 2}}]
    assert submit(run, "--output", str(output), "--format", "label") == 2
    assert submit(runs["dogs-vs-cats"], "--output", str(output), "--columns", "{label: cat}") == 0
    cat = [float(row[1]) for row in read(output)[1:]]
    assert submit(runs["dogs-vs-cats"], "--output", str(output)) == 0
    assert [1 - float(row[1]) for row in read(output)[1:]] == pytest.approx(cat, abs=1e-6)
    words = '{cat: "0", dog: "1"}'
    assert (
        submit(runs["dogs-vs-cats"], "--output", str(output), "--format", "label", "--columns", "{}", "--words", words)
        == 0
    )
    assert {row[1] for row in read(output)[1:]} <= {"0", "1"}


@pytest.mark.parametrize(("layout", "cells"), [("siim-isic", "1"), ("isic-2024", ""), ("aptos", "0.5")])
def test_f001_a_hidden_test_sets_sample_changes_no_format(layout, cells, runs, tmp_path):
    """It has other cells than the sample of the fit, by which `check` has said what is going to be written."""
    run, header = runs[layout], LAYOUTS[layout][3]
    write_table(tmp_path / "sample.csv", header, [f"{i:02d},{cells}" for i in range(NUM_ROWS)])
    assert submit(run, "--output", str(tmp_path / "as_fit.csv")) == 0
    assert submit(run, "--root", str(tmp_path), "--output", str(tmp_path / "hidden.csv")) == 0
    assert sorted(read(tmp_path / "hidden.csv")) == sorted(read(tmp_path / "as_fit.csv"))


def test_f010_a_refused_submission_leaves_the_last_right_one(runs, tmp_path, capsys):
    output = tmp_path / "s.csv"
    assert submit(runs["aptos"], "--output", str(output)) == 0
    before = output.read_bytes(), (tmp_path / "s.made_from.json").read_bytes()
    header, *rows = read(runs["aptos"] / "oof.csv")
    for wrong, message in (
        (rows[:-1], "has no prediction"),
        ([*rows[:-1], [rows[-1][0], "nan", "0"]], "p.csv:17: id '15', column 'grade'"),
    ):
        write_table(tmp_path / "p.csv", ",".join(header), [",".join(row) for row in wrong])
        assert (
            main(["submit", str(runs["aptos"]), "--predictions", str(tmp_path / "p.csv"), "--output", str(output)]) == 2
        )
        assert message in capsys.readouterr().err
        assert (output.read_bytes(), (tmp_path / "s.made_from.json").read_bytes()) == before


def test_f126_a_blend_is_checked_as_predictions_are(runs, tmp_path, capsys):
    run, blend, output = runs["dogs-vs-cats"], tmp_path / "blend.csv", tmp_path / "s.csv"
    rows = [f"{i},0.25,{i:02d},0.75" for i in range(NUM_ROWS)]
    write_table(blend, ",cat,id,dog", rows)  # a saved index, and another order of columns
    words = ["submit", str(run), "--predictions", str(blend), "--output", str(output)]
    assert main(words) == 0
    assert "not written by `swinft predict`" in capsys.readouterr().out
    assert {row[1] for row in read(output)[1:]} == {"0.75"}
    for header, edited, message in [
        (",cat,id,dgo", rows, "there is no such column"),
        (",cat,idx,dog", rows, "it needs a column of ids, called id. Did you mean 'idx'?"),
        (",cat,id,dog", [rows[0].replace("0.75", "1.75"), *rows[1:]], "outside 0–1"),
        (",cat,id,dog", [rows[0], *rows], "duplicated"),
        (",cat,id,dog", rows[1:], "id '00' has no prediction"),
        (",cat,id,dog", [rows[0].replace("0.75", "x"), *rows[1:]], "not a finite number"),
    ]:
        write_table(blend, header, edited)
        assert main(words) == 2
        assert message in capsys.readouterr().err


def test_f005_each_word_is_compared_with_the_samples():
    animals = Schema("classification", ["cat", "dog", "eel"])
    flipped = [[0.1, 0.9, 0.0], [0.0, 0.1, 0.9]]
    text = written(animals, ["l"], ["Cat"], flipped, "accuracy")
    assert text.splitlines()[1:3] == ["007,Dog", "1e5,Eel"]
    text = written(animals, ["l"], ["Cat"], flipped, "accuracy", words={"dog": "hound"})
    assert text.splitlines()[1:3] == ["007,hound", "1e5,Eel"]
    labels = Schema("multilabel", ["rust", "scab"])
    both = [[0.9, 0.9], [0.1, 0.2]]
    with pytest.raises(InputError, match="several of the run's classes or labels"):
        written(labels, ["labels"], ["['rust', 'scab']"], both)
    for cell in ("rust & scab", "rust;scab", "rust | scab"):
        assert written(labels, ["labels"], [cell], both).splitlines()[1:3] == [f"007,{cell}", "1e5,scab"]
    with pytest.raises(InputError, match="more than one class"):
        written(animals, ["l"], ["cat"], flipped, "accuracy", words={"dog": "cat"})


def test_f011_numbers_may_not_take_the_place_of_words():
    with pytest.raises(InputError, match="has words, like 'good'"):
        written(Schema("regression", ["y"]), ["y"], ["good"], [[1], [2]], "rmse")


def test_f006_labels_may_be_written_as_a_0_or_1_per_column():
    schema = Schema("multilabel", ["rust", "scab"])
    text = written(schema, ["scab", "rust"], ["0", "0"], [[0.9, 0.3], [0.1, 0.2]], format="labels", threshold=0.2)
    assert text.splitlines()[1:3] == ["007,1,1", "1e5,1,0"]


def test_f007_what_the_messages_advise_can_be_typed_as_they_say_it(images, tmp_path, capsys):
    """YAML takes 0 for a number; a mapping of names that are numbers works where no spelling is lost."""
    changes = {"data.target": "letter", **BINARY}
    numbered = {**changes, "submission.columns": {0: "a", 1: "b", 2: "c"}}
    assert ask(images, tmp_path, "id,0,1,2", "0.3,0.3,0.4", **numbered) == 0
    assert ask(images, tmp_path, "id,0,1,2", "0.3,0.3,0.4", **{**changes, "submission.columns": {10: "a"}}) == 2
    assert "in quotes" in capsys.readouterr().err
    for target, words in (("letter", {"a": "0", "b": "1", "c": "2"}), ("animal", {"cat": "0", "dog": "1"})):
        worded = {**changes, "data.target": target, "submission.words": words}
        assert ask(images, tmp_path, "id,label", "0", **worded) == 0
        assert f"in label ({', '.join(words.values())})" in capsys.readouterr().out


def test_a_sample_that_is_named_as_the_test_table_holds_placeholders(images, tmp_path, capsys):
    changes = {"data.target": "animal", "data.test": "sample.csv", "model.metrics": ["log_loss"]}
    changes["submission.columns"] = {"animal": "dog"}
    assert ask(images, tmp_path, "id,animal", "0.5", **BINARY, **changes) == 0
    assert "submission: writes the probability of dog in animal" in capsys.readouterr().out


def test_a_column_of_classes_beside_others_is_not_taken_for_an_output(images, tmp_path, capsys):
    changes = {"data.target": "letter", **BINARY}
    assert ask(images, tmp_path, "id,letter,area", "a,1", **changes) == 2
    said = capsys.readouterr().err
    assert "submission.keep: [area]" in said
    assert "submission.columns" not in said
    assert ask(images, tmp_path, "id,letter,area", "a,1", **changes, **{"submission.keep": ["area"]}) == 0
    assert "the most probable class in letter (a, b, c), and keeps" in capsys.readouterr().out


def test_what_is_noted_of_a_sample_is_said_once(images, tmp_path, capsys):
    assert ask(images, tmp_path, "id;letter", "a", **BINARY, **{"data.target": "letter"}) == 2  # rows hold commas
    capsys.readouterr()
    root = tmp_path / "data"
    write_table(root / "sample.csv", "id\tletter", [f"{i:02d}\ta" for i in range(NUM_ROWS)])
    assert main(["check", "--config", str(tmp_path / "c.yaml")]) == 0
    assert capsys.readouterr().out.count("sample.csv: the fields are separated by tabs") == 1


def test_the_command_to_upload_can_be_pasted_where_names_hold_blanks(tiny_run, tmp_path, capsys):
    run = tmp_path / "it's mine"
    shutil.copytree(tiny_run, run)
    assert main(["submit", str(run)]) == 0
    command = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("upload: "))
    words = shlex.split(command.removeprefix("upload: "))
    assert words[-4:] == ["-f", str(run / "submission.csv"), "-m", "it's mine"]


def test_the_settings_that_an_error_proposes_can_be_pasted(images, tmp_path, capsys):
    assert ask(images, tmp_path, "id,label", "0.5", **BINARY, **{"data.target": "animal"}) == 2
    capsys.readouterr()
    root = tmp_path / "data"
    (root / "train.csv").write_text((root / "train.csv").read_text().replace("dog", "on").replace("cat", "off"))
    changes = {"data.target": "animal", "model.metrics": ["log_loss"]}
    assert ask(images, tmp_path, "id,label", "0.5", **BINARY, **changes) == 2
    proposed = re.search(r"Set submission.columns to (\{.*?\})", capsys.readouterr().err)
    columns = yaml.safe_load(proposed.group(1))
    assert columns == {"label": "on"}  # which YAML reads as true where it is not in quotes
    assert ask(images, tmp_path, "id,label", "0.5", **BINARY, **changes, **{"submission.columns": columns}) == 0
    assert "the probability of on in label" in capsys.readouterr().out


def test_cells_with_a_decimal_point_do_not_ask_for_whole_numbers(images, tmp_path, capsys):
    assert ask(images, tmp_path, "id,height", "0.0", **NUMBER, **{"data.target": "height"}) == 0
    assert "whole numbers" not in capsys.readouterr().out


def test_a_path_that_holds_the_target_needs_another_for_the_rows_to_predict(images, tmp_path, capsys):
    (tmp_path / "data").mkdir()
    shutil.copy(images / "train.csv", tmp_path / "data")
    shutil.copy(images / "test.csv", tmp_path / "data")
    for i in range(NUM_ROWS):  # the class is the folder
        path = tmp_path / "data" / ("dog" if i % 4 > 1 else "cat") / f"{i:02d}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.symlink_to(images / "images" / path.name)
    changes = {"data.target": "animal", "data.image": "{animal}/{id}.jpg", "data.test": None}
    assert ask(images, tmp_path, "id,animal", "cat", **BINARY, **changes) == 2
    assert "Set data.columns.test_image to where the images of the rows to predict are." in capsys.readouterr().err


PADDED = {
    # classes, the sample's words, what is written
    "one padded": (["0", "1", "2", "10"], ["003"], None),
    "zeros": (["0", "1", "2", "10"], ["002"], ["000", "001", "002", "010"]),
    "mixed widths": (["0", "1", "2", "10"], ["02", "10"], ["00", "01", "02", "10"]),
    "decimals": (["0", "1", "2"], ["1.00"], ["0.00", "1.00", "2.00"]),
    "both": (["0.0", "1.0"], ["01.0"], ["00.0", "01.0"]),
    "from decimals": (["0.0", "1.0", "2.0"], ["2"], ["0", "1", "2"]),
}


@pytest.mark.parametrize(("classes", "words", "expected"), PADDED.values(), ids=list(PADDED))
def test_f005_numbers_are_written_with_the_zeros_of_the_samples(classes, words, expected):
    """All of them: the sample's rows show one or two of the classes."""
    schema = Schema("classification", classes)
    ids = [f"i{k}" for k in range(len(classes))]
    sample = Sample("sample.csv", "id", ["id", "y"], ids, {"y": [words[k % len(words)] for k in range(len(ids))]})
    if expected is None:
        with pytest.raises(InputError, match="003"):
            plan_submission(sample, schema, traits_of("accuracy"), SubmissionConfig())
        return
    plan = plan_submission(sample, schema, traits_of("accuracy"), SubmissionConfig())
    rows, _ = build_submission(plan, Predictions(ids, np.eye(len(classes), dtype=np.float32), classes))
    assert rows["y"].tolist() == expected
    assert check_submission(as_csv(plan, rows), plan) == []


@pytest.mark.parametrize(("header", "shown"), [("hei\x1b[2Jght", "hei\\x1b[2Jght"), ('"hei\nght"', "hei\\nght")])
def test_names_of_the_sample_do_not_control_the_terminal(header, shown, images, tmp_path, capsys):
    changes = {"data.target": "height", **NUMBER, "submission.columns": {header.strip('"'): "height"}}
    assert ask(images, tmp_path, f"id,{header}", "0.5", **changes) == 0
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert f"submission: writes numbers: height in {shown}" in out
