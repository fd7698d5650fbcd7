"""What tests of the laboratory share."""

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def run(tiny_run, tmp_path) -> Path:
    """A copy of the tiny run, to be written into."""
    return Path(shutil.copytree(tiny_run, tmp_path / "runs" / "tiny"))


@pytest.fixture
def without_figures(monkeypatch) -> None:
    """Pages without their figures, which take longer to draw than a tiny network takes to be measured."""
    monkeypatch.setattr("swinft.pages.figures.Drawing._drawn", lambda drawing: f"<svg>{drawing.height}</svg>")
