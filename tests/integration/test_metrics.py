"""Metrics where float32, a missing class, an outlier or a NaN used to make them wrong, beside scikit-learn's in float64."""

import json
import math

import numpy as np
import pandas as pd
import pytest
import sklearn.metrics as sk
import torch
import yaml

from swinft.cli import main
from swinft.data.schema import Schema
from swinft.errors import InputError
from swinft.model.metrics import METRICS
from swinft.model.scoring import score
from swinft.printing import format_score
from swinft.run.config.sections import build_parser, load
from swinft.run.folds.recorder import FoldRecorder
from swinft.store import json_bytes
from tests.conftest import fit_in_process, tiny_config, write_config

SEEDS = range(60)  # draws against an independent answer


def value(name, predictions, targets, kind="regression", grades=None):
    more = [] if grades is None else [grades]
    return score([name], kind, torch.from_numpy(predictions), torch.from_numpy(targets), *more)[name]


@pytest.mark.parametrize(("mean", "spread"), [(2000, 5), (1e6, 200), (1.7e9, 1e4), (50, 20)])
def test_f088_numbers_far_from_zero_score_as_in_float64(mean, spread):
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        targets = rng.normal(mean, spread, (300, 2))
        given = targets + rng.normal(0, spread * rng.uniform(0.1, 2), targets.shape)
        expected = {
            "r2": sk.r2_score(targets, given),
            "rmse": np.mean(sk.root_mean_squared_error(targets, given, multioutput="raw_values")),
            "mae": sk.mean_absolute_error(targets, given),
        }
        for name, right in expected.items():
            assert value(name, given, targets) == pytest.approx(right, rel=1e-12), name


def test_probability_metrics_are_scikit_learns_on_60_draws_with_ties():
    for seed in SEEDS:
        rng = np.random.default_rng(seed)
        classes = int(rng.integers(2, 6))
        targets = np.concatenate([np.arange(classes), rng.integers(0, classes, 60)])
        given = rng.dirichlet(np.full(classes, 0.3), len(targets))
        if seed % 2:
            given = np.round(given, 1)
            given /= given.sum(1, keepdims=True)
        hard = given.argmax(1)
        one_hot = np.eye(classes)[targets]
        columns = [sk.roc_auc_score(one_hot[:, k], given[:, k]) for k in range(classes)]
        expected = {
            "accuracy": sk.accuracy_score(targets, hard),
            "macro_f1": sk.f1_score(targets, hard, average="macro"),
            "log_loss": sk.log_loss(targets, given, labels=range(classes)),
            "auc": columns[1] if classes == 2 else np.mean(columns),
            "quadratic_kappa": sk.cohen_kappa_score(targets, hard, weights="quadratic", labels=range(classes)),
        }
        for name, right in expected.items():
            assert value(name, given, targets, "classification") == pytest.approx(right, abs=1e-12), name
        assert value("mean_column_auc", given, one_hot, "multilabel") == pytest.approx(np.mean(columns), abs=1e-12)


def test_f089_kappa_counts_with_the_numbers_that_classes_are():
    schema = Schema("classification", ["0", "1", "2", "10"])
    rng = np.random.default_rng(0)
    targets, given = rng.integers(0, 4, 300), rng.dirichlet(np.ones(4), 300)
    numbers = np.array([0, 1, 2, 10])
    labels = np.arange(11)  # scikit-learn counts positions: give it every number between
    right = sk.cohen_kappa_score(numbers[targets], numbers[given.argmax(1)], weights="quadratic", labels=labels)
    got = value("quadratic_kappa", given, targets, "classification", schema.grades)
    assert got == pytest.approx(right, abs=1e-12)
    assert got != pytest.approx(value("quadratic_kappa", given, targets, "classification"), abs=1e-3)


def test_f090_an_outlier_costs_neither_memory_nor_the_score():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 5, (500, 1)).astype(float)
    given = targets + rng.normal(0, 0.8, targets.shape)
    given[0] = 3e9
    clipped = np.clip(np.rint(given), 0, 4).ravel().astype(int)
    right = sk.cohen_kappa_score(targets.ravel().astype(int), clipped, weights="quadratic")
    assert value("quadratic_kappa", given, targets) == pytest.approx(right, abs=1e-12)
    ranges = Schema("regression", ["grade"], ranges=[[0, 4]]).grades
    assert value("quadratic_kappa", given, targets, grades=ranges) == pytest.approx(right, abs=1e-12)


def test_a_fold_without_the_highest_grade_clips_to_the_training_tables_grades():
    given, targets = np.array([[4.0], [0.0], [1.0]]), np.array([[3.0], [0.0], [1.0]])
    right = sk.cohen_kappa_score([3, 0, 1], [4, 0, 1], weights="quadratic", labels=range(5))
    got = value("quadratic_kappa", given, targets, grades=Schema("regression", ["g"], ranges=[[0, 4]]).grades)
    assert got == pytest.approx(right)
    assert value("quadratic_kappa", given, targets) == 1  # what the fold's own range would say


def test_f091_a_label_that_no_row_has_is_left_out_and_not_the_whole_score():
    rng = np.random.default_rng(0)
    given, targets = rng.random((50, 3)), (rng.random((50, 3)) < 0.4).astype(float)
    targets[:, 1] = 0
    defined = [sk.roc_auc_score(targets[:, k], given[:, k]) for k in (0, 2)]
    assert value("mean_column_auc", given, targets, "multilabel") == pytest.approx(np.mean(defined))
    assert math.isnan(value("mean_column_auc", given, np.zeros((50, 3)), "multilabel"))
    three = rng.dirichlet(np.ones(3), 50)
    classes = rng.integers(0, 2, 50)
    each = [sk.roc_auc_score(classes == k, three[:, k]) for k in (0, 1)]
    assert value("auc", three, classes, "classification") == pytest.approx(np.mean(each))


def test_f091_best_never_chooses_by_an_undefined_score():
    recorder = FoldRecorder(None, [METRICS["auc"]], "best")
    lines = [
        {"epoch": 1, "val_auc": math.nan, "val_loss": 0.9},
        {"epoch": 2, "val_auc": math.nan, "val_loss": 0.4},
        {"epoch": 3, "val_auc": math.nan, "val_loss": math.nan},
    ]
    recorder.history = lines
    assert recorder.best["epoch"] == 2
    recorder.history = [*lines, {"epoch": 4, "val_auc": 0.1, "val_loss": 5.0}]
    assert recorder.best["epoch"] == 4


def test_f091_an_undefined_score_is_null_in_the_files_and_said_in_the_report(competition, tmp_path):
    table = pd.read_csv(competition / "train.csv", dtype=str)
    root = tmp_path / "c"
    root.mkdir()
    (root / "images").symlink_to(competition / "images")
    table["is_green"] = "0"
    table["is_red"] = "0"
    table.to_csv(root / "train.csv", index=False)
    changes = {
        "data.target": ["is_red", "is_green"],
        "data.target_kind": "multilabel",
        "data.test": None,
        "data.sample_submission": None,
        "model.head": {"class_path": "swinft.MultilabelHead"},
        "model.metrics": ["mean_column_auc"],
        "trainer.max_epochs": 1,
        "checkpoint": "best",
    }
    config = write_config(tmp_path / "c.yaml", tiny_config(root, tmp_path / "runs", **changes))
    fit_in_process(config)
    run = tmp_path / "runs" / "tiny"
    strict = {"parse_constant": lambda word: pytest.fail(f"{word} is no JSON")}
    scores = json.loads((run / "scores.json").read_text(), **strict)
    assert scores["pooled"] == {"mean_column_auc": None}
    assert scores["undefined_outputs"] == {"mean_column_auc": ["is_red", "is_green"]}
    assert json.loads((run / "fold_0" / "metrics.jsonl").read_text(), **strict)["val_mean_column_auc"] is None
    assert "undefined" in (run / "report.html").read_text()
    assert main(["fit", "--config", str(config), "--resume"]) == 0


def test_f093_a_certain_and_wrong_row_costs_what_scikit_learn_says():
    given, targets = np.array([[1.0, 0.0], [0.3, 0.7]]), np.array([1, 1])
    expected = sk.log_loss(targets, given, labels=[0, 1])
    assert value("log_loss", given, targets, "classification") == pytest.approx(expected, rel=1e-12)
    assert value("log_loss", given, targets, "classification") > 17


def test_f094_scores_outside_0_1_rank_as_they_are_and_are_no_probabilities():
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, 5000)
    small = np.clip(0.001 * rng.random(5000) + 0.0005 * targets, 0, 1)
    given = np.stack([1 - small, small], 1)
    given[0, 1] = 1.0000001
    expected = sk.roc_auc_score(targets, given[:, 1])
    assert value("auc", given, targets, "classification") == pytest.approx(expected, abs=1e-12)
    assert expected > 0.7
    with pytest.raises(InputError, match="log_loss needs probabilities in 0–1, and the predictions are from"):
        value("log_loss", given * 7, targets, "classification")


def test_numbers_that_are_none_become_null():
    assert json.loads(json_bytes({"a": [math.nan, (1.5, -math.inf)], "b": 2})) == {"a": [None, [1.5, None]], "b": 2}


GRADES = ["No DR", "Mild", "Moderate", "Severe", "Proliferative"]


@pytest.fixture(scope="module")
def named_grades(competition, tmp_path_factory):
    """The tiny competition with five named grades."""
    root = tmp_path_factory.mktemp("graded")
    (root / "images").symlink_to(competition / "images")
    table = pd.read_csv(competition / "train.csv", dtype=str)
    table["grade"] = [GRADES[i // 2 % 5] for i in range(len(table))]
    table.to_csv(root / "train.csv", index=False)
    return root


def graded(root, tmp_path, **changes):
    wanted = {"data.target": "grade", "data.test": None, "data.sample_submission": None, "trainer.max_epochs": 1}
    wanted["model.metrics"] = ["quadratic_kappa"]
    return write_config(tmp_path / "c.yaml", tiny_config(root, tmp_path / "runs", **wanted, **changes))


def test_f089_named_grades_need_an_order(named_grades, tmp_path, capsys):
    assert main(["check", "--config", str(graded(named_grades, tmp_path))]) == 2
    assert "Set data.columns.class_order to all of them, from the lowest to the highest" in capsys.readouterr().err
    wrong = graded(named_grades, tmp_path, **{"data.columns.class_order": ["No DR", "Mild", "Mild", "Modest"]})
    assert main(["check", "--config", str(wrong)]) == 2
    said = capsys.readouterr().err
    for part in ("without Moderate, Proliferative, Severe", "with the unknown Modest", "twice with Mild"):
        assert part in said


def test_f089_the_order_decides_the_score(named_grades, tmp_path):
    config = graded(named_grades, tmp_path, **{"data.columns.class_order": GRADES})
    fit_in_process(config)
    run = tmp_path / "runs" / "tiny"
    oof = pd.read_csv(run / "oof.csv", dtype={"id": str}).set_index("id")
    table = pd.read_csv(named_grades / "train.csv", dtype=str).set_index("id")
    assert list(oof.columns[:5]) == GRADES
    given = oof.loc[table.index, GRADES].to_numpy().argmax(1)
    wanted = table["grade"].map(GRADES.index)
    right = sk.cohen_kappa_score(wanted, given, weights="quadratic", labels=range(5))
    assert json.loads((run / "scores.json").read_text())["pooled"]["quadratic_kappa"] == pytest.approx(right, abs=1e-12)


def test_scores_are_shown_with_digits_that_say_something():
    assert [format_score(x) for x in (0.12345, 0.0, -0.25, 7e9)] == ["0.1235", "0.0000", "-0.2500", "7000000000.0000"]
    assert format_score(1.23456e-5) == "1.235e-05"  # the rmse of targets near 1e-4
    assert format_score(math.nan) == format_score(None) == "undefined"


GROUPED = {"column": "tags", "weights": {"blue": 1, "green": 2, "red": 4}, "name": "grouped"}


def official(competition, tmp_path, *metrics, **changes):
    root = tmp_path / "c"
    if not root.exists():
        root.mkdir()
        for file in ("images", "test.csv"):
            (root / file).symlink_to(competition / file)
        (root / "train.csv").write_text((competition / "train.csv").read_text())
        (root / "tree.csv").write_text(
            "name,kingdom,family,species\nred,all,warm,red\ngreen,all,,green\nblue,all,,blue\n"
        )
    wanted = {"data.sample_submission": None, "trainer.max_epochs": 1, "model.metrics": list(metrics), **changes}
    return write_config(tmp_path / "c.yaml", tiny_config(root, tmp_path / "runs", **wanted))


@pytest.mark.slow
def test_metrics_with_arguments_score_a_run_by_its_tables_columns_and_by_a_file(competition, tmp_path, capsys):
    distance = {"hierarchical_distance": {"taxonomy": "tree.csv"}}
    config = official(competition, tmp_path, {"grouped_log_loss": GROUPED}, distance, "accuracy")
    assert main(["check", "--config", str(config)]) == 0
    fit_in_process(config)
    run, table = tmp_path / "runs" / "tiny", pd.read_csv(competition / "train.csv", dtype=str).set_index("id")
    oof = pd.read_csv(run / "oof.csv", dtype={"id": str}).set_index("id").loc[table.index]
    classes = ["blue", "green", "red"]
    wanted, given = table["color"].map(classes.index).to_numpy(), oof[classes].to_numpy()
    weights = np.array([1, 2, 4])[wanted]
    groups = [np.flatnonzero(table["tags"] == tag) for tag in ("warm", "cool plant", "cool")]
    losses = [sk.log_loss(wanted[g], given[g], labels=range(3), sample_weight=weights[g]) for g in groups]
    steps = np.array([[0, 2, 3], [2, 0, 3], [3, 3, 0]])[wanted, given.argmax(1)]
    pooled = json.loads((run / "scores.json").read_text())["pooled"]
    assert pooled["grouped"] == pytest.approx(np.mean(losses), rel=1e-6)
    assert pooled["hierarchical_distance"] == pytest.approx(steps.mean())
    assert "val_grouped" in json.loads((run / "fold_0" / "metrics.jsonl").read_text())
    assert "grouped" in (run / "report.html").read_text()
    frozen = yaml.safe_load((run / "config.yaml").read_text())["model"]["metrics"]
    assert frozen[1] == {"hierarchical_distance": {"taxonomy": {"red": ["all", "warm", "red"], **{
        name: ["all", name] for name in ("green", "blue")}}}}  # fmt: skip
    assert main(["fit", "--config", str(config), "--resume"]) == 0
    assert main(["report", str(run)]) == 0
    (tmp_path / "c" / "tree.csv").write_text("name,path\nred,red\ngreen,green\nblue,blue\n")
    capsys.readouterr()
    assert main(["fit", "--config", str(config), "--resume"]) == 2
    assert "model.metrics" in capsys.readouterr().err


@pytest.mark.slow
def test_out_of_fold_rows_of_classes_that_their_fold_has_not_seen_are_new(competition, tmp_path):
    metric = {"map_at_k": {"k": 2, "new": "new", "threshold": 0.3}}
    config = official(competition, tmp_path, metric, **{"data.folds": {"num": 2, "rare_classes": "spread"}})
    path = tmp_path / "c" / "train.csv"
    path.write_text(path.read_text().replace("000,red", "000,pink").replace("001,green", "001,grey"))
    fit_in_process(config)
    run, table = tmp_path / "runs" / "tiny", pd.read_csv(path, dtype=str).set_index("id")
    oof = pd.read_csv(run / "oof.csv", dtype={"id": str}).set_index("id").loc[table.index]
    classes, total = sorted(set(table["color"])), 0.0
    for row, wanted in table["color"].items():
        p = oof.loc[row, classes].astype(float)
        order = sorted(classes, key=lambda name, p=p: -p[name])
        answer = [name for name in order if p[name] >= 0.3] + ["new"] + [name for name in order if p[name] < 0.3]
        wanted = "new" if wanted in ("pink", "grey") else wanted
        total += next((1 / place for place, name in enumerate(answer[:2], start=1) if name == wanted), 0)
    pooled = json.loads((run / "scores.json").read_text())["pooled"]
    assert pooled["map_at_k"] == pytest.approx(total / len(table))
    assert main(["fit", "--config", str(config), "--resume"]) == 0


def test_names_that_yaml_would_read_as_numbers_are_text_where_they_are_quoted(competition, tmp_path, capsys):
    names = {"red": "007", "green": "1.0", "blue": "True"}
    table = [{"csv": "train.csv"}, {"map": {"column": "color", "values": names}}]
    metrics = [{"f1": {"positive": "007", "name": "1.0"}}, {"partial_auc": {"positive": "True"}}]
    rules = [{"clip": {"min": 0.1, "of": ["1.0", "True"]}}, {"normalize": {"of": ["007", "1.0", "True"]}}]
    changes = {"data.train": table, "submission.rules": rules, "data.sample_submission": None}
    path = str(official(competition, tmp_path, *metrics, **changes))
    assert main(["check", "--config", path]) == 0
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["fit", "--config", path, "--print_config"])
    found = yaml.safe_load(capsys.readouterr().out)
    assert (found["model"]["metrics"], found["submission"]["rules"]) == (metrics, rules)


@pytest.mark.parametrize(
    ("metric", "changes", "said"),
    [
        (
            {"grouped_log_loss": {"column": "tag"}},
            {},
            "reads the column 'tag', which the table lacks. Did you mean 'tags'",
        ),
        ({"grouped_log_loss": {"colum": "tag"}}, {}, "grouped_log_loss has no 'colum'. Did you mean 'column'?"),
        ({"grouped_los": {}}, {}, "grouped_log_loss"),
        ({"class_path": "swinft.Metric"}, {}, "'swinft.Metric' is only a base for other classes"),
        ({"grouped_log_loss": "tags"}, {}, "its arguments are column"),
        ({"hierarchical_distance": {"taxonomy": "no.csv"}}, {}, "no.csv cannot be read"),
        ({"f1": {"positive": "rde"}}, {}, "there is no output 'rde'. Did you mean 'red'?"),
        (
            {"grouped_log_loss": {"column": "tags"}},
            {"data.columns": {"weight": {"column": "brightness", "in_score": True}}},
            "has no weighted form",
        ),
    ],
)
def test_a_metric_that_cannot_score_the_table_is_found_by_check(competition, tmp_path, capsys, metric, changes, said):
    assert main(["check", "--config", str(official(competition, tmp_path, metric, **changes))]) == 2
    assert said in capsys.readouterr().err


def test_labels_are_scored_at_the_threshold_of_the_submission(competition, tmp_path):
    changes = {"data.target": "tags", "data.target_kind": "multilabel", "data.columns": {"label_delimiter": " "}}
    changes |= {"model.head": {"class_path": "swinft.MultilabelHead"}, "submission.threshold": 0.3}
    own = {"macro_f1": {"threshold": 0.6}}
    path = official(competition, tmp_path, "samples_f1", own, "mean_column_auc", **changes)
    config = load(build_parser("check"), ["--config", str(path)])
    assert config.model.metrics == [{"samples_f1": {"threshold": 0.3}}, own, "mean_column_auc"]
