"""A competition of DICOM series and of parquet matrices: scan, cache, training and prediction see the same pixels."""

import json

import numpy as np
import pandas as pd
import pytest

from swinft.cli import main
from swinft.data.datamodule import CSVDataModule
from tests.conftest import fit_in_process, tiny_config, write_config
from tests.data.images.test_dicom import dicom, saved

LEVELS = {"first": 40, "second": 100, "third": 200}  # grey levels along the axis of a series
WINDOW = {"window": [100, 200]}


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """12 training and 4 test series of three slices, whose file names are in another order; classes by brightness."""
    root = tmp_path_factory.mktemp("studies")
    rows = []
    for number in range(16):
        id, is_bright = f"1.2.{number:02d}", number % 2
        folder = root / "series" / id
        folder.mkdir(parents=True)
        for place, (name, level) in enumerate(zip("cab", LEVELS.values(), strict=True)):
            samples = np.full((24, 20), 1000 + level * (1 if is_bright else 0.5), np.int16)
            units = {"RescaleSlope": 1, "RescaleIntercept": -1000, "InstanceNumber": place}
            data = dicom(
                samples, ImagePositionPatient=[0, 0, place], ImageOrientationPatient=[1, 0, 0, 0, 1, 0], **units
            )
            saved(folder / f"{name}.dcm", data)
        rows.append((id, ["dark", "bright"][is_bright]))
    table = pd.DataFrame(rows, columns=["id", "color"])
    table[:12].to_csv(root / "train.csv", index=False)
    table[12:][["id"]].to_csv(root / "test.csv", index=False)
    return root


def of_series(root, **loading):
    image = {"path": "series/{id}/*.dcm", "max": 3}
    settings = {"cache": False, "image_rules": WINDOW, "num_workers": 0, **loading}
    given = {"train": "train.csv", "test": "test.csv", "root": str(root), "folds": {"num": 2}, "loading": settings}
    return CSVDataModule("color", "classification", image=image, image_size=16, batch_size=4, augment="none", **given)


def test_a_series_is_shown_in_its_order_with_and_without_a_cache(studies, tmp_path):
    found = []
    for loading in ({}, {"cache": True, "cache_dir": str(tmp_path)}):
        data = of_series(studies, **loading)
        data.check()
        data.setup("fit")
        found.append(
            {
                row: image
                for batch in data.val_dataloader()
                for row, image in zip(batch["row"].tolist(), batch["image"], strict=True)
            }
        )
        data.setup("predict")
        test = next(iter(data.predict_dataloader()))["image"]
    for row, image in found[0].items():
        levels = np.rint(np.array([*LEVELS.values()]) * (1 if row % 2 else 0.5) / 200 * 255)
        assert image.float().mean((1, 2, 3)).tolist() == pytest.approx(levels.tolist(), abs=1)
        assert (image == found[1][row]).all()
    levels = np.array([*LEVELS.values()]) / 200 * 255
    assert test.float().mean((2, 3, 4))[1].tolist() == pytest.approx(levels.tolist(), abs=1)


def test_without_the_package_the_extra_is_named(studies, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(__import__("sys").modules, "pydicom", None)
    config = tiny_config(studies, tmp_path, **{"data.image": "series/{id}/a.dcm", "data.sample_submission": None})
    assert main(["check", "--config", str(write_config(tmp_path / "c.yaml", config))]) == 2
    assert "pip install 'swinft[dicom]'" in capsys.readouterr().err


@pytest.mark.slow
def test_series_train_predict_and_submit(studies, tmp_path):
    changes = {"data.image": {"path": "series/{id}/*.dcm", "max": 3}, "data.loading": {"image_rules": WINDOW}}
    changes |= {"data.sample_submission": None, "model.metrics": ["accuracy"], "trainer.max_epochs": 6}
    config = write_config(tmp_path / "c.yaml", tiny_config(studies, tmp_path / "runs", **changes))
    fit_in_process(config)
    run = tmp_path / "runs" / "tiny"
    assert main(["predict", str(run), "--device", "cpu"]) == 0
    assert main(["submit", str(run)]) == 0
    assert json.loads((run / "scores.json").read_text())["pooled"]["accuracy"] > 0.9
    assert len(pd.read_csv(run / "submission.csv")) == 4
    (studies / "series" / "1.2.00" / "a.dcm").write_bytes(b"no image")
    assert main(["check", "--config", str(config)]) == 2


def test_frames_of_one_file_are_images(tmp_path):
    frames = np.stack([np.full((24, 20), level, np.uint8) for level in LEVELS.values()])
    for id in range(8):
        saved(tmp_path / f"{id}.dcm", dicom(frames))
    pd.DataFrame({"id": range(8), "color": list("abababab")}).to_csv(tmp_path / "train.csv", index=False)
    image = {"path": "{id}.dcm", "frames": True, "max": 3}
    rest = {
        "train": "train.csv",
        "root": str(tmp_path),
        "folds": {"num": 2},
        "loading": {"num_workers": 0, "cache": False},
    }
    data = CSVDataModule("color", "classification", image=image, image_size=16, augment="none", **rest)
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    assert batch["image"].float().mean((2, 3, 4))[0].tolist() == list(LEVELS.values())


def test_matrices_are_images(tmp_path):
    values = np.random.default_rng(0).uniform(0, 1, (40, 30))
    for id in range(8):
        pd.DataFrame(values, columns=[f"LL_{k}" for k in range(30)]).to_parquet(tmp_path / f"{id}.parquet")
    pd.DataFrame({"id": range(8), "color": list("abababab")}).to_csv(tmp_path / "train.csv", index=False)
    rules = {"keep": "float32", "range": [0, 1], "columns": ["LL_*"]}
    rest = {"train": "train.csv", "root": str(tmp_path), "folds": {"num": 2}}
    loading = {"num_workers": 0, "cache": False, "image_rules": rules}
    given = {"image": "{id}.parquet", "image_size": (40, 30), "augment": "none", "loading": loading, **rest}
    data = CSVDataModule("color", "classification", **given)
    data.check()
    image = next(iter(data.val_dataloader()))["image"][0, 0]
    assert np.abs(image.numpy() / 255 - values).max() < 1e-6
