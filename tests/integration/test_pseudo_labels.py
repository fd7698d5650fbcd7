"""Pseudo-labels: each fold trains on what another run's network of the same fold says of rows without targets."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from swinft import CSVDataModule, InputError, Schema
from swinft.cli import main
from swinft.data.fold_settings import ExtraTable
from swinft.data.pseudo_labels import PseudoLabels, with_labels
from swinft.data.samples import Rows
from swinft.data.tables.table import Table
from swinft.inference.predictions import Predictions
from swinft.run.experiment import Experiment
from swinft.run.folds.teacher import TeacherRun
from tests.conftest import in_this_process, power_gone_after, tiny_config, write_config, write_image
from tests.integration.test_teacher import FAST, shares, teacher_that_says


def config(competition, tmp_path, teacher, name="student", extra=None, **changes):
    table = {"table": "test.csv", "labels": str(teacher), **(extra or {})}
    given = {"data.folds.extra": [table], **changes}
    return write_config(tmp_path / f"{name}.yaml", tiny_config(competition, tmp_path / "runs", name=name, **given))


def labels_of(run, fold):
    return Predictions.read(run / f"fold_{fold}" / "labels_0.csv", 3)


@pytest.mark.slow
def test_each_fold_trains_on_the_labels_of_the_network_of_its_number(tiny_run, competition, tmp_path, capsys):
    teacher = teacher_that_says(tiny_run, tmp_path / "teacher", [2, 0])
    extra = {"weight": 1000.0, "kind": "hard", "min_confidence": 0.9}  # the 12 rows with targets hardly count
    words = ["fit", "--config", str(config(competition, tmp_path, teacher, extra=extra, **FAST))]
    student = tmp_path / "runs" / "student"
    for fold, number in enumerate([2, 0]):
        assert main([*words, "--fold", str(fold), *(["--resume"] if fold else [])]) == 0
        said = capsys.readouterr().out
        assert f"6 of the 6 rows of test.csv have labels of confidence 0.9 or more, predicted by fold_{fold} of" in said
        assert "18 rows to train on, 12 held out" in said
        assert labels_of(student, fold).values[:, number].min() > 0.99
        assert shares(student, fold)[number] > 0.6
    assert set(json.loads((student / "teachers.json").read_text())) == {str(teacher)}


def test_labels_are_what_the_teacher_predicts_and_a_weak_one_is_left_out(tiny_run, competition, tmp_path, capsys):
    """The network of fold 0 at its image size, alone: not the mean of both."""
    probe = ["predict", str(tiny_run), "--folds", "0", "--device", "cpu", "--output", str(tmp_path / "expected.csv")]
    assert main(probe) == 0
    expected = Predictions.read(tmp_path / "expected.csv", 3)
    limit = float(np.sort(expected.values.max(1))[3])  # three of six are below
    extra = {"min_confidence": limit, "weight": "confidence"}
    given = {"data.image_size": 64, "trainer.max_epochs": 1}
    words = ["fit", "--config", str(config(competition, tmp_path, tiny_run, extra=extra, **given)), "--fold", "0"]
    assert main(words) == 0
    assert "3 of the 6 rows of test.csv have labels" in (said := capsys.readouterr().out)
    assert "15 rows to train on" in said
    assert "is the same image as training id" not in said  # as data.test, which names the same rows
    found = labels_of(tmp_path / "runs" / "student", 0)
    assert found.ids == expected.ids
    np.testing.assert_allclose(found.values, expected.values, rtol=1e-5)


def rows_of(kind, targets, num_outputs, ranges=()):
    """Two rows of a training table and three of one without targets."""
    schema = Schema(kind, [f"c{k}" for k in range(num_outputs)], ranges=list(ranges))
    table = Table(Path("t.csv"), {"id": list("abcde")}, np.arange(5), "id")
    return schema, Rows(
        table, ["x"] * 5, np.array(targets), skipped=dict.fromkeys((2, 3, 4), "no label yet"), num_main=2
    )


VALUES = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.2, 0.4, 0.4]], dtype=np.float32)


def test_labels_are_soft_or_hard_and_count_by_their_confidence():
    schema, rows = rows_of("classification", [0, 2, -1, -1, -1], 3)
    chosen = np.arange(2, 5)
    soft = ExtraTable("t.csv", labels="r", min_confidence=0.6, weight="confidence")
    found = with_labels(rows, schema, [PseudoLabels(soft, chosen, VALUES)])
    assert found.targets.tolist() == [0, 2, 0, 2, 1]
    np.testing.assert_array_equal(found.learnt, np.concatenate([np.eye(3)[[0, 2]], VALUES]))
    np.testing.assert_array_equal(found.weights, np.array([1, 1, 0.7, 0.6, 0.4], np.float32))
    assert found.skipped == {4: "confidence below 0.6"}
    hard = with_labels(rows, schema, [PseudoLabels(ExtraTable("t.csv", labels="r", kind="hard"), chosen, VALUES)])
    assert hard.learnt.tolist() == [0, 2, 0, 2, 1]
    assert hard.learnt.dtype == np.int64
    assert hard.weights is None
    assert hard.skipped == {}


def test_labels_of_several_outputs_and_numbers_in_their_range():
    chosen = np.arange(2, 5)
    nothing = [[np.nan] * 3] * 3
    schema, rows = rows_of("multilabel", np.float32([[0, 1, 1], [1, 0, 0], *nothing]), 3)
    hard = ExtraTable("t.csv", labels="r", kind="hard", min_confidence=0.65)
    found = with_labels(rows, schema, [PseudoLabels(hard, chosen, VALUES)])
    assert found.learnt[2:].tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert set(found.skipped) == {3, 4}  # of each its least certain label counts
    soft = with_labels(rows, schema, [PseudoLabels(ExtraTable("t.csv", labels="r"), chosen, VALUES)])
    np.testing.assert_array_equal(soft.learnt[2:], VALUES)
    assert set(np.unique(soft.targets)) == {0, 1}
    schema, rows = rows_of("regression", np.float32([[0, 1, 1], [1, 0, 0], *nothing]), 3, [[0, 0.5], [0, 1], [0.2, 1]])
    numbers = with_labels(rows, schema, [PseudoLabels(ExtraTable("t.csv", labels="r"), chosen, VALUES)])
    np.testing.assert_array_equal(numbers.learnt[2:], VALUES.clip([0, 0, 0.2], [0.5, 1, 1]).astype(np.float32))


def test_rows_that_wait_for_labels_are_trained_on_in_a_run_alone(competition):
    folds = {"num": 2, "extra": [{"table": "test.csv", "labels": "runs/teacher"}]}
    data = CSVDataModule(
        "color", "classification", "train.csv", "images/{id}.jpg", root=str(competition), image_size=16, folds=folds
    )
    data.setup("fit")
    assert len(data.training_targets) == 12
    with pytest.raises(InputError, match=r"`swinft fit` alone\. Elsewhere remove the table, or give it targets"):
        data.train_dataloader()


NUMBERS = {"data.target": "brightness", "data.target_kind": "regression"}
WRONG = {
    "folds": ({}, {"seed": 1}, "data.folds.extra.labels", "of the 12 rows that fold 0 scores here, such as id '0"),
    "kind": ({"kind": "firm"}, {}, "data.folds.extra.kind", "is 'firm'"),
    "confidence": ({"min_confidence": 2}, {}, "data.folds.extra.min_confidence is 2", "Allowed: a number from 0 to 1."),
    "no run": ({"labels": None, "min_confidence": 0.5}, {}, "min_confidence of test.csv do nothing", "set it, or"),
    "numbers": ({"kind": "hard"}, NUMBERS, "kind of test.csv are for classes and labels", "remove them"),
    "image": ({"image": "none/{id}.jpg"}, {}, "test.csv:2: id 't1'", "none/t1.jpg"),
}


@pytest.mark.parametrize("case", [pytest.param(case, marks=pytest.mark.slow) for case in WRONG])
def test_what_is_wrong_with_labels_is_said_at_check(case, tiny_run, competition, tmp_path, capsys):
    extra, changes, *said = WRONG[case]
    given = {"data.sample_submission": None, **changes}
    assert main(["check", "--config", str(config(competition, tmp_path, tiny_run, extra=extra, **given))]) == 2
    err = capsys.readouterr().err
    for words in said:
        assert words in err, err


@pytest.mark.slow
def test_an_interrupted_fit_goes_on_as_if_nothing_had_been(tiny_run, competition, tmp_path):
    """Also where it was cut before its first epoch, and finds its labels."""
    extra = {"weight": "confidence"}
    for name in ("whole", "cut", "early"):
        words = ["fit", "--config", str(config(competition, tmp_path, tiny_run, name, extra)), "--fold", "0"]
        if name == "cut":
            with power_gone_after(1):
                main(words)
            words += ["--resume"]
        assert main(words) == 0
        if name == "early":
            folder = tmp_path / "runs" / name / "fold_0"
            for path in folder.rglob("*"):
                if path.is_file() and "labels_0" not in path.name:
                    path.unlink()
            assert main([*words, "--resume"]) == 0
    folders = [tmp_path / "runs" / name / "fold_0" for name in ("whole", "cut", "early")]
    for file in ("weights.safetensors", "oof.csv", "labels_0.csv"):
        assert len({(folder / file).read_bytes() for folder in folders}) == 1, file


@pytest.mark.slow
def test_a_network_that_saw_the_scored_rows_does_not_help_the_score(tmp_path, monkeypatch):
    """Six sites of one colour and one class each. The rows to label are their sites once more.

    An oracle stands for the teacher: its network of fold k knows the class of each site but those that fold k holds
    out, of which it knows nothing. With the mean of all networks instead, held-out classes would be learnt.
    """
    root, rng = tmp_path / "data", np.random.default_rng(0)
    colors = [(220, 30, 30), (30, 220, 30), (30, 30, 220), (220, 220, 30), (220, 30, 220), (30, 220, 220)]
    classes, folds = [1, 0, 1, 0, 1, 0], [0, 0, 0, 1, 1, 1]
    tables = {"train": ["id,site,fold,label"], "more": ["id,site"]}
    for site, color in enumerate(colors):
        for k in range(8):
            for table, tail in {"train": f",{folds[site]},{'ab'[classes[site]]}", "more": ""}.items():
                id = f"{table}_{site}_{k}"
                write_image(root / "images" / f"{id}.jpg", color, rng)
                tables[table].append(f"{id},s{site if table == 'train' else f'x{site}'}{tail}")
    for table, lines in tables.items():
        (root / f"{table}.csv").write_text("\n".join([*lines, ""]))

    class Oracle(torch.nn.Module):
        def __init__(self, knows):
            super().__init__()
            self.knows = knows

        def predict(self, image, features=None, image_mask=None):
            near = torch.cdist(image.float().mean((2, 3)), torch.tensor(colors).float()).argmin(1)
            answers = [np.eye(2)[c] if knows else [0.5, 0.5] for c, knows in zip(classes, self.knows, strict=True)]
            return torch.tensor(np.array(answers), dtype=torch.float)[near]

    changes = {
        "data.target": "label", "data.test": None, "data.folds": {"column": "fold", "duplicates": "ignore"},
        "data.train": "train.csv", "model.ema_decay": None, "trainer.max_epochs": 1, "data.augment": "none",
    }  # fmt: skip
    teacher = tmp_path / "runs" / "teacher"
    settings = tiny_config(root, tmp_path / "runs", name="teacher", **changes)
    words = ["fit", "--config", str(write_config(tmp_path / "t.yaml", settings))]
    for fold in (0, 1):
        assert main([*words, "--fold", str(fold), *(["--resume"] if fold else [])]) == 0

    def right(name):
        """Mean probability of the true class in the rows that fold 0 scores."""
        given = {**changes, **FAST, "trainer.max_epochs": 12}
        given["data.folds"] = {**changes["data.folds"], "extra": [{"table": "more.csv", "labels": str(teacher)}]}
        file = write_config(tmp_path / f"{name}.yaml", tiny_config(root, tmp_path / "runs", name=name, **given))
        assert main(["fit", "--config", str(file), "--fold", "0"]) == 0
        oof = Predictions.read(tmp_path / "runs" / name / "fold_0" / "oof.csv", 2)
        truth = [classes[int(id.split("_")[1])] for id in oof.ids]
        return float(oof.values[np.arange(len(truth)), truth].mean())

    def nets(given, *_):
        return [Oracle([held_out != net.fold for held_out in folds]) for net in given]

    monkeypatch.setattr("swinft.run.folds.labels.nets_by_torch", nets)
    build = Experiment.network

    def network(self, schema, path, *args, **options):
        net = build(self, schema, path, *args, **options)
        net.fold = int(path.parent.name.removeprefix("fold_"))
        return net

    monkeypatch.setattr(Experiment, "network", network)
    honest = right("honest")
    every = TeacherRun.trainings
    monkeypatch.setattr(TeacherRun, "trainings", lambda self, fold: every(self, "all"))
    leaky = right("leaky")
    assert honest < 0.6
    assert leaky > 0.65


LABELS = {"data.target": ["is_red", "is_green"], "data.target_kind": "multilabel"}
KINDS = {
    "numbers with metadata": {
        "data.target": "brightness",
        "data.target_kind": "regression",
        "model.head": {
            "class_path": "swinft.RegressionHead",
            "init_args": {"transform": "log1p", "low": 0, "high": 100},
        },
        "data.columns.numeric_features": ["is_red"],
        "data.columns.categorical_features": ["tags"],
    },
    "labels": {
        **LABELS,
        "model.head": {"class_path": "swinft.MultilabelHead"},
        "data.columns.on_missing_target": "mask",
    },
    "soft classes": {"data.target": ["is_red", "is_green", "is_blue"], "data.target_kind": "classification"},
    "two images": {"data.image": ["images/{id}.jpg", "images/{id}.jpg"]},
    "two seeds": {"seeds": [1, 2]},
}


@pytest.mark.slow
@pytest.mark.parametrize("case", KINDS)
def test_runs_of_every_kind_learn_from_one_another(case, competition, tmp_path, monkeypatch):
    """By labels and by distillation, in every fold and in a training on every row."""
    root, rng = shutil.copytree(competition, tmp_path / "data"), np.random.default_rng(0)
    lines = (root / "train.csv").read_text().splitlines()
    is_blue = ["is_blue", *(str(int(",blue," in line)) for line in lines[1:])]
    (root / "train.csv").write_text("\n".join(f"{line},{cell}" for line, cell in zip(lines, is_blue, strict=True)))
    (root / "more.csv").write_text("id,is_red,tags\n" + "".join(f"m{k},{k % 2},cool\n" for k in range(6)))
    for k in range(6):
        write_image(root / "images" / f"m{k}.jpg", (40 * k, 90, 200 - 30 * k), rng)
    monkeypatch.setattr("swinft.run.fit.run_children", in_this_process)

    def fitted(name, **changes):
        given = {**KINDS[case], "data.test": None, "data.sample_submission": None, "trainer.max_epochs": 1, **changes}
        file = write_config(tmp_path / f"{name}.yaml", tiny_config(root, tmp_path / "runs", name=name, **given))
        assert main(["fit", "--config", str(file)]) == 0
        return tmp_path / "runs" / name

    first = fitted("first", **{"data.image_size": 64})
    extra = [{"table": "more.csv", "labels": str(first)}]
    second = fitted(
        "second", **{"data.folds.extra": extra, "data.folds.all": True, "distill": {"run": str(first), "weight": 0.9}}
    )
    trainings = [path for path in second.glob("fold_*") if (path / "result.json").is_file()]
    assert len(trainings) == 3 * len(KINDS[case].get("seeds", [0]))
    names = json.loads((first / "schema.json").read_text())["outputs"]
    found = {path.name: Predictions.read(path / "labels_0.csv", len(names)) for path in trainings}
    for each in found.values():
        assert each.outputs == names
        assert each.ids == [f"m{k}" for k in range(6)]
        assert np.isfinite(each.values).all()
    values = {name.removeprefix("fold_").split("_")[0]: each.values for name, each in found.items()}
    np.testing.assert_allclose(values["all"], (values["0"] + values["1"]) / 2, rtol=1e-4, atol=1e-5)
    assert not np.allclose(values["0"], values["1"], rtol=1e-6)
