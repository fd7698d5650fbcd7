"""Runs of every kind are measured, and what has no network of a row is refused."""

import shutil
from pathlib import Path

import numpy as np
import pytest

import swinft
from swinft.cli import main
from swinft.laboratory.options import LabOptions
from swinft.laboratory.subjects import RunSubject
from swinft.laboratory.table import INSTRUMENTS
from swinft.run.lock import hold
from tests.conftest import in_this_process, tiny_config, write_config


def finished(competition: Path, folder: Path, monkeypatch, **changes: object) -> Path:
    monkeypatch.setattr("swinft.run.fit.run_children", in_this_process)
    monkeypatch.setattr("swinft.run.scores.write_report", lambda *_, **__: None)
    config = write_config(folder / "c.yaml", tiny_config(competition, folder / "runs", **changes))
    assert main(["fit", "--config", str(config)]) == 0
    return folder / "runs" / "tiny"


def of_network(name: str, **arguments: object) -> dict[str, object]:
    return {"model.backbone": name, "model.backbone_args": arguments or None}


NUMBERS = {
    "data.target": "brightness",
    "data.target_kind": "regression",
    "model.head": {"class_path": "swinft.RegressionHead"},
}
CASES = {
    "regression": (NUMBERS, "swin"),
    "labels": (
        {
            "data.target": ["is_red", "is_green"],
            "data.target_kind": "multilabel",
            "model.head": {"class_path": "swinft.MultilabelHead"},
        },
        "vit",
    ),
    "metadata": (
        {
            "data.columns": {"numeric_features": ["brightness"]},
            "data.test": None,
            "data.sample_submission": None,
        },
        "resnet",
    ),
    "seeds": ({"seeds": [1, 2]}, "mixer"),
    "several images": (
        {"data.image": ["images/{id}.jpg", "images/{id}.jpg"], "model.pooling": {"images": "mean"}},
        "convnext",
    ),
    "one image of six channels": (
        {"data.image": {"path": ["images/{id}.jpg", "images/{id}.jpg"], "channels": "rgb"}},
        "resnet",
    ),
}
NETWORKS = {
    "swin": {},
    "vit": of_network("vit_tiny_patch16_224", embed_dim=12, depth=2, num_heads=2, patch_size=8),
    "resnet": of_network("resnet18", channels=[4, 4, 8, 8], layers=[2, 1, 1, 1]),
    "mixer": of_network("mixer_s16_224"),
    "convnext": of_network("convnext_atto", depths=[1, 1, 1, 1], dims=[4, 4, 8, 8]),
}
OF_RUNS = ("frequency", "variance", "lesion", "robust")


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_run_is_measured(case, competition, tmp_path, monkeypatch, without_figures):
    changes, network = CASES[case]
    run = finished(competition, tmp_path, monkeypatch, **NETWORKS[network], **changes, **{"trainer.max_epochs": 1})
    assert set(OF_RUNS) <= set(INSTRUMENTS)
    for name in OF_RUNS:
        more = {"severities": [5], "bands": 2} if name == "robust" else {}
        result = swinft.lab(name, run, rows=7, device="cpu", **more)
        lines = result.to_frame()
        assert result.summary["complete"]
        assert len(lines) > 3
        assert lines.select_dtypes("number").drop(columns=["loss"], errors="ignore").notna().any().all()
        if name in ("lesion", "robust"):
            assert (lines["changed"].iloc[1:] > 0).mean() > 0.5
            assert lines["loss"].iloc[0] == 0


def test_rows_are_those_of_the_fold_and_the_same_for_every_process(tiny_run):
    some, every = (RunSubject(str(tiny_run), LabOptions(rows=rows, fold=1, device="cpu")) for rows in (5, "all"))
    assert len(some.rows) == 5
    assert set(some.rows) <= set(every.rows)
    assert (every.data.fold_of_row[every.rows] == 1).all()
    assert (np.diff(some.rows) > 0).all()
    again = RunSubject(str(tiny_run), LabOptions(rows=5, fold=1, device="cpu"))
    assert np.array_equal(some.rows, again.rows)
    other = RunSubject(str(tiny_run), LabOptions(rows=5, fold=1, seed=1, device="cpu"))
    assert not np.array_equal(some.rows, other.rows)
    assert [batch["image"].shape[0] for batch in some.batches] == [5]


def test_an_ensemble_has_no_network(tiny_run, tmp_path, capsys):
    runs = tmp_path / "runs"
    for name in ("a", "b"):
        shutil.copytree(tiny_run, runs / name)
    words = ["--runs", str(runs), "--name", "both", "--method", "mean", "--bootstrap", "0"]
    assert main(["ensemble", str(runs / "a"), str(runs / "b"), *words]) == 0
    assert main(["lab", "variance", str(runs / "both")]) == 2
    assert "is an ensemble and has no networks: name the run of a member: a, b" in capsys.readouterr().err


def test_a_second_process_waits_or_goes_elsewhere(run, capsys):
    with hold(run / "lab" / ".locks" / "variance.variance.lock"):
        assert main(["lab", "variance", str(run), "--device", "cpu"]) == 2
    assert "choose another folder with --output" in capsys.readouterr().err
