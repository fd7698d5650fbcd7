"""A finished run with its embeddings, and a support vector machine on them."""

import shutil
from pathlib import Path

import pytest

from swinft.cli import main

QUICK = ["--device", "cpu", "--bootstrap", "20"]
FOLDER = Path("embeddings") / "pooled-identity"


@pytest.fixture(scope="session")
def fitted_runs(tiny_run, tmp_path_factory) -> Path:
    """The folder of the run `tiny`, which has embeddings, and of `svr`, fitted on them. Read it, do not change it."""
    runs = tmp_path_factory.mktemp("embedded")
    run = Path(shutil.copytree(tiny_run, runs / "tiny"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("swinft.run.embed.member.write_report", lambda *_: None)  # its figures take long
        assert main(["embed", str(run), "--fit", "svr", "--name", "svr", *QUICK]) == 0
    return runs


@pytest.fixture
def runs(fitted_runs, tmp_path) -> Path:
    """A copy, to be changed."""
    return Path(shutil.copytree(fitted_runs, tmp_path / "runs"))
