"""The extras that a run needs to predict are found by its config."""

import tomllib

import pytest

from swinft.kaggle.bundle import extras
from swinft.kaggle.bundle.extras import PACKAGES, WORDS, used_packages
from tests.conftest import ROOT

# They do not predict: development, Kaggle's client, formats for other programs, training and looking at it alone.
NOT_TO_PREDICT = {
    "dev", "docs", "kaggle", "export", "openvino", "schedulefree", "ray", "noise", "tune",
    "wandb", "tensorboard", "mlflow", "explain",
}  # fmt: skip


def test_every_extra_that_predicts_is_known():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    found = {extra: [text.partition(">=")[0] for text in texts] for extra, texts in declared.items()}
    assert {extra: names for extra, names in found.items() if extra not in NOT_TO_PREDICT} == PACKAGES
    assert set(WORDS) == set(PACKAGES)


@pytest.mark.parametrize(
    ("data", "methods", "expected"),
    [
        ({"image": "train/{id}.jpg", "loading": {"image_rules": {"dicom": None}}}, ["power"], []),
        ({"image": "train/{id}.dcm"}, [], ["pydicom", "python-gdcm"]),
        ({"loading": {"source": "hdf5"}}, [], ["h5py"]),
        ({"test": [{"parquet": "test.pq"}, {"join": {"table": [{"hdf5": "x"}]}}]}, [], ["h5py", "pyarrow"]),
        ({"target_kind": "segmentation"}, ["lightgbm"], ["segmentation-models-pytorch", "lightgbm"]),
        ({}, ["nnls", "xgboost"], ["xgboost-cpu"]),
        ({}, ["catboost"], ["catboost"]),
    ],
)
def test_words_of_a_config_tell_of_extras(data, methods, expected, monkeypatch):
    monkeypatch.setattr(extras, "_is_installed", lambda _: True)
    assert used_packages([{"data": data}], methods) == expected


def test_what_is_not_installed_here_is_not_needed(monkeypatch):
    assert used_packages([{"data": {"image": "x.dcm"}}], []) in (["pydicom"], ["pydicom", "python-gdcm"], [])
    monkeypatch.setitem(PACKAGES, "dicom", ["no-such-package-here"])
    assert used_packages([{"data": {"image": "x.dcm"}}], []) == []
