"""Memory and cores that a process may use."""

import pytest
import torch

from swinft.cli import main
from swinft.model import trial
from swinft.system import limits
from tests.conftest import tiny_config, write_config


def large() -> torch.Tensor:
    """More than an allocator has left of what earlier tests used; the pages are not touched."""
    return torch.empty(2**32, dtype=torch.uint8)


def test_memory_that_is_not_there_is_an_error_and_no_killed_process(monkeypatch):
    monkeypatch.setattr(limits, "available_memory", lambda: 2**28)
    with limits.within_memory(), pytest.raises(RuntimeError, match="allocate memory"):
        large()
    assert len(large()) == 2**32  # the limit is gone


def test_a_check_whose_trial_step_does_not_fit_into_memory_says_so(competition, tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    monkeypatch.setattr(limits, "available_memory", lambda: 2**28)
    monkeypatch.setattr(trial.TrialSteps, "train", lambda *_: large()[0].float())
    assert main(["check", "--config", str(config)]) == 2
    said = capsys.readouterr().err
    assert "a training step at 32 x 32 px (data.image_size) fails" in said
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
