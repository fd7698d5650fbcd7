"""What a search shows while its trials run, and the time that it says is left."""

import re
import sys
from types import SimpleNamespace

import pytest

from swinft.cli import main
from swinft.system import overview
from swinft.system.overview import Overview
from swinft.system.processes import Child, run_children
from swinft.system.shown import Following
from swinft.system.status import Status
from swinft.tuning import search_view
from swinft.tuning.objective import Measured
from swinft.tuning.search import Search
from swinft.tuning.search_view import SearchTimes, SearchView
from swinft.tuning.study import Settings
from tests.clock import Clock
from tests.conftest import PYTHON_LINE, tiny_config, write_config
from tests.terminals import plain
from tests.tuning.test_search import opened


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(overview, "time", clock)
    monkeypatch.setattr(search_view, "time", clock)
    monkeypatch.setattr("swinft.tuning.search.time", clock)
    return clock


class Trained:
    """Two folds of 100 s each; halfway through a fold its processes have said where they are."""

    def __init__(self, clock, view, fails=()):
        self._clock, self._view, self._fails = clock, view, fails

    def measure(self, number, values):
        for fold in range(2):
            folds = Overview({fold: f"fold {fold}"}, 1, more=1 - fold, began=self._clock.now)
            folds.started(fold)
            self._clock.now += 50.0
            told = Status(f"fold {fold}", "epoch 2/4", 5, 10, 7.5, 0.5, "rmse", 0.25, 0.125, left=50.0, whole=100.0)
            folds.heard(fold, told)
            print("to the log")
            self._view.show(folds)
            self._clock.now += 50.0
            if number in self._fails:
                raise ValueError("[red]no\x1b[2J")
            yield Measured(1.0 + number)

    def nested(self, numbers):
        return None

    def drop(self, number):
        pass


def test_a_search_shows_the_folds_of_its_trial_and_what_is_left(terminal, clock, tmp_path, monkeypatch):
    monkeypatch.setattr(search_view, "READ_SECONDS", 0.0)
    terminal.attach()
    study = opened(tmp_path / "search")
    view = SearchView(SearchTimes(study, 3))
    Search(study, Trained(clock, view, fails=(1,)), 3, 1, view=view).run()
    written = plain(terminal.close())
    row = r"trial {} fold {}  epoch 2/4 .* 5/10 .* 0\.25 +0\.125 +{}"
    # Two trials are still to come, of 200 s each, as the first one expects of itself.
    assert re.search(row.format(0, 0, "50s") + r"\S*\s+left for the search: at most 9m; 0 of 3 trials done", written)
    assert re.search(row.format(0, 1, "50s") + r"\S*\s+left for the search: at most 8m; 0 of 3 trials done", written)
    assert re.search(
        row.format(2, 1, "50s")
        + r"\S*\s+left for the search: at most 50s; 2 of 3 trials done; best 1\.0000 of trial 0; "
        "1 failed",
        written,
    )
    screen = [line for line in terminal.screen() if line]
    assert next(line for line in screen if not line.startswith("trial 0: a.lr")).endswith(
        "trial 0: 1.0000 in 3m 20s; best: 1.0000 of trial 0; left for the search: at most 6m 40s"
    )
    assert "trial 1: failed: ValueError: [red]no\\x1b[2J; left for the search: at most 3m 20s" in screen
    assert screen[-1].startswith("trial 2: 3.0000 in 3m 20s; best: 1.0000 of trial 0")
    assert not [line for line in screen if "fold" in line or "trials done" in line]
    assert (tmp_path / "search" / "logs" / "0000.txt").read_text() == "to the log\n" * 2


def test_a_pipe_gets_only_lines(clock, tmp_path, capsys):
    study = opened(tmp_path / "search", pruner="none")
    view = SearchView(SearchTimes(study, 2))
    Search(study, Trained(clock, view), 2, 1, view=view).run()
    assert [line.partition("; left")[2] for line in capsys.readouterr().out.splitlines()] == [
        "", " for the search: 3m 20s", "", ""
    ]  # fmt: skip


@pytest.fixture
def planted(monkeypatch):
    """A search with some complete trials of 100 s each, and others that run."""

    def make(complete, running):
        rows = [search_view.Row(number, "complete", 3, 1.0, {}, {}, took=100.0) for number in range(complete)]
        monkeypatch.setattr(search_view, "read_rows", lambda _: rows)
        settings = Settings("search", {}, ["score"], "tpe", "median", 1, [0, 1, 2], "rmse", False)
        return SimpleNamespace(settings=settings, trials=lambda: [None] * (complete + running))

    return make


def test_hours_and_jobs_limit_the_time_left(clock, planted):
    study = planted(2, 2)
    running = [Status("trial 2 fold 0", left=30.0, whole=90.0), Status("trial 3 fold 0")]
    times = SearchTimes(study, 9, 2)
    times.read()
    assert times.left(running) == (30 + 100 + 100 + 100, False)  # at 30 and 50; then 130, 150, 230, 250, 330
    assert times.left(running[:1]) == (30 + 100 + 100 + 100, False)  # the other one runs elsewhere
    limited = SearchTimes(study, 9, 2, until=60.0)
    limited.read()
    assert limited.left(running) == (60.0, False)
    assert SearchTimes(study, 9, 2).describe_left([]) == "not yet known"


# A process of `tune --jobs`: it tells its parent where its trial is, and prints a line when that ends.
JOB = f"""{PYTHON_LINE}
import sys, time
from swinft.system.live import LiveLine
from swinft.system.orphans import end_with_parent
from swinft.system.status import Status
end_with_parent()
line = LiveLine()
for number in range(2):
    line.show(Status(f"trial {{sys.argv[3]}} fold {{number}}", "epoch 1/2", 1, 2, left=100.0, whole=200.0))
    time.sleep(0.55)
print("trial", sys.argv[3], "done")
"""


def test_parallel_trials_are_rows_of_one_view(terminal, planted, tmp_path, monkeypatch):
    stub = tmp_path / "stub"
    stub.write_text(JOB)
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))
    times = SearchTimes(planted(0, 2), 6, 2)
    terminal.attach()
    children = {number: Child([str(number)]) for number in range(2)}
    assert run_children(children, [{}, {}], following=Following(footer=times.footer)) == {0: 0, 1: 0}
    written = plain(terminal.close())
    both = r"trial 0 fold \d  epoch 1/2 .* 1m \d+s\S*\s+trial 1 fold \d  epoch 1/2 .* 1m \d+s\S*\s+"
    assert re.search(both + r"left for the search: at most [\dm]+; 0 of 6 trials done", written)
    assert sorted(filter(None, terminal.screen())) == ["trial 0 done", "trial 1 done"]


@pytest.mark.slow  # a minute: five processes that import torch
def test_tune_with_jobs_shows_both_trials_with_their_folds(terminal, competition, tmp_path, capfd):
    space = {"model.optim.lr": {"low": 1e-4, "high": 1e-2, "log": True}}
    changes = {"trainer.max_epochs": 150, "tune": space}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    terminal.attach()
    words = ["tune", "--config", str(config), "--trials", "3", "--jobs", "2", "--pruner", "none", "--folds", "0"]
    assert main(words) == 0
    written = plain(terminal.close())
    assert "left for the search: not yet known; 0 of 3 trials done" in written
    both = r"trial 0 [^\n]*\n[^\n]*trial 1 [^\n]*\n[^\n]*left for the search: [^;]+; 0 of 3 trials done"
    assert re.search(both, written)
    for trial in range(3):  # one of them may wait for its imports while the other one trains
        assert re.search(rf"trial {trial} fold 0  (epoch \d+/150|validation) .* 1/2 .*\d GB +\S*[smh]", written)
    assert re.search(r"; 2 of 3 trials done; best \d\.\d+ of trial \d", written)
    assert len(re.findall(r"trial \d: \d\.\d+ in [\dms. ]+; best: \d\.\d+ of trial \d", written)) == 3
    assert not [line for line in terminal.screen() if "left for the search: " in line and "trials done" in line]
    logs = "".join(path.read_text() for path in (tmp_path / "runs" / "tiny" / "logs").iterdir())
    assert "fold 0  epoch 150/150" in logs
    assert not re.search(r"\x1b|\x1e|trials done", logs + "".join(capfd.readouterr()))
