"""torch.compile: what takes a minute on a CPU is run with `pytest -m slow`."""

import numpy as np
import pytest
import torch
from torch._dynamo.utils import counters

from swinft import ClassificationHead
from swinft.cli import main
from swinft.errors import InputError
from swinft.inference.predictions import Predictions
from swinft.model.compiling import pad_batch, should_compile
from swinft.model.settings import ComputeConfig
from swinft.model.task import FineTuneTask
from tests.conftest import tiny_config, write_config


@pytest.mark.slow
def test_a_compiled_fold_ends_near_one_that_is_not(competition, tmp_path, capsys):
    """Another order of additions, so not the same bytes; weights are saved under the same names."""
    values = []
    counters.clear()
    for name in ("plain", "compiled"):
        changes = {"model.compute.compile": name == "compiled", "name": name, "data.batch_size": 5}
        config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
        assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
        values.append(Predictions.read(tmp_path / "runs" / name / "fold_0" / "oof.csv", 3).values)
    assert "compiled, and the first step done, in" in capsys.readouterr().out
    assert counters["stats"]["unique_graphs"] == 2  # one to train, one to validate, whose last batch is not full
    np.testing.assert_allclose(values[1], values[0], atol=0.02)


@pytest.mark.parametrize(
    ("policy", "count", "device", "expected"),
    [
        (True, 1, "cpu", True),
        (False, 9999, "cuda", False),
        ("auto", 2000, "cuda", True),
        ("auto", 1999, "cuda", False),
        ("auto", 9999, "cpu", False),
    ],
)
def test_auto_compiles_long_work_on_gpus_only(policy, count, device, expected):
    said: list[str] = []
    assert should_compile(policy, count, 2000, "steps", torch.device(device), said.append) is expected
    verdict = "compiling" if expected else "not compiled"
    line = f"{verdict}: {count} steps on {device}, compiled on CUDA from 2000 steps on"
    assert said == ([line] if policy == "auto" else [])


def test_auto_on_a_cpu_says_that_it_does_not(competition, tmp_path, capsys):
    changes = {"model.compute.compile": "auto", "trainer.max_epochs": 1}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    assert "not compiled: 2 steps on cpu, compiled on CUDA from 2000 steps on" in capsys.readouterr().out


@pytest.mark.slow
def test_compiled_predictions_are_near_the_others_and_compiled_once_for_all(competition, tmp_path, capsys):
    """Two folds, a view of fractions, and a last batch that is not full: one compilation of the backbone."""
    changes = {"predict.views": ["identity", "scale"], "data.folds.num": 2, "predict.batch_size": 4}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config)]) == 0
    run = tmp_path / "runs" / "tiny"
    values = []
    for number, options in enumerate(([], ["--compile", "true"])):
        output = tmp_path / f"{number}.csv"
        counters.clear()
        assert main(["predict", str(run), "--output", str(output), *options]) == 0
        values.append(Predictions.read(output, 3).values)
    printed = capsys.readouterr().out
    assert printed.count("compiled, and the first batch predicted, in") == 1
    assert counters["stats"]["unique_graphs"] == 1
    np.testing.assert_allclose(values[1], values[0], atol=1e-2)


def test_a_batch_is_filled_up_with_its_first_row():
    pixels, features = torch.arange(6.0).view(2, 3), torch.tensor([[7.0], [8.0]])
    full = pad_batch([pixels, features], 4)
    assert torch.equal(full[0], pixels[[0, 1, 0, 0]])
    images = torch.zeros(2, 4, 4, 3).permute(0, 3, 1, 2)
    assert pad_batch([images], 3)[0].stride() == images.stride()  # else a compiled network would be compiled anew
    assert torch.equal(full[1], features[[0, 1, 0, 0]])
    assert pad_batch([pixels], 2)[0] is pixels


def test_a_word_that_is_no_policy_is_refused_in_a_notebook_too():
    with pytest.raises(InputError, match=r"model\.compute\.compile is 'always'; it must be true, false or 'auto'"):
        FineTuneTask(ClassificationHead, "resnet10t", False, num_outputs=2, compute=ComputeConfig(compile="always"))


def test_openvino_and_compile_are_refused_together(competition, tmp_path, capsys):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    run = tmp_path / "runs" / "tiny"
    options = ["--folds", "0", "--backend", "openvino", "--compile", "auto"]
    assert main(["predict", str(run), *options]) == 2
    assert "--compile is torch's, and OpenVINO always compiles" in capsys.readouterr().err
    assert main(["predict", str(run), "--folds", "0", "--compile", "auto"]) == 0
    assert "forward passes on cpu, compiled on CUDA from 4000 forward passes on" in capsys.readouterr().out
