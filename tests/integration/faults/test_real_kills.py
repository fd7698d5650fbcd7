"""The command itself, its folds and their loader processes killed anywhere: resumed at once, and nobody can tell.

One kill in the suite; the forty of `python -m pytest -m slow tests/integration/faults/test_real_kills.py` take a quarter of an
hour on two idle cores. Nothing is forked from a warmed-up process here: the parent is `swinft fit` as a user starts it, and
its children are the ones that it starts.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from swinft.run.layout import Run
from swinft.store import verify
from tests.conftest import ROOT, fit_in_process, tiny_config, write_config
from tests.integration.faults.harness import FOLDS, RECIPE, litter

TARGETS = ("parent", "child", "loader", "group")
LIMIT = 300  # seconds for one attempt
ORPHAN_LIMIT = 10  # seconds after which nothing of a killed command may live
EPOCHS = 12
CHANGES = {**RECIPE, "trainer.max_epochs": EPOCHS, "data.loading.num_workers": 1}
# Whose life a kill is timed by: a parent alone, one whose fold imports, one whose fold trains.
TIMED_BY = {"parent": TARGETS[:3], "child": TARGETS[1:3], "loader": TARGETS[2:3], "group": TARGETS[:3]}
MOST_SECONDS = {"parent": 8.0, "child": 6.0, "loader": 1.5}


def config_of(competition: Path, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return write_config(folder / "c.yaml", tiny_config(competition, folder / "runs", **CHANGES))


class Attempt:
    """`swinft fit` in a process group of its own, with all that it starts."""

    def __init__(self, config: Path) -> None:
        self.run = Run(config.parent / "runs" / "tiny")
        resume = ["--resume"] if self.run.root.exists() else []
        command = [sys.executable, "-m", "swinft", "fit", "--config", str(config), *resume]
        self.log = (config.parent / "log").open("ab")
        # What is left of a killed command would show itself by this word in its environment.
        self.mark = f"SWINFT_TEST_MARK={os.getpid()}.{id(self)}.{time.monotonic_ns()}"
        environment = {**os.environ, "SWINFT_TEST_MARK": self.mark.partition("=")[2]}
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=self.log, stderr=self.log, start_new_session=True
        )

    def marked(self) -> dict[int, int]:
        """The processes of this attempt that live, with their parents."""
        found = {}
        for folder in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                if self.mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                    state, parent = (folder / "stat").read_text().rsplit(")", 1)[1].split()[:2]
                    if state not in "ZX":
                        found[int(folder.name)] = int(parent)
        return found

    def members(self, target: str) -> list[int]:
        """The processes that a kill is aimed at; empty where there is none at the moment."""
        living, parent = self.marked(), self.process.pid
        children = [pid for pid, above in living.items() if above == parent]
        loaders = [pid for pid, above in living.items() if above in children]
        return {"parent": [parent], "child": children, "loader": loaders, "group": list(living)}[target]

    def kill(self, target: str, timed_by: str, after: float) -> bool:
        """Kills somebody some seconds after somebody has started; False where the command ended before."""
        killed = False
        while not killed and self.process.poll() is None:
            if self.members(timed_by):
                time.sleep(after)
                members = self.members(target)
                for pid in members if target == "group" else members[:1]:
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        killed = True
            time.sleep(0.01)
        return killed

    def orphans(self, since: float) -> dict[int, int]:
        """What lives some seconds after the command was gone."""
        while (left := self.marked()) and time.monotonic() < since + ORPHAN_LIMIT:
            time.sleep(0.05)
        return left


def outcome(config: Path) -> dict[str, bytes]:
    """The bytes of everything that must not depend on interruptions."""
    run = Run(config.parent / "runs" / "tiny")
    paths = [run.oof, run.folds, *(run.fold(k).weights for k in range(FOLDS)), *(run.fold(k).oof for k in range(FOLDS))]
    return {str(path.relative_to(run.root)): verify(path).read_bytes() for path in paths}


@pytest.fixture(scope="module")
def whole(competition, tmp_path_factory):
    """What a run leaves that nobody interrupts."""
    config = config_of(competition, tmp_path_factory.mktemp("whole"))
    fit_in_process(config)
    return outcome(config)


def kill_until_done(config: Path, targets: list[str], random_: random.Random, in_training: bool = False) -> list[str]:
    """Starts the command again and again, at once, until it ends by itself; each is killed, as long as there are targets.

    Args:
        config: The config.
        targets: Whom to kill in each attempt.
        random_: Decides when.
        in_training: Only while a fold trains.

    Returns:
        Whom the kills met.
    """
    met, gone = [], []
    while True:
        attempt = Attempt(config)
        try:
            target = targets[len(met)] if len(met) < len(targets) else None
            if target:
                timed_by = "loader" if in_training else random_.choice(TIMED_BY[target])
                if attempt.kill(target, timed_by, random_.uniform(0, MOST_SECONDS[timed_by])):
                    met.append(target)
            code = attempt.process.wait(timeout=LIMIT)
            gone.append((attempt, time.monotonic()))
            if code == 0:
                return met
            said = (config.parent / "log").read_text()
            assert target, f"ended with {code} although nobody killed it\n{said[-3000:]}"
        finally:
            attempt.log.close()
            if attempt.process.poll() is None:  # the test itself is stopped
                os.killpg(attempt.process.pid, signal.SIGKILL)
            for each, since in gone[:-1] if attempt.process.poll() != 0 else gone:
                assert not each.orphans(since)  # of the last one only later: the next is started at once


def check(config: Path, expected: dict[str, bytes], kills: int) -> None:
    """The bytes of an uninterrupted run, nothing left over, and a log of all epochs but those that a kill met.

    A kill after an epoch's checkpoint and before its line in the log loses the line; the resumed fold does not repeat it.
    """
    for name, content in outcome(config).items():
        assert content == expected[name], name
    run = Run(config.parent / "runs" / "tiny")
    assert litter(run.root) == []
    for fold in range(FOLDS):
        said = run.fold(fold).log.read_text()
        assert sum(f"epoch {epoch}/{EPOCHS}" in said for epoch in range(1, EPOCHS + 1)) >= EPOCHS - kills
        lines = [json.loads(line)["epoch"] for line in run.fold(fold).metrics.read_text().splitlines()]
        assert lines == list(range(1, EPOCHS + 1))


@pytest.mark.slow
def test_f047_the_real_command_is_killed_and_nobody_can_tell(whole, competition, tmp_path):
    config = config_of(competition, tmp_path)
    assert kill_until_done(config, ["parent"], random.Random(0), in_training=True) == ["parent"]
    check(config, whole, 1)


@pytest.mark.slow
@pytest.mark.parametrize("number", range(10))
def test_f047_the_real_command_is_killed_forty_times_and_nobody_can_tell(number, whole, competition, tmp_path):
    """Ten runs of four kills, one of each kind in another order."""
    random_ = random.Random(number)
    targets = random_.sample(TARGETS, len(TARGETS))
    config = config_of(competition, tmp_path)
    assert kill_until_done(config, targets, random_) == targets
    check(config, whole, len(targets))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["f047", "f048"])
def test_a_signal_to_the_command_alone_ends_its_folds(number, competition, tmp_path):
    """While a fold has hours to go."""
    folder = tmp_path / "long"
    folder.mkdir()
    changes = {**CHANGES, "trainer.max_epochs": 100_000}
    attempt = Attempt(write_config(folder / "c.yaml", tiny_config(competition, folder / "runs", **changes)))
    try:
        until = time.monotonic() + LIMIT
        while " epoch 2/" not in (folder / "log").read_text() and time.monotonic() < until:
            assert attempt.process.poll() is None, (folder / "log").read_text()
            time.sleep(0.1)
        os.kill(attempt.process.pid, number)
        code = attempt.process.wait(timeout=15)
        assert code == (130 if number == signal.SIGINT else -number)
        assert not attempt.orphans(time.monotonic())
    finally:
        attempt.log.close()
        for pid in attempt.marked():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
