"""The fake server, and the variables that lead Kaggle's client to it."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.kaggle.fake_server import Contest, FakeKaggle

SLUG = "pet-scores"


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKaggle]:
    """A server with one competition, which the user has joined."""
    server = FakeKaggle()
    server.contests[SLUG] = Contest(
        {
            "train.csv": b"Id,Score\n007,1\n1e5,2\n",
            "sample_submission.csv": b"Id,Score\n",
            "train/007.jpg": random.Random(7).randbytes(10_000),
            "train/1e5.jpg": random.Random(5).randbytes(8_000),
        }
    )
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.delenv("KAGGLE_API_TOKEN", raising=False)
    for name, value in server.environment(home).items():
        monkeypatch.setenv(name, value)
    for module in ("client", "transfer"):
        monkeypatch.setattr(f"swinft.kaggle.{module}.sleep", server.slept.append)
    monkeypatch.chdir(tmp_path)
    yield server
    server.stop()
