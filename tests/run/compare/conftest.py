"""Runs whose predictions are made up, as those of the tests of ensembles."""

from pathlib import Path

import pytest

from tests.run.ensemble.conftest import make_runs


@pytest.fixture(scope="session")
def three(tiny_run, competition, tmp_path_factory) -> Path:
    """The folder of three runs, `a` to `c`. Read them, do not change them."""
    return make_runs(tiny_run, competition, tmp_path_factory.mktemp("three"), {"a": 1.5, "b": 2.0, "c": 2.5})
