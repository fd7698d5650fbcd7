"""Killed anywhere, resumed, and in the end nobody can tell: kill -9 end to end, and disks that fill up."""

import json
import random
import time
from pathlib import Path

import pytest

from swinft.run.layout import Run
from tests.integration.faults.harness import (
    EPOCHS,
    FOLDS,
    Point,
    arm,
    config_of,
    epochs_trained,
    in_child,
    limit_file_size,
    litter,
    outcome,
    whole_run,
)

POINTS = [
    Point("before", "config.yaml"),
    Point("torn", "folds.csv"),
    Point("renamed", "config.yaml"),
    Point("recorded", "config.yaml"),
    Point("torn", "fold_0/epoch-*.ckpt"),
    Point("written", "fold_0/epoch-*.ckpt", 1),
    Point("renamed", "fold_1/epoch-*.ckpt", 1),
    Point("recorded", "fold_1/epoch-*.ckpt"),
    Point("renamed", "fold_0/weights.safetensors"),
    Point("before", "fold_1/oof.csv"),
    Point("recorded", "fold_0/result.json"),
    Point("written", "oof.csv"),
    Point("renamed", "test_predictions.csv"),
    Point("torn", "submission.csv"),
]
RANDOM = {"fast": 1, "full": 86}


def plan(tier: str) -> list[object]:
    """Points, then random times: seeds that also decide how often the run is killed, and with how many workers."""
    return [*(POINTS if tier == "full" else POINTS[1::2]), *range(RANDOM[tier])]


def pytest_generate_tests(metafunc):
    if "kill" in metafunc.fixturenames:
        tier = metafunc.config.getoption("--faults")
        metafunc.parametrize(
            "kill", plan(tier), ids=lambda kill: str(kill) if isinstance(kill, Point) else f"time-{kill}"
        )


@pytest.fixture(scope="module")
def whole(competition, tmp_path_factory):
    """What an uninterrupted run leaves, and how many seconds it takes."""
    here = config_of(competition, tmp_path_factory.mktemp("whole"))
    assert whole_run(here) == 0  # in this process: its children find everything imported
    again = config_of(competition, tmp_path_factory.mktemp("again"))
    started = time.monotonic()
    child = in_child(lambda: whole_run(again), again.parent / "log")
    assert child.code == 0, child.text
    assert outcome(here) == outcome(again)
    return outcome(here), time.monotonic() - started


def test_both_tiers_have_the_kills_that_are_promised():
    assert (len(plan("fast")), len(plan("full"))) == (8, 100)


def test_a_killed_run_ends_as_if_it_had_not_been(kill, whole, competition, tmp_path):
    expected, seconds = whole
    random_ = random.Random(str(kill))
    # Loader processes take most of the time where they are; which kill they meet is drawn.
    config = config_of(competition, tmp_path, **{"data.loading.num_workers": random_.choice([0, 0, 0, 0, 0, 2])})
    times = (
        [None]
        if isinstance(kill, Point)
        else [random_.uniform(0, seconds) for _ in range(random_.choice([1, 1, 2, 3]))]
    )
    texts = []
    for number, seconds_left in enumerate(times):

        def work() -> int:
            if isinstance(kill, Point):
                arm(kill, tmp_path / "runs" / "tiny")
            return whole_run(config)

        child = in_child(work, tmp_path / f"log-{number}", seconds_left, group=random_.random() < 0.5)
        texts.append(child.text)
        if isinstance(kill, Point):
            assert child.code == 137, child.text
    last = in_child(lambda: whole_run(config), tmp_path / "log-last")
    assert last.code == 0, f"times {times}\n{last.text}"
    check_outcome(config, expected, [*texts, last.text], len(times))


def check_outcome(config: Path, expected: dict[str, bytes], texts: list[str], kills: int) -> None:
    """Nothing lost, nothing twice, nothing left behind."""
    for name, content in outcome(config).items():
        assert content == expected[name], name
    assert epochs_trained(texts) <= FOLDS * EPOCHS + kills
    run = Run(config.parent / "runs" / "tiny")
    assert litter(run.root) == []
    for fold in range(FOLDS):
        lines = [json.loads(line) for line in run.fold(fold).metrics.read_text().splitlines()]
        assert [line["epoch"] for line in lines] == list(range(1, EPOCHS + 1))


@pytest.mark.parametrize(
    "most",
    [
        pytest.param(1_000, id="at-once", marks=pytest.mark.slow),
        pytest.param(20_000, id="first-fold", marks=pytest.mark.slow),
        pytest.param(150_000, id="checkpoint"),
    ],
)
def test_a_full_disk_stops_the_run_and_loses_nothing(most, whole, competition, tmp_path):
    config = config_of(competition, tmp_path)

    def work() -> int:
        limit_file_size(most)
        return whole_run(config)

    full = in_child(work, tmp_path / "log-full")
    assert full.code == 1, full.text
    assert "cannot be written: File too large. What was committed before is unchanged." in full.text
    last = in_child(lambda: whole_run(config), tmp_path / "log-last")
    assert last.code == 0, last.text
    check_outcome(config, whole[0], [full.text, last.text], 1)
