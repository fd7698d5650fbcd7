"""torch.compile, which takes a minute on a CPU: run with `pytest -m slow`."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from swinft.cli import main
from swinft.model.task import FineTuneTask
from swinft.run.predictions import read_predictions, values_of
from tests.conftest import tiny_config, write_config


@pytest.mark.slow
def test_a_compiled_fold_ends_near_one_that_is_not(competition, tmp_path, capsys):
    """Another order of additions, so not the same bytes; weights are saved under the same names."""
    values = []
    for name in ("plain", "compiled"):
        changes = {"model.compile": name == "compiled", "name": name, "data.batch_size": 5}
        config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
        assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
        values.append(values_of(read_predictions(tmp_path / "runs" / name / "fold_0" / "oof.csv", 3), 3))
    assert "compiled, and the first step done, in" in capsys.readouterr().out
    np.testing.assert_allclose(values[1], values[0], atol=0.02)


@pytest.mark.parametrize(
    ("device", "steps", "compiles"), [("cuda", 2000, True), ("cuda", 1999, False), ("cpu", 9999, False)]
)
def test_auto_compiles_long_trainings_on_gpus_only(device, steps, compiles):
    said = []
    trainer = SimpleNamespace(estimated_stepping_batches=steps)
    task = SimpleNamespace(compile_policy="auto", device=torch.device(device), trainer=trainer, print=said.append)
    assert FineTuneTask._compiles(task) is compiles
    assert f"{steps} steps on {device}, compiled on CUDA from 2000 steps on" in said[0]


def test_auto_on_a_cpu_says_that_it_does_not(competition, tmp_path, capsys):
    changes = {"model.compile": "auto", "trainer.max_epochs": 1}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    assert "not compiled: 2 steps on cpu" in capsys.readouterr().out
