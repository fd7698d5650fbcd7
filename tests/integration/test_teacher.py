"""Teachers: each fold learns from what another run's network of the same fold predicts, and from no other network."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save

from swinft.cli import main
from swinft.inference.predictions import Predictions
from swinft.model.training.distillation import Teacher
from swinft.run.compute import selection
from swinft.run.config.fit_options import fit_parser
from swinft.run.experiment import Experiment
from swinft.run.folds.teacher import teacher_of, teachers_of
from swinft.store import commit
from tests.conftest import ROOT, in_this_process, power_gone_after, tiny_config, write_config

FAST = {
    "model.ema_decay": None,
    "model.optim": {"lr": 0.02, "warmup_epochs": 0.0, "weight_decay": 0.0},
    "trainer.max_epochs": 4,
}


def config(competition, tmp_path, teacher, name="student", **changes):
    given = {"distill": {"run": str(teacher)}, **changes}
    settings = tiny_config(competition, tmp_path / "runs", name=name, **given)
    return write_config(tmp_path / f"{name}.yaml", settings)


def teacher_that_says(tiny_run, folder, classes):
    """A copy of a run whose network of fold k always predicts class number `classes[k]`."""
    shutil.copytree(tiny_run, folder)
    for fold, number in enumerate(classes):
        path = folder / f"fold_{fold}" / "weights.safetensors"
        state = load_file(path)
        state["head.linear.weight"].zero_()
        state["head.linear.bias"].copy_(20.0 * torch.eye(3)[number])
        commit(path, save(state), "swinft fit")
    return folder


def shares(run, fold):
    """How much of the out-of-fold predictions of a fold is of each class."""
    return Predictions.read(run / f"fold_{fold}" / "oof.csv", 3).values.mean(0)


def test_each_fold_learns_from_the_network_of_its_number_alone(tiny_run, competition, tmp_path):
    teacher = teacher_that_says(tiny_run, tmp_path / "teacher", [2, 0])
    words = ["fit", "--config", str(config(competition, tmp_path, teacher, **FAST)), "--distill.weight", "1.0"]
    for fold, number in enumerate([2, 0]):
        assert main([*words, "--fold", str(fold), *(["--resume"] if fold else [])]) == 0
        assert (
            shares(tmp_path / "runs" / "student", fold)[number] > 0.75
        )  # of the mean of both networks it would be half


def test_a_training_on_every_row_learns_from_the_mean_of_all_folds(tiny_run, competition, tmp_path):
    teacher = teacher_that_says(tiny_run, tmp_path / "teacher", [2, 0])
    argv = ["--config", str(config(competition, tmp_path, teacher))]
    experiment = Experiment.from_argv(fit_parser(), argv)
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    for fold, expected in {0: [0, 0, 1], "0_seed_3": [0, 0, 1], 1: [1, 0, 0], "all": [0.5, 0, 0.5]}.items():
        found = teacher_of(experiment, fold, teachers_of(experiment))
        torch.testing.assert_close(found.predict(images, {}), torch.tensor([expected], dtype=torch.float))


@pytest.mark.slow
def test_several_runs_teach_with_their_mean_and_an_ensemble_with_weights_of_the_other_folds(
    tiny_run, competition, tmp_path, monkeypatch, capsys
):
    a, b = (teacher_that_says(tiny_run, tmp_path / name, classes) for name, classes in (("a", [2, 0]), ("b", [1, 0])))
    for folder in (a, b):
        (folder / "test_predictions.csv").unlink()
    images = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)

    def predicted(teacher, fold):
        words = ["--config", str(config(competition, tmp_path, tiny_run)), "--distill.run", teacher]
        experiment = Experiment.from_argv(fit_parser(), words)
        return teacher_of(experiment, fold, teachers_of(experiment)).predict(images, {})

    several = f"[{a},{b}]"
    for fold, expected in {0: [0, 0.5, 0.5], 1: [1, 0, 0], "all": [0.5, 0.25, 0.25]}.items():
        torch.testing.assert_close(predicted(several, fold), torch.tensor([expected], dtype=torch.float))
    words = ["ensemble", str(a), str(b), "--runs", str(tmp_path), "--bootstrap", "0", "--name"]
    assert main([*words, "blend", "--method", "nnls"]) == 0

    def weights(self, rows):
        """Of a method that tells which rows it was fitted on."""
        return np.array([1.0, 0.0]) if len(rows.targets) == 24 else np.array([0.25, 0.75])

    monkeypatch.setattr("swinft.run.ensemble.methods.NNLS.weights", weights)
    torch.testing.assert_close(predicted(str(tmp_path / "blend"), 0), torch.tensor([[0, 0.75, 0.25]]))
    hashes = [
        each.group
        for each in teachers_of(
            Experiment.from_argv(fit_parser(), ["--config", str(config(competition, tmp_path, tmp_path / "blend"))])
        )
    ]
    assert hashes == [str(tmp_path / "blend")] * 2
    assert main([*words, "stack", "--method", "ridge"]) == 0
    capsys.readouterr()
    assert main(["check", "--config", str(config(competition, tmp_path, tmp_path / "stack"))]) == 2
    assert "its method ridge is not one weight for each member" in capsys.readouterr().err


def test_an_ensemble_of_which_a_member_has_changed_teaches_nothing(tiny_run, competition, tmp_path, capsys):
    """Its weights, and what a training on all rows learns with them, were those of the earlier member."""
    folders = [shutil.copytree(tiny_run, tmp_path / name) for name in "ab"]
    for folder in folders:
        (folder / "test_predictions.csv").unlink()
    words = ["ensemble", *map(str, folders), "--runs", str(tmp_path), "--bootstrap", "0", "--name", "blend"]
    assert main([*words, "--method", "mean"]) == 0
    check = ["check", "--config", str(config(competition, tmp_path, tmp_path / "blend"))]
    experiment = Experiment.from_argv(fit_parser(), check[1:])
    assert [each.named for each in teachers_of(experiment)] == list(map(str, folders))
    found = Predictions.read(folders[1] / "oof.csv", 3)
    commit(folders[1] / "oof.csv", replace(found, values=found.values[:, ::-1]).write_to, "swinft fit")
    capsys.readouterr()
    assert main(check) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert f"distill.run {tmp_path / 'blend'} is out of date: these files of members have changed since: " in said
    assert f"{folders[1] / 'oof.csv'}. Make it again" in said


def folds_of(tiny_run, folder, edit):
    """A copy of a run with another folds.csv."""
    shutil.copytree(tiny_run, folder)
    path = folder / "folds.csv"
    commit(path, edit(path.read_text()).encode(), "swinft fit")
    return folder


NUMBERS = {"data.target": "brightness", "data.target_kind": "regression"}
NUMBERS |= {"model.head": {"class_path": "swinft.RegressionHead"}}
WRONG = {
    "no run": ({"distill.run": "nowhere"}, "distill.run: there is no run folder 'nowhere'. Name the folder of a"),
    "folds": ({"seed": 1}, "of the 12 rows that fold 0 scores here, such as id '0"),
    "fewer folds": ({"data.folds.num": 3}, "has the folds 0, 1, and no network for fold 2 of this run. Use its folds"),
    "outputs": (NUMBERS, "predicts blue, green, red (classification), and this run brightness (regression): name"),
    "weight": ({"distill.weight": 1.5}, "distill.weight is 1.5. Allowed: a number from 0 to 1."),
    "nothing": ({"distill.run": None, "distill.weight": 0.7}, "do nothing without distill.run: set it, or remove"),
    "images": ({"data.image": ["images/{id}.jpg"] * 2}, "sees other images of a row (data.image images/{id}.jpg)"),
    "rules": ({"data.loading.image_rules": {"apply_exif": False}}, "was trained with another data.loading.image_rules"),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", WRONG)
def test_what_a_run_cannot_learn_from_is_refused_at_check(case, tiny_run, competition, tmp_path, capsys):
    changes, said = WRONG[case]
    given = {"data.sample_submission": None, **changes}
    assert main(["check", "--config", str(config(competition, tmp_path, tiny_run, **given))]) == 2
    err = capsys.readouterr().err
    assert said in err, err
    assert case != "folds" or f"Use its folds: data.folds.file: {tiny_run / 'folds.csv'}." in err


def test_a_row_that_the_teacher_has_trained_on_or_does_not_know_is_refused(tiny_run, competition, tmp_path, capsys):
    def without_a_row(text):
        return "\n".join(line for line in text.splitlines() if not line.startswith("004,"))

    folder = folds_of(tiny_run, tmp_path / "fewer", without_a_row)
    words = ["check", "--config", str(config(competition, tmp_path, folder))]
    assert main(words) == 2
    assert "does not hold out 1 of the 12 rows that fold" in capsys.readouterr().err
    lines = (tiny_run / "folds.csv").read_text().splitlines()[1:]
    first = next(line.split(",")[0] for line in lines if line.endswith(",0"))
    folder = shutil.copytree(tiny_run, tmp_path / "more")
    commit(folder / "extra.csv", f"id,left_out_of\n{first},1\n".encode(), "swinft fit")  # an extra row of fold 0's
    assert main([*words, "--distill.run", str(folder)]) == 2
    assert f"its fold 0 does not hold out 1 of the 12 rows that fold 0 scores here, such as id '{first}'" in (
        capsys.readouterr().err
    )


@pytest.mark.slow
def test_a_run_needs_its_teacher_until_it_is_trained(tiny_run, competition, tmp_path, capsys):
    teacher = shutil.copytree(tiny_run, tmp_path / "teacher")
    words = ["fit", "--config", str(config(competition, tmp_path, teacher, **{"trainer.max_epochs": 1}))]
    assert main([*words, "--fold", "0"]) == 0
    said = capsys.readouterr().out
    assert f"distill.run {teacher}: each fold learns from its network of the same fold" in said
    student = tmp_path / "runs" / "student"
    hashes = json.loads((student / "teachers.json").read_text())[str(teacher)]
    assert set(hashes) == {"config.yaml", "schema.json", *(f"fold_{k}/weights.safetensors" for k in (0, 1))}
    changed = teacher_that_says(tiny_run, tmp_path / "changed", [2, 0])
    shutil.move(teacher, tmp_path / "away")
    assert main([*words, "--resume"]) == 2
    assert f"distill.run: there is no run folder '{teacher}'" in capsys.readouterr().err
    shutil.move(changed, teacher)
    assert main([*words, "--resume"]) == 2
    assert "has changed since" in (err := capsys.readouterr().err)
    assert "fold_0/weights.safetensors, fold_1/weights.safetensors" in err
    shutil.rmtree(teacher)
    assert main(["predict", str(student), "--folds", "0", "--device", "cpu"]) == 0


MANY = {
    "model.mix": {"mixup_alpha": 1.0, "cutmix_alpha": 1.0},
    "model.optim": {"lr": 3e-3, "name": "sam"},
    "distill.temperature": 3.0,
}


@pytest.mark.slow
def test_an_interrupted_fit_goes_on_as_if_nothing_had_been(tiny_run, competition, tmp_path):
    for name in ("whole", "cut"):
        given = {**MANY, "distill.run": str(tiny_run)}
        settings = tiny_config(competition, tmp_path / "runs", name=name, **given)
        words = ["fit", "--config", str(write_config(tmp_path / f"{name}.yaml", settings)), "--fold", "0"]
        if name == "cut":
            with power_gone_after(1):
                main(words)
            words += ["--resume"]
        assert main(words) == 0
    folders = [tmp_path / "runs" / name / "fold_0" for name in ("whole", "cut")]
    for file in ("weights.safetensors", "oof.csv"):
        assert (folders[0] / file).read_bytes() == (folders[1] / file).read_bytes()


@pytest.mark.slow
def test_a_teacher_of_weight_0_changes_nothing_and_one_of_another_size_teaches(tiny_run, competition, tmp_path):
    def weights(name, **changes):
        file = write_config(
            tmp_path / f"{name}.yaml", tiny_config(competition, tmp_path / "runs", name=name, **changes)
        )
        assert main(["fit", "--config", str(file), "--fold", "0"]) == 0
        return (tmp_path / "runs" / name / "fold_0" / "weights.safetensors").read_bytes()

    mix = {"model.mix": {"mixup_alpha": 1.0}, "model.drop_path_rate": 0.2}
    distilled = {**mix, "distill.run": str(tiny_run)}
    plain = weights("plain", **mix)
    assert plain == weights("nothing", **distilled, **{"distill.weight": 0.0})
    taught = weights("taught", **distilled)
    assert taught != plain
    assert taught != weights("warm", **distilled, **{"distill.temperature": 5.0})
    weights("larger", **distilled, **{"data.image_size": 64, "trainer.precision": "bf16-mixed"})


@pytest.mark.slow
def test_two_ranks_learn_from_a_teacher_as_one_process_with_their_batches_together(tiny_run, competition, tmp_path):
    def weights(name, **changes):
        given = {
            "distill": {"run": str(tiny_run), "weight": 0.7, "temperature": 2.0},
            "data.folds.extra": [{"table": "test.csv", "labels": str(tiny_run), "weight": "confidence"}],
            "model.optim": {"lr": 1e-3, "warmup_epochs": 0.0},
            "model.drop_path_rate": 0.0,  # what ranks drop is their own
            **changes,
        }
        settings = tiny_config(competition, tmp_path / "runs", name=name, **given)
        words = ["fit", "--config", str(write_config(tmp_path / f"{name}.yaml", settings)), "--fold", "0"]
        done = subprocess.run(
            [sys.executable, "-m", "swinft", *words], cwd=ROOT, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return load_file(tmp_path / "runs" / name / "fold_0" / "weights.safetensors")

    alone = weights("alone", **{"data.batch_size": 6})
    together = weights("together", **{"data.batch_size": 3, "trainer.devices": 2, "trainer.strategy": "ddp"})
    start = weights("start", **{"data.batch_size": 6, "model.optim.lr": 1e-12})
    untaught = weights("untaught", **{"data.batch_size": 6, "distill.weight": 0.0, "distill.temperature": 1.0})
    moved = [name for name in alone if alone[name].is_floating_point() and not torch.equal(alone[name], start[name])]
    assert len(moved) > 20
    apart = {name: (alone[name] - untaught[name]).norm() for name in moved}
    for name in moved:
        assert (together[name] - alone[name]).norm() < 0.2 * apart[name] + 1e-7, name


@pytest.mark.slow
def test_the_step_that_must_fit_on_a_gpu_has_the_teacher_too(tiny_run, competition, tmp_path, monkeypatch):
    """Its memory and its time are the run's."""
    tried, predict = [], Teacher.predict
    monkeypatch.setattr(Teacher, "predict", lambda *given: tried.append(len(given[1])) or predict(*given))
    monkeypatch.setattr(selection, "IN_CHILD", {"cpu"})
    monkeypatch.setattr(selection, "run_children", in_this_process)
    assert main(["check", "--config", str(config(competition, tmp_path, tiny_run))]) == 0
    assert tried[0] == 2  # where wrong shapes are found, before
    assert set(tried[1:]) == {6}
