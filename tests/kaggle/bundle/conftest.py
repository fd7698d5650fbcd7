"""A bundle of the tiny run, and the folders of a notebook on Kaggle."""

import shutil
from pathlib import Path

import pytest

from swinft.cli import main
from tests.run.ensemble.conftest import runs, three_runs  # noqa: F401  # fixtures

COMPETITION = "pet-scores"


def make(*words: str) -> int:
    return main(["bundle", *words, "--owner", "me", "--competition", COMPETITION, "--wheels", "skip"])


@pytest.fixture(scope="session")
def tiny_bundle(tiny_run, tmp_path_factory) -> Path:
    """Read it, do not change it."""
    folder = tmp_path_factory.mktemp("bundles") / "tiny"
    assert make(str(tiny_run), "--output", str(folder)) == 0
    return folder


def mount(bundle: Path, competition: Path, inputs: Path) -> Path:
    """The inputs of a notebook, as Kaggle mounts them now."""
    shutil.copytree(competition, inputs / "competitions" / COMPETITION)
    for kind in ("weights", "wheels"):
        place = inputs / "datasets" / "me" / f"swinft-tiny-{kind}"
        shutil.copytree(bundle / kind, place, ignore=shutil.ignore_patterns("dataset-metadata.json"))
    return inputs


@pytest.fixture
def _not_loaded(monkeypatch):
    """Bundles are not loaded again, and have an empty wheel: that takes most of the time."""
    module = "swinft.kaggle.bundle.make"
    monkeypatch.setattr(f"{module}._load_all", lambda *_: [])
    monkeypatch.setattr(f"{module}.own_wheel", lambda folder: write(folder / "swinft-0-py3-none-any.whl"))
    monkeypatch.setattr(f"{module}.needed_packages", lambda *_: {})


def write(path: Path) -> Path:
    path.write_bytes(b"")
    return path
