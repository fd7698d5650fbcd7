"""Trials, whatever ends the process that runs them."""

import errno
import resource

import pytest

from swinft.errors import InputError, RunError, StoreError
from swinft.tuning.objective import Measured
from swinft.tuning.results import read_rows
from swinft.tuning.search import Search
from swinft.tuning.space import parse_space
from swinft.tuning.study import Folder, Settings, Study, create

GIVEN = {"a.lr": {"low": 0.1, "high": 10.0, "log": True}, "a.size": {"low": 1, "high": 9}, "a.kind": ["x", "y"]}
SPACE = parse_space(GIVEN, {"a": None, "a.lr": float, "a.size": int, "a.kind": str}, {})


class Planted:
    """Scores three folds; `stop` may raise at any step."""

    def __init__(self, stop=lambda number, step: None):
        self.stop, self.started, self.dropped = stop, [], []

    def measure(self, number, values):
        self.started.append(number)
        for step in range(3):
            self.stop(number, step)
            yield Measured(values["a.lr"] + values["a.size"] * 0.1 * step + (values["a.kind"] == "x"))

    def nested(self, numbers):
        return None

    def drop(self, number):
        self.dropped.append(number)


def opened(root, sampler="tpe", pruner="median"):
    folder = Folder(root)
    if folder.is_search():
        return Study(folder, Settings.read(folder), SPACE, None)
    settings = Settings("search", SPACE.described(), ["score"], sampler, pruner, 1, [0, 1, 2], "rmse", False)
    return create(folder, settings, SPACE, "name: search\na: {lr: 1, size: 1, kind: x}\n", None)


def searched(root, trials=8, stop=lambda number, step: None, **options):
    objective = Planted(stop)
    Search(opened(root, **options), objective, trials, 2).run()
    return objective


class Killer:
    """Raises once at each of the places, as a signal would."""

    def __init__(self, *places):
        self.places = list(places)

    def __call__(self, number, step):
        if (number, step) in self.places:
            self.places.remove((number, step))
            raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("sampler", "pruner", "trials"),
    [
        ("cmaes", "hyperband", 5),
        pytest.param("tpe", "median", 14, marks=pytest.mark.slow),  # 10 random trials come first
        pytest.param("nsga2", "percentile", 60, marks=pytest.mark.slow),  # a population is 50 trials
    ],
)
def test_a_search_that_was_killed_ends_as_if_it_had_not_been(tmp_path, sampler, pruner, trials):
    whole = searched(tmp_path / "a" / "search", trials, sampler=sampler, pruner=pruner)
    table = (tmp_path / "a" / "search" / "trials.csv").read_text()
    assert whole.started == list(range(trials))
    assert "pruned" in table
    stop = Killer((0, 0), (1, 1), (trials - 2, 0), (trials - 1, 0))
    for _ in range(len(stop.places)):
        with pytest.raises(KeyboardInterrupt):
            searched(tmp_path / "b" / "search", trials, stop, sampler=sampler, pruner=pruner)
    searched(tmp_path / "b" / "search", trials, stop, sampler=sampler, pruner=pruner)
    assert (tmp_path / "b" / "search" / "trials.csv").read_text() == table
    assert stop.places == []


@pytest.mark.slow
def test_a_trial_that_died_between_two_of_its_values_gets_the_same_ones(tmp_path, monkeypatch):
    searched(tmp_path / "a" / "search", 4, sampler="cmaes")
    number = [0]

    def dies(trial, parameter, suggested=Study._claimed.__globals__["suggested"]):
        number[0] += 1
        if number[0] in (2, 9):  # of the first trial, which is random, and of one that CMA-ES chooses
            raise KeyboardInterrupt
        return suggested(trial, parameter)

    monkeypatch.setattr("swinft.tuning.study.suggested", dies)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            searched(tmp_path / "b" / "search", 4, sampler="cmaes")
    searched(tmp_path / "b" / "search", 4, sampler="cmaes")
    tables = [(tmp_path / name / "search" / "trials.csv").read_text() for name in "ab"]
    assert tables[0] == tables[1]


def test_a_trial_is_run_by_one_process_and_taken_over_when_that_has_ended(tmp_path):
    first, second = opened(tmp_path / "search"), opened(tmp_path / "search")
    one, two = first.claim(2), second.claim(2)
    assert (one.number, two.number) == (0, 1)
    assert second.claim(2) is None  # both are run by others
    one.lock.close()
    again = second.claim(2)
    assert (again.number, again.values) == (0, one.values)


def test_a_trial_that_ends_its_process_again_and_again_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("swinft.tuning.study.MOST_STARTS", 2)

    def stop(number, step):
        if number == 0:
            raise KeyboardInterrupt

    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            searched(tmp_path / "search", 2, stop)
    searched(tmp_path / "search", 2, stop)
    states = [(row.state, row.reason) for row in read_rows(opened(tmp_path / "search"))]
    assert states == [("failed", "its process ended without a result 2 times"), ("complete", "")]


def test_failures_are_told_with_their_reason_and_the_search_goes_on(tmp_path, capsys):
    def stop(number, step):
        if number in (1, 2, 3) and step == 1:
            raise InputError(f"the size {number} does not fit.\nSet another.")

    objective = searched(tmp_path / "search", 6, stop)
    rows = read_rows(opened(tmp_path / "search"))
    assert [row.state for row in rows if row.state != "pruned"] == ["complete"] + ["failed"] * 3 + ["complete"] * 2
    assert rows[2].reason == "the size 2 does not fit.\nSet another."
    assert "trial 2: failed: the size 2 does not fit." in capsys.readouterr().out
    assert {1, 2, 3} <= set(objective.dropped)
    assert len(set(range(6)) - set(objective.dropped)) == 2  # the best two are kept


def test_three_equal_failures_from_the_start_end_the_search_with_the_cause(tmp_path):
    def stop(number, step):
        raise RunError(f"out of memory: {number}.5 GB")

    with pytest.raises(RunError, match=r"3 trials in a row failed with the same error(.|\n)*out of memory: 2\.5 GB"):
        searched(tmp_path / "search", 20, stop)
    assert len(read_rows(opened(tmp_path / "search"))) == 3
    searched(tmp_path / "search", 5)  # the cause is gone
    assert [row.state for row in read_rows(opened(tmp_path / "search"))] == ["failed"] * 3 + ["complete"] * 2


@pytest.mark.parametrize(
    "error",
    [
        RunError("oof.csv cannot be written: No space left on device."),
        RunError("/runs/oof.csv: Disk quota exceeded."),
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EIO, "Input/output error"),
        PermissionError(errno.EACCES, "Permission denied", "oof.csv"),
    ],
    ids=str,
)
def test_a_full_disk_ends_the_search_and_no_trial(error, tmp_path):
    def stop(number, step):
        raise error

    with pytest.raises(RunError, match=r"No space left|quota|Input/output|Permission"):
        searched(tmp_path / "search", 2, stop)
    assert read_rows(opened(tmp_path / "search")) == []
    assert searched(tmp_path / "search", 2).started == [0, 1]


def test_a_database_that_cannot_grow_says_what_to_do_and_keeps_the_trials(tmp_path):
    study = opened(tmp_path / "search")
    searched(tmp_path / "search", 2)

    def write() -> None:
        with study.errors_explained():
            for name in range(2000):  # until what the file has is full
                study.study.set_user_attr(str(name), "x" * 1000)

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (study.folder.database.stat().st_size, limits[1]))
    try:
        with pytest.raises(StoreError, match=r"study\.db: .*disk.*continue with: swinft tune --resume"):
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [row.number for row in read_rows(opened(tmp_path / "search"))] == [0, 1]


def test_time_that_is_over_leaves_the_trial_for_the_next_start(tmp_path):
    import time

    Search(opened(tmp_path / "search"), Planted(lambda *_: time.sleep(0.02)), 50, 1, time.monotonic() + 0.3).run()
    before = len(read_rows(opened(tmp_path / "search")))
    assert before < 50
    searched(tmp_path / "search", before + 2)
    assert [row.number for row in read_rows(opened(tmp_path / "search"))] == list(range(before + 2))


def test_a_study_of_another_folder_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    settings = Settings("search", SPACE.described(), ["score"], "tpe", "none", 1, [0], "rmse", False, False)
    first = Study(Folder(tmp_path / "a"), settings, SPACE, url)
    first.claim(1)
    other = Settings("search", SPACE.described(), ["score"], "tpe", "none", 1, [0], "rmse", False, False)
    with pytest.raises(InputError, match="of another search, with 1 trials: give this one another --name"):
        Study(Folder(tmp_path / "b"), other, SPACE, url)
