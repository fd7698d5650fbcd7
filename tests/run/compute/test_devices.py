"""Folds side by side: who gets which device."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from jsonargparse import Namespace

from swinft.cli import main
from swinft.errors import InputError
from swinft.run.compute.devices import devices_per_fold, slots_for
from swinft.run.fit import fold_child
from swinft.run.layout import Run
from swinft.system.processes import Child, run_children
from tests.conftest import tiny_config, write_config


def config_of(devices="auto", per_fold=None, accelerator="auto"):
    return Namespace(trainer=Namespace(accelerator=accelerator, devices=devices), devices_per_fold=per_fold)


@pytest.mark.parametrize(
    ("gpus", "folds", "config", "expected"),
    [
        (0, 5, config_of(), [None]),
        (1, 5, config_of(), [None]),
        (2, 5, config_of(), ["0", "1"]),
        (2, 1, config_of(), ["0,1"]),
        (4, 3, config_of(), ["0", "1", "2"]),
        (8, 3, config_of(), ["0,1", "2,3", "4,5"]),
        (8, 3, config_of(per_fold=4), ["0,1,2,3", "4,5,6,7"]),
        (2, 5, config_of(devices=2), [None]),
        (4, 2, config_of(devices="-1"), [None]),
        (2, 5, config_of(accelerator="cpu"), [None]),
    ],
)
def test_gpus_are_shared_among_folds(gpus, folds, config, expected, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    slots = slots_for(config, devices_per_fold(config, folds), folds)
    assert [slot.get("CUDA_VISIBLE_DEVICES") for slot in slots] == expected


def test_only_the_gpus_that_are_visible_are_shared(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    assert slots_for(config_of(), 1, 2) == [{"CUDA_VISIBLE_DEVICES": "5"}, {"CUDA_VISIBLE_DEVICES": "7"}]


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (config_of(per_fold=3), "but there are 2 GPUs here"),
        (config_of(devices=2, per_fold=1), "leave trainer.devices at"),
    ],
)
def test_what_cannot_be_shared_is_refused(config, words, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match=words):
        devices_per_fold(config, 2)


@pytest.mark.slow
def test_folds_side_by_side_end_as_one_after_the_other(competition, tiny_run, tmp_path, capfd):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    assert main(["fit", "--config", str(config), "--fold", "0", "--trainer.max_epochs", "2"]) == 0
    run = Run(tmp_path / "runs" / "tiny")
    for path in run.fold(0).root.iterdir():
        if path.is_file():
            path.unlink()
    slots = [{"CUDA_VISIBLE_DEVICES": ""}, {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}]
    assert run_children({fold: fold_child(run, fold, [], {}) for fold in (0, 1)}, slots) == {0: 0, 1: 0}
    started = [line for line in capfd.readouterr().out.splitlines() if "rows to train on" in line]
    assert len(started) >= 2
    for fold in (0, 1):
        result = json.loads(run.fold(fold).result.read_text())
        expected = json.loads((tiny_run / f"fold_{fold}" / "result.json").read_text())
        assert result["oof"] == expected["oof"]


@pytest.mark.slow
def test_after_a_failure_no_other_fold_is_started(competition, tmp_path):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **{"data.folds.num": 3}))
    assert main(["fit", "--config", str(config), "--fold", "2"]) == 0
    run = Run(tmp_path / "runs" / "tiny")
    run.inputs.write_text("{}")  # every fold refuses: the frozen file is damaged
    assert run_children({fold: fold_child(run, fold, [], {}) for fold in (0, 1)}, [{}]) == {0: 1}


def test_children_run_from_any_thread():
    """Signals are the main thread's, and a notebook's widgets and servers work in others."""
    with ThreadPoolExecutor() as threads:
        assert threads.submit(run_children, {0: Child(["--version"])}, [{}]).result() == {0: 0}
