"""Kaggle's mounts, old and new: which folder is taken, and what is said where there is none."""

import shutil
from pathlib import Path

import pytest
import yaml

import swinft
from swinft.cli import main
from swinft.data import roots
from swinft.data.roots import resolved_root
from swinft.run.config.sections import build_parser
from swinft.run.experiment import Experiment
from swinft.run.layout import Run
from swinft.store import commit
from swinft.system.mounts import find_mount
from tests.conftest import tiny_config, write_config


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    monkeypatch.setenv("SWINFT_KAGGLE_INPUT", str(tmp_path))
    monkeypatch.setattr(roots, "_printed", set())
    for name in ("competitions/pets", "datasets/me/wheels", "datasets/me/nets", "datasets/you/nets", "old-pets"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def test_old_and_new_mounts_are_found(inputs):
    assert find_mount("old-pets") == inputs / "old-pets"
    assert find_mount("pets") == inputs / "competitions" / "pets"
    assert find_mount("wheels") == find_mount("wheels", "me") == inputs / "datasets" / "me" / "wheels"
    assert find_mount("nets", "you") == inputs / "datasets" / "you" / "nets"
    assert find_mount("pets", inputs=str(inputs)) == inputs / "competitions" / "pets"
    (inputs / "pets").mkdir()
    assert find_mount("pets") == inputs / "pets"  # as older sessions have it


@pytest.mark.parametrize(
    ("slug", "owner", "says"),
    [
        ("pet", None, "pet is not mounted below .*; there is .*old-pets, .*competitions/pets, .*datasets/me/nets"),
        ("wheels", "you", "you/wheels is not mounted"),
        ("pets", "me", "me/pets is not mounted"),
        ("nets", None, "nets is mounted from several owners: .*me/nets, .*you/nets: name the owner"),
    ],
)
def test_what_is_not_mounted_is_said_with_what_is(slug, owner, says, inputs):
    with pytest.raises(FileNotFoundError, match=says):
        find_mount(slug, owner)


def test_nothing_is_mounted_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setenv("SWINFT_KAGGLE_INPUT", str(tmp_path / "none"))
    with pytest.raises(swinft.InputError, match=r"there is nothing.*Elsewhere than on Kaggle give the folder itself"):
        resolved_root("kaggle://pets")


def test_a_root_is_a_mount_only_where_it_says_so(inputs, capsys, monkeypatch):
    monkeypatch.chdir(inputs)
    assert resolved_root("pets") == "pets"
    assert capsys.readouterr().out == ""
    for _ in range(2):
        assert resolved_root("kaggle://pets") == str(inputs / "competitions" / "pets")
        assert resolved_root("kaggle://me/nets") == str(inputs / "datasets" / "me" / "nets")
    assert capsys.readouterr().out.splitlines() == [
        f"kaggle://pets: {inputs}/competitions/pets",
        f"kaggle://me/nets: {inputs}/datasets/me/nets",
    ]
    with pytest.raises(swinft.InputError, match="is no mount: write kaggle://COMPETITION"):
        resolved_root("kaggle://a/b/c")


def test_a_run_keeps_the_name_of_its_mount(tiny_run, competition, inputs, tmp_path, capsys, monkeypatch):
    """`check` and `submit` read the mount; a run whose config names one is at home on every mount."""
    run = Run(Path(shutil.copytree(tiny_run, tmp_path / "runs" / "tiny")))
    config = run.read_config()
    config["data"]["root"] = "kaggle://pets"
    commit(run.config, yaml.safe_dump(config).encode(), "swinft fit")
    shutil.rmtree(inputs / "competitions" / "pets")
    assert main(["submit", str(run.root), "--output", str(tmp_path / "s.csv")]) == 2
    assert "kaggle://pets: pets is not mounted" in capsys.readouterr().err
    (inputs / "pets").symlink_to(competition)
    assert main(["submit", str(run.root), "--output", str(tmp_path / "s.csv")]) == 0
    assert (tmp_path / "s.csv").read_bytes() == (tiny_run / "submission.csv").read_bytes()
    assert f"kaggle://pets: {inputs}/pets" in capsys.readouterr().out
    own = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "new"))
    assert main(["check", "--config", str(own), "--data.root", "kaggle://pets"]) == 0
    assert (
        Experiment.from_argv(
            build_parser("check"), ["--config", str(own), "--data.root", "kaggle://pets"]
        ).config.data.root
        == "kaggle://pets"
    )
