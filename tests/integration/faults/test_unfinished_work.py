"""What a command has left undone when it was ended is done by the next one, also after its result is there."""

import sqlite3

import pytest

from swinft.cli import main
from swinft.tuning.space import parse_space
from swinft.tuning.study import Folder, Settings, create, delete
from tests.conftest import in_this_process, tiny_config, write_config

SPACE = parse_space({"a.lr": {"low": 0.1, "high": 10.0}}, {"a": None, "a.lr": float}, {})


@pytest.fixture(autouse=True)
def _in_process(monkeypatch):
    monkeypatch.setattr("swinft.run.fit.run_children", in_this_process)


@pytest.mark.parametrize(
    ("words", "changes", "run"),
    [
        (["fit"], {"rounds": [{"name": "base"}]}, "base"),
        (["tune", "--trials", "1"], {"tune": {"model.optim.lr": [1e-3]}}, "trials/0000"),
    ],
    ids=["rounds", "search"],
)
def test_a_report_that_was_not_drawn_is_drawn_after_all(words, changes, run, competition, tmp_path, monkeypatch):
    """Scores are written before it: a round, or a trial, that had them was taken for one that is finished."""
    changes = {"data.folds.num": 2, "trainer.max_epochs": 1, **changes}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    words = [*words, "--config", str(config)]
    with monkeypatch.context() as patch:
        patch.setattr("swinft.run.scores.write_report", interrupt)
        assert main(words) == 130
    folder = tmp_path / "runs" / "tiny" / run
    assert (folder / "scores.json").is_file()
    assert main([*words, "--resume"]) == 0
    assert (folder / "report.html").is_file()
    assert (folder / "errors.csv").is_file()


def test_a_search_whose_trials_are_deleted_already_is_overwritten(tmp_path, monkeypatch):
    """Its study was deleted in the database, and the command was ended before it deleted the folder."""
    url, folder = f"sqlite:///{tmp_path / 'shared.db'}", Folder(tmp_path / "search")
    settings = Settings("search", SPACE.described(), ["score"], "tpe", "none", 1, [0], "rmse", False, False)
    create(folder, settings, SPACE, "name: search\n", url)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("swinft.tuning.study.delete_folder", interrupt)
        with pytest.raises(KeyboardInterrupt):
            delete(folder, url)
    assert folder.is_search()
    delete(folder, url)
    assert not folder.root.exists()
    with sqlite3.connect(tmp_path / "shared.db") as database:
        assert database.execute("select count(*) from studies").fetchone() == (0,)
