"""Runs whose predictions are made up: copies of one tiny run, each with noise of its own on the truth."""

import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from swinft.inference.predictions import Predictions
from swinft.inference.provenance import PREDICT, read_provenance
from swinft.run.layout import Run
from swinft.run.provenance import write_made_from


def write_test(run: Run, values: np.ndarray) -> None:
    """New test predictions of a run, as `swinft predict` writes them."""
    found = Predictions.read(run.test_predictions, values.shape[1])
    made_with = read_provenance(run.test_predictions)
    content = Predictions(found.ids, values, found.outputs).to_bytes()
    write_made_from(run, run.test_predictions, content, PREDICT, {"rows": len(values), "provenance": asdict(made_with)})


def write_oof(run: Run, values: np.ndarray) -> None:
    found = Predictions.read(run.oof, values.shape[1])
    Predictions(found.ids, values, found.outputs, found.fold, found.status).write(run.oof, "swinft fit")


def disturbed(truth: np.ndarray, noise: float, seed: int) -> np.ndarray:
    """Probabilities of three classes: the truth and noise."""
    logits = 2 * np.eye(3)[truth] + np.random.default_rng(seed).normal(0, noise, (len(truth), 3))
    powers = np.exp(logits)
    return (powers / powers.sum(1, keepdims=True)).astype(np.float32)


def make_runs(tiny_run: Path, competition: Path, folder: Path, noises: dict[str, float]) -> Path:
    """The folder of these runs."""
    colors = ["blue", "green", "red"]
    table = pd.read_csv(competition / "train.csv", dtype=str)
    truth = table["color"].map(colors.index).to_numpy()
    for seed, (name, noise) in enumerate(noises.items()):
        run = Run(Path(shutil.copytree(tiny_run, folder / name)))
        write_oof(run, disturbed(truth, noise, seed))
        write_test(run, disturbed(np.arange(6) % 3, noise, seed + 100))
    return folder


@pytest.fixture(scope="session")
def three_runs(tiny_run, competition, tmp_path_factory) -> Path:
    """The folder of three runs, `a` to `c`. Read them, do not change them."""
    return make_runs(tiny_run, competition, tmp_path_factory.mktemp("runs"), {"a": 1.5, "b": 2.0, "c": 2.5})


@pytest.fixture
def runs(three_runs, tmp_path) -> Path:
    """A copy of the three runs, to be changed."""
    return Path(shutil.copytree(three_runs, tmp_path / "runs"))
