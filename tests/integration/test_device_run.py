"""A run whose training images are augmented on the device, through the front door."""

import numpy as np
import pytest

from swinft.cli import main
from swinft.data.loading import device_loader as device
from swinft.inference.predictions import Predictions
from tests.conftest import fit_in_process, tiny_config, write_config


def fit(competition, folder, **changes):
    """A whole run; returns its out-of-fold predictions."""
    folder.mkdir(exist_ok=True)
    changes = {"data.loading.cache_dir": str(folder / "cache"), "trainer.max_epochs": 2, **changes}
    config = write_config(folder / "c.yaml", tiny_config(competition, folder / "runs", **changes))
    fit_in_process(config)
    return Predictions.read(folder / "runs" / "tiny" / "oof.csv", 3)


@pytest.mark.parametrize(
    "preset", ["light", *(pytest.param(preset, marks=pytest.mark.slow) for preset in ("medium", "crop"))]
)
def test_it_ends_where_the_same_run_on_the_cpu_ends(preset, competition, tmp_path, capsys):
    # The two learn from images that differ by rounding, and crops by their outermost pixels.
    there = fit(competition, tmp_path / "device", **{"data.augment": preset, "data.loading.augment_on": "device"})
    said = capsys.readouterr().out
    assert said.count("12 training images of ") == 2  # once for each fold
    assert said.count(" are on cpu: ") == 2
    here = fit(competition, tmp_path / "cpu", **{"data.augment": preset})
    assert "are on cpu" not in capsys.readouterr().out
    flat = fit(competition, tmp_path / "none", **{"data.augment": "none"})
    assert there.ids == here.ids == flat.ids
    near, far = (abs(there.values - other.values).max() for other in (here, flat))
    assert near < {"light": 1e-5, "medium": 0.01, "crop": 0.001}[preset]
    assert near < 0.7 * far
    run = str(tmp_path / "device" / "runs" / "tiny")
    assert main(["predict", run, "--device", "cpu"]) == 0
    assert main(["submit", run]) == 0


def test_the_number_of_loader_processes_does_not_matter(competition, tmp_path):
    changes = {"data.augment": "medium", "data.loading.augment_on": "device", "trainer.max_epochs": 1}
    outcomes = [fit(competition, tmp_path / str(n), **changes, **{"data.loading.num_workers": n}) for n in (0, 2)]
    assert np.array_equal(outcomes[0].values, outcomes[1].values)


def test_too_little_room_ends_the_run_with_both_numbers_and_what_to_change(competition, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(device, "available_memory", lambda: 20_000)
    config = write_config(
        tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **{"data.loading.augment_on": "device"})
    )
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 2
    err = capsys.readouterr().err
    assert "the training images take 0.04 MB, 40% of what is free on cpu, without 0.1" in err
    assert " MB for gradients and optimiser, are 0.00 MB." in err
    assert "data.loading.augment_on to cpu, or lower data.image_size" in err
