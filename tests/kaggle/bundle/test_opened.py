"""A bundle in a notebook: what is missing or has changed is said, and nothing is written beside the inputs."""

import json
import shutil
from pathlib import Path

import pytest

import swinft
from swinft.kaggle.bundle.opened import open_bundle
from swinft.run.api import open_run


@pytest.fixture
def weights(tiny_bundle, tmp_path) -> Path:
    return Path(shutil.copytree(tiny_bundle / "weights", tmp_path / "weights"))


def test_a_run_is_made_of_it_that_predicts_and_cannot_be_trained_on(weights, tmp_path, tiny_run):
    before = {path: path.stat().st_mtime_ns for path in [weights, *weights.rglob("*")]}
    opened = open_bundle(weights, tmp_path / "runs")
    assert {path: path.stat().st_mtime_ns for path in [weights, *weights.rglob("*")]} == before
    run = open_run(tmp_path / "runs" / "tiny")
    assert (opened.runs, run.folds) == (["tiny"], [0, 1])
    assert run.scores == open_run(tiny_run).scores
    with pytest.raises(swinft.InputError, match=r"has no oof\.csv yet"):
        _ = run.oof


def test_large_files_are_links(weights, tmp_path, monkeypatch):
    monkeypatch.setattr("swinft.kaggle.bundle.opened.LINKED", 40_000)
    opened = open_bundle(weights, tmp_path / "runs")
    file = opened.run("tiny").fold(0).weights
    assert file.is_symlink()
    assert not opened.run("tiny").config.is_symlink()
    assert opened.run("tiny").fold(0).is_done


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda path: path.unlink(), "tiny--fold_0--weights.safetensors is missing"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "weights.safetensors has changed: its SHA-256"),
        (lambda path: path.write_bytes(b"short"), "has 5 bytes instead of 48,824"),
        (lambda path: (path.parent / "bundle.json").unlink(), "weights has no bundle.json.*There is: dataset-meta"),
        (lambda path: (path.parent / "bundle.json").write_text("{"), "bundle.json is damaged"),
        (lambda path: (path.parent / "bundle.json").write_text('{"format": 2}'), "of another version of swinft"),
    ],
)
def test_what_is_missing_or_has_changed_is_said(edit, says, weights, tmp_path):
    edit(weights / "tiny--fold_0--weights.safetensors")
    with pytest.raises(swinft.InputError, match=says):
        open_bundle(weights, tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("change", [{"path": "../x"}, {"path": "/tmp/x"}, {"name": "../weights/bundle.json"}])
def test_no_path_leaves_its_folder(change, weights, tmp_path):
    manifest = json.loads((weights / "bundle.json").read_text())
    manifest["files"][0] |= change
    (weights / "bundle.json").write_text(json.dumps(manifest))
    with pytest.raises(swinft.InputError, match="the path leaves the folder"):
        open_bundle(weights, tmp_path / "runs")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(swinft.InputError, match="There is: nothing"):
        open_bundle(tmp_path / "nowhere", tmp_path / "runs")
