"""`on_out_of_memory: halve`: a run whose first batch does not fit is trained with a smaller one, the same everywhere."""

import json

import pytest
import torch
import yaml

from swinft.cli import main
from swinft.model.task import FineTuneTask
from swinft.model.trial import TrialSteps
from swinft.run.compute import selection
from swinft.run.compute import trial as measured
from swinft.run.layout import Run
from tests.conftest import in_this_process, power_gone_after, tiny_config, write_config

SAID = "out of memory with data.batch_size 6: every fold is trained with data.batch_size 3 and trainer."


class Full(TrialSteps):
    """A device whose memory holds `most` images in training, and `most_evaluated` in evaluation."""

    most, most_evaluated = 4, 1000

    def train(self, batch):
        if len(batch.image) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        super().train(batch)

    def predict(self, batch):
        if len(batch.image) > self.most_evaluated:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return super().predict(batch)


@pytest.fixture
def config(competition, tmp_path, monkeypatch):
    """A config whose batch does not fit into the memory of its device; child processes work in this one."""
    monkeypatch.setattr(measured, "TrialSteps", Full)
    monkeypatch.setattr(selection, "run_children", in_this_process)
    changes = {"on_out_of_memory": "halve", "trainer.limit_train_batches": 2}
    return write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))


def test_a_fold_trains_with_the_halved_batch(config, tmp_path, capsys):
    assert main(["fit", "--config", str(config), "--fold", "0", "--trainer.max_epochs", "1"]) == 0
    said = capsys.readouterr().out
    assert said.count(SAID + "accumulate_grad_batches 2") == 1
    run = Run(tmp_path / "runs" / "tiny")
    checkpoint = run.fold(0).read_result()["made_with"]
    assert checkpoint["halvings"] == 1
    assert "0.5 of 2 steps of warm-up" not in said
    assert "of 2 steps of warm-up" in said  # as many optimiser steps as with the whole batch


@pytest.mark.slow
def test_every_fold_and_every_resume_trains_with_the_halved_batch(config, tmp_path, capsys, monkeypatch):
    batches, before = [], FineTuneTask.training_step

    def counted(task, batch, index):
        batches.append(len(batch["image"]))
        return before(task, batch, index)

    monkeypatch.setattr(FineTuneTask, "training_step", counted)
    with power_gone_after(1):
        main(["fit", "--config", str(config), "--fold", "0"])
    assert capsys.readouterr().out.count(SAID + "accumulate_grad_batches 2") == 1
    monkeypatch.setattr(Full, "most", 0)  # a resume tries nothing
    assert main(["fit", "--config", str(config), "--fold", "0", "--resume"]) == 0
    for words in (["--fold", "1", "--resume"], ["--resume"]):
        assert main(["fit", "--config", str(config), *words]) == 0
    assert batches == [3] * 4 * 2 * 2  # limit_train_batches counts as many rows as before: 4 batches of 3
    run = Run(tmp_path / "runs" / "tiny")
    assert yaml.safe_load(run.config.read_text())["data"]["batch_size"] == 6  # the same config resumes
    assert run.read_environment()["halvings"] == 1
    assert [run.fold(fold).read_result()["made_with"]["halvings"] for fold in (0, 1)] == [1, 1]
    run.choice.unlink()
    assert main(["fit", "--config", str(config), "--resume"]) == 0
    assert json.loads(run.choice.read_text())["halvings"] == 1  # made again
    assert main(["predict", str(run.root), "--device", "cpu"]) == 0


def test_a_step_that_fits_changes_nothing(config, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(Full, "most", 6)
    assert main(["check", "--config", str(config)]) == 0
    said = capsys.readouterr().out
    assert "out of memory" not in said
    assert "a training step of 6 images on cpu" in said  # tried on a CPU, too


def test_a_batch_of_the_validation_must_fit_too(config, capsys, monkeypatch):
    monkeypatch.setattr(Full, "most", 1000)
    monkeypatch.setattr(Full, "most_evaluated", 4)
    assert main(["check", "--config", str(config)]) == 0
    assert SAID in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--data.batch_size", "5"], "data.batch_size 5 cannot be halved: set it to a multiple of a power of two"),
        (["--data.batch_size", "18"], "data.batch_size 9 cannot be halved"),
        (["--on_out_of_memory", "error"], "With on_out_of_memory halve, a run halves its batch"),
        (["--model.optim.name", "sam"], "on_out_of_memory is halve, which accumulates gradients"),
    ],
)
def test_what_cannot_be_halved_is_an_error_with_the_edit(options, words, config, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(selection, "IN_CHILD", {"cpu"})
    assert main(["fit", "--config", str(config), *options]) == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "runs" / "tiny").exists()


def test_a_killed_process_is_out_of_memory(config, capsys, monkeypatch):
    monkeypatch.setattr(Full, "most", 1000)
    codes = [137, 0]

    def killed(children, slots):
        code = codes.pop(0)
        return in_this_process(children) if not code else {0: code}

    monkeypatch.setattr(selection, "run_children", killed)
    assert main(["check", "--config", str(config)]) == 0
    assert SAID in capsys.readouterr().out
