"""Memory and cores that a process may use."""

import pytest
import torch

from swinft.cli import main
from swinft.model import trial
from swinft.system import limits
from tests.conftest import tiny_config, write_config


def test_memory_that_is_not_there_is_an_error_and_no_killed_process(monkeypatch):
    monkeypatch.setattr(limits, "available_memory", lambda: 2**28)
    with limits.within_memory(), pytest.raises(RuntimeError, match="allocate memory"):
        torch.ones(2**28)
    assert len(torch.ones(2**28)) == 2**28  # the limit is gone


def test_a_check_whose_trial_step_does_not_fit_into_memory_says_so(competition, tmp_path, monkeypatch, capsys):
    config = tiny_config(competition, tmp_path / "runs", **{"data.image_size": 1024, "model.ema_decay": None})
    path = write_config(tmp_path / "c.yaml", config)
    monkeypatch.setattr(limits, "available_memory", lambda: 2**24)
    assert main(["check", "--config", str(path)]) == 2
    said = capsys.readouterr().err
    assert "cannot work at 1024 x 1024 px (data.image_size)" in said
    assert "allocate memory" in said


def test_a_trial_step_with_large_images_computes_activations_again(competition, tmp_path, monkeypatch):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    tried = []
    try_step = trial.try_step

    def watched(task, *given):
        seconds = try_step(task, *given)
        tried.append(any(layer.grad_checkpointing for layer in task.net.backbone.model.layers))
        return seconds

    monkeypatch.setattr("swinft.run.check.try_step", watched)
    assert main(["check", "--config", str(config)]) == 0
    monkeypatch.setattr(trial, "LARGE", 1000)
    assert main(["check", "--config", str(config)]) == 0
    assert tried == [False, True]
