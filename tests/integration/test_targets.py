"""Auxiliary targets, soft targets and missing targets, from the CSV to the submission."""

import csv
import json

import numpy as np
import pytest
from safetensors.torch import load_file

from swinft.cli import main
from swinft.data.schema import Schema
from swinft.run.layout import Run
from tests.conftest import fit_in_process, power_gone_after, tiny_config, write_config

AUXILIARY = [
    {
        "target": "brightness",
        "target_kind": "regression",
        "weight": 0.3,
        "head": {"class_path": "swinft.RegressionHead", "init_args": {"loss": "l1"}},
    },
    {"target": ["is_red", "is_green"], "target_kind": "multilabel", "name": "colours"},
]


def with_table(competition, name, change):
    """Writes another table beside train.csv; `change` edits the rows, dictionaries, in place."""
    with (competition / "train.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for number, row in enumerate(rows):
        change(number, row)
    with (competition / name).open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return name


def fitted(competition, folder, name, **changes):
    config = write_config(folder / f"{name}.yaml", tiny_config(competition, folder / "runs", name=name, **changes))
    fit_in_process(config)
    return Run(folder / "runs" / name)


@pytest.fixture(scope="module")
def helped(competition, tmp_path_factory):
    """A run with auxiliary targets, which some rows lack; six rows lack the main target."""

    def change(number, row):
        row["brightness"] = "" if number % 2 else row["brightness"]
        row["is_red"] = "NA" if number < 6 else row["is_red"]
        row["color"] = "" if number >= 18 else row["color"]

    table = with_table(competition, "helped.csv", change)
    columns = {"auxiliary": AUXILIARY, "on_missing_target": "mask"}
    changes = {
        "data.train": table,
        "data.columns": columns,
        "model.mix": {"mixup_alpha": 0.4, "probability": 0.5, "mixup_at": "features"},
    }
    folder = tmp_path_factory.mktemp("helped")
    assert (
        main(["check", "--config", str(write_config(folder / "c.yaml", tiny_config(competition, folder, **changes)))])
        == 0
    )
    return fitted(competition, folder, "helped", **changes), changes


def test_auxiliary_targets_train_and_are_not_predicted(helped, tmp_path):
    run, _ = helped
    lines = [json.loads(line) for line in run.fold(0).metrics.read_text().splitlines()]
    assert {"val_loss", "val_accuracy", "val_brightness_loss", "val_colours_loss"} <= lines[-1].keys()
    weights = load_file(run.fold(0).weights)
    assert weights["auxiliary.0.linear.weight"].shape[0] == 1
    assert weights["auxiliary.1.linear.weight"].shape[0] == 2
    first, last = lines[0]["val_brightness_loss"], lines[-1]["val_brightness_loss"]
    assert first != last
    assert main(["predict", str(run.root), "--device", "cpu"]) == 0
    assert main(["submit", str(run.root)]) == 0
    assert main(["report", str(run.root)]) == 0
    assert run.test_predictions.read_text().splitlines()[0].startswith("id,blue,green,red")
    assert (
        main(
            [
                "export",
                str(run.root),
                "--fold",
                "0",
                "--to",
                "safetensors",
                "--output",
                str(tmp_path / "net.safetensors"),
            ]
        )
        == 0
    )
    exported = next(path for path in (tmp_path).rglob("*.safetensors"))
    assert not [name for name in load_file(exported) if name.startswith("auxiliary")]


def test_rows_without_the_main_target_train_and_are_not_scored(helped):
    run, _ = helped
    rows = list(csv.DictReader(run.oof.open(newline="")))
    without = [row for row in rows if int(row["id"]) >= 18]
    assert {row["status"] for row in without} == {"no target"}
    assert {row["status"] for row in rows if int(row["id"]) < 18} == {"ok"}
    folds = {row["id"]: int(row["fold"]) for row in csv.DictReader(run.folds.open(newline=""))}
    assert {folds[row["id"]] for row in without} == {0, 1}  # a fold does not train on those that it holds out
    scores = run.read_scores()
    assert scores["rows"] == 18 if "rows" in scores else True


def test_an_auxiliary_target_does_something_and_the_main_head_starts_the_same(competition, tmp_path):
    runs = {}
    for name, weight in (("low", 0.001), ("high", 3.0)):
        auxiliary = [{"target": "brightness", "target_kind": "regression", "weight": weight}]
        config = tiny_config(competition, tmp_path / "runs", name=name, **{"data.columns": {"auxiliary": auxiliary}})
        path = write_config(tmp_path / f"{name}.yaml", config)
        assert main(["fit", "--config", str(path), "--fold", "0"]) == 0
        runs[name] = load_file(tmp_path / "runs" / name / "fold_0" / "weights.safetensors")
    key = next(name for name in runs["low"] if name.startswith("backbone") and name.endswith("qkv.weight"))
    assert not np.allclose(runs["low"][key], runs["high"][key])


def test_a_resumed_run_ends_as_an_uninterrupted_one(helped, competition, tmp_path):
    run, changes = helped
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", name="again", **changes))
    with power_gone_after(1):
        main(["fit", "--config", str(config), "--fold", "0"])
    assert main(["fit", "--config", str(config), "--fold", "0", "--resume"]) == 0
    again = Run(tmp_path / "runs" / "again").fold(0)
    assert again.weights.read_bytes() == run.fold(0).weights.read_bytes()
    assert (again.root / "oof.csv").read_bytes() == (run.fold(0).root / "oof.csv").read_bytes()


WRONG = [
    ({"target": "color", "target_kind": "classification"}, "'color' is in data.target and in data.columns.auxiliary"),
    ({"target": "brightness", "target_kind": "numbers"}, "target_kind: `numbers` is not allowed"),
    ({"target": "brightness", "target_kind": "regression", "weight": 0}, "data.columns.auxiliary.weight is 0"),
    ({"target": "nothing", "target_kind": "regression"}, "nothing"),
    ({"target": "tags", "target_kind": "multilabel"}, "data.columns.auxiliary.label_delimiter"),
    ({"target": "brightness", "target_kind": "regression", "wait": 1}, "wait"),
    (
        {"target": "brightness", "target_kind": "regression", "head": {"class_path": "swinft.MultilabelHead"}},
        "auxiliary target 'brightness' is of the kind regression",
    ),
    (
        {"target": "brightness", "target_kind": "regression", "head": {"class_path": "torch.nn.Linear"}},
        "needs a class derived from swinft's Head",
    ),
    (
        {"target": "size", "target_kind": "classification", "head": {"class_path": "swinft.OrdinalHead"}},
        "auxiliary target 'size': its head OrdinalHead is for classes in an order, and its classes are not numbers",
    ),
    ({"target": ["is_red", "is_red"], "target_kind": "multilabel"}, "auxiliary.target names is_red more than once"),
]


@pytest.mark.parametrize(("given", "said"), WRONG)
def test_a_wrong_auxiliary_target_is_an_error_before_training(given, said, competition, tmp_path, capsys):
    size = {"format": {"size": "{tags}"}}
    train = [{"csv": "train.csv"}, size]
    config = tiny_config(
        competition, tmp_path / "runs", **{"data.train": train, "data.columns": {"auxiliary": [given]}}
    )
    assert main(["check", "--config", str(write_config(tmp_path / "c.yaml", config))]) == 2
    assert said in capsys.readouterr().err


@pytest.fixture(scope="module")
def one_hot(competition):
    def change(number, row):
        for name in ("blue", "green", "red"):
            row[name] = str(int(row["color"] == name))

    return with_table(competition, "one_hot.csv", change)


def test_one_hot_columns_give_the_run_of_the_column_of_classes(one_hot, competition, tiny_run, tmp_path):
    columns = {"data.train": one_hot, "data.target": ["blue", "green", "red"]}
    run = fitted(competition, tmp_path, "one_hot", **columns)
    alone = Run(tiny_run)
    assert run.oof.read_bytes() == alone.oof.read_bytes()
    assert run.read_scores()["pooled"] == pytest.approx(alone.read_scores()["pooled"])
    assert main(["predict", str(run.root), "--device", "cpu"]) == 0
    assert main(["submit", str(run.root)]) == 0
    assert main(["report", str(run.root)]) == 0
    assert (run.root / "submission.csv").read_text().splitlines()[0] == "id,blue,green,red"
    assert Schema.from_dict(run.read_schema()).is_soft


def test_votes_are_divided_by_their_sums(competition, tmp_path, capsys):
    def change(number, row):
        votes = {"red": (3, 1, 0), "green": (0, 2, 2), "blue": (0, 0, 5)}[row["color"]]
        row |= dict(zip(("a", "b", "c"), map(str, votes), strict=True))

    table = with_table(competition, "votes.csv", change)
    columns = {"data.train": table, "data.target": ["a", "b", "c"], "model.metrics": ["kl_divergence", "accuracy"]}
    run = fitted(competition, tmp_path, "votes", **columns)
    assert "each row is divided by its sum" in capsys.readouterr().out
    assert run.read_schema()["prior"] == pytest.approx([0.25, 0.25, 0.5])
    assert run.read_scores()["pooled"]["kl_divergence"] > 0


@pytest.mark.parametrize(
    ("cells", "said"),
    [(("0", "0", "0"), "a, b, c are all 0"), (("-1", "1", "1"), "the number is negative"), (("", "1", "0"), "'a'")],
)
def test_rows_without_shares_are_errors_by_line(cells, said, competition, tmp_path, capsys):
    def change(number, row):
        row |= dict(zip(("a", "b", "c"), cells if number == 4 else ("1", "2", "3"), strict=True))

    table = with_table(competition, "wrong_votes.csv", change)
    config = tiny_config(competition, tmp_path / "runs", **{"data.train": table, "data.target": ["a", "b", "c"]})
    assert main(["check", "--config", str(write_config(tmp_path / "c.yaml", config))]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "wrong_votes.csv:6" in error


LABELS = {"data.target": ["is_red", "is_green"], "data.target_kind": "multilabel"}
LABEL_HEAD = {"model.head": {"class_path": "swinft.MultilabelHead"}}


def test_partly_labelled_rows_are_masked(competition, tmp_path):
    def change(number, row):
        row["is_red"] = "" if number in (3, 7, 8, 20) else row["is_red"]
        row["is_green"] = "NA" if number in (5, 7) else row["is_green"]

    table = with_table(competition, "partly.csv", change)
    changes = {**LABELS, **LABEL_HEAD, "data.train": table, "data.columns": {"on_missing_target": "mask"}}
    run = fitted(competition, tmp_path, "partly", **changes)
    rows = {int(row["id"]): row for row in csv.DictReader(run.oof.open(newline=""))}
    assert [number for number, row in rows.items() if row["status"] != "ok"] == [7]  # it has no label at all
    known = [(rows[k], k) for k in rows if k not in (3, 7, 8, 20)]
    from sklearn.metrics import roc_auc_score

    red = roc_auc_score([k % 3 == 0 for _, k in known], [float(row["is_red"]) for row, _ in known])
    known = [(rows[k], k) for k in rows if k not in (5, 7)]
    green = roc_auc_score([k % 3 == 1 for _, k in known], [float(row["is_green"]) for row, _ in known])
    assert run.read_scores()["pooled"]["mean_column_auc"] == pytest.approx((red + green) / 2)
    assert run.read_schema()["prior"] == pytest.approx([8 / 20, 7 / 22], abs=0.06)
    assert main(["predict", str(run.root), "--device", "cpu"]) == 0
    assert main(["report", str(run.root)]) == 0


@pytest.mark.parametrize("is_partly", [True, False])
def test_metrics_of_whole_rows_are_refused_where_a_row_lacks_some_targets(is_partly, competition, tmp_path, capsys):
    """Rows that lack all of them are not scored."""
    table = with_table(
        competition,
        f"whole_{is_partly}.csv",
        lambda number, row: row.update(dict.fromkeys(LABELS["data.target"][is_partly:], "")) if number == 3 else None,
    )
    changes = {**LABELS, **LABEL_HEAD, "data.train": table, "data.columns": {"on_missing_target": "mask"}}
    config = tiny_config(competition, tmp_path / "runs", **changes, **{"model.metrics": ["samples_f1"]})
    assert main(["check", "--config", str(write_config(tmp_path / "c.yaml", config))]) == (2 if is_partly else 0)
    assert ("scores whole rows, and some lack some of their targets" in capsys.readouterr().err) == is_partly


def test_a_column_that_is_empty_in_a_fold_is_an_error_with_its_lines(competition, tmp_path, capsys):
    table = with_table(
        competition, "rare.csv", lambda number, row: row.update(is_red="01"[number % 2] if number == 4 else "")
    )
    changes = {**LABELS, **LABEL_HEAD, "data.train": table, "data.columns": {"on_missing_target": "mask"}}
    config = tiny_config(competition, tmp_path / "runs", **changes)
    assert main(["check", "--config", str(write_config(tmp_path / "c.yaml", config))]) == 2
    error = capsys.readouterr().err
    assert "the column is empty in fold" in error
    assert "it has values on line 6" in error
    assert "is_red" in error


def test_mask_without_anything_to_learn_is_refused(competition, tmp_path, capsys):
    config = tiny_config(competition, tmp_path / "runs", **{"data.columns": {"on_missing_target": "mask"}})
    assert main(["check", "--config", str(write_config(tmp_path / "c.yaml", config))]) == 2
    assert "nothing to learn from a row without a class" in capsys.readouterr().err


def test_transforms_are_fitted_on_the_rows_that_a_fold_trains_on(competition, tmp_path):
    head = {"class_path": "swinft.RegressionHead", "init_args": {"transform": "rank"}}
    changes = {"data.target": "brightness", "data.target_kind": "regression", "model.head": head}
    run = fitted(competition, tmp_path, "rank", **changes)
    rows = list(csv.DictReader(run.folds.open(newline="")))
    for fold in range(2):
        trained = sorted({20.0 + 3 * int(row["id"]) for row in rows if int(row["fold"]) != fold})
        found = load_file(run.fold(fold).weights)["head.transform.values"][0].unique().tolist()
        assert found == trained
    values = [float(row["brightness"]) for row in csv.DictReader(run.oof.open(newline=""))]
    assert 20 <= min(values) <= max(values) <= 20 + 3 * 23
