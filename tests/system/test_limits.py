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
    """And the measurements behind it, with the same task, do as the config says."""
    path, tried, left = tmp_path / "c.yaml", [], []
    train, try_step = trial.TrialSteps.train, trial.try_step

    def recomputes(task):
        return any(layer.grad_checkpointing for layer in task.net.backbone.model.layers)

    def watched(steps, batch):
        tried.append(recomputes(steps._task))
        return train(steps, batch)

    def finished(task, *given):
        seconds = try_step(task, *given)
        left.append(recomputes(task))
        return seconds

    monkeypatch.setattr(trial.TrialSteps, "train", watched)
    monkeypatch.setattr("swinft.run.check.try_step", finished)
    for most, configured in ((trial.LARGE, False), (1000, False), (1000, True)):
        changes = {"model.compute": {"grad_checkpointing": configured}}
        write_config(path, tiny_config(competition, tmp_path / "runs", **changes))
        monkeypatch.setattr(trial, "LARGE", most)
        assert main(["check", "--config", str(path)]) == 0
    assert tried == [False, True, True]
    assert left == [False, False, True]
