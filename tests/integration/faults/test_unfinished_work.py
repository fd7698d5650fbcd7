"""What a command has left undone when it was ended is done by the next one, also after its result is there."""

import shutil
import signal
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest

from swinft import cli
from swinft.cli import main
from swinft.data.tables.csv_lines import UnreadableError, read_bytes
from swinft.errors import InputError
from swinft.inference.provenance import read_made_from
from swinft.run.layout import Run
from swinft.store import commit
from swinft.tuning.space import parse_space
from swinft.tuning.study import Folder, Settings, create, delete
from swinft.whole_folders import new_folder, restore
from tests.conftest import in_this_process, tiny_config, write_config
from tests.integration.faults.test_other_commands import around_renames, dies_at

SPACE = parse_space({"a.lr": {"low": 0.1, "high": 10.0}}, {"a": None, "a.lr": float}, {})


@pytest.fixture(autouse=True)
def _in_process(monkeypatch):
    monkeypatch.setattr("swinft.run.fit.run_children", in_this_process)


@pytest.mark.parametrize(
    ("words", "changes", "run"),
    [
        pytest.param(["fit"], {"rounds": [{"name": "base"}]}, "base", marks=pytest.mark.slow),
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


def test_files_that_a_killed_command_has_left_are_not_suggested(tmp_path):
    """`Did you mean 'runs/.blend.unfinished'?`"""
    for name in (".blend.unfinished", ".p.csv.7@host.tmp", "plain"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").touch()
    with pytest.raises(InputError) as run:
        Run.open(tmp_path / "blend")
    with pytest.raises(UnreadableError) as table:
        read_bytes(tmp_path / "p.csv")
    with pytest.raises(UnreadableError) as folder:
        read_bytes(tmp_path / "blend" / "p.csv")
    assert "unfinished" not in str(run.value)
    assert table.value.fix == "Change the setting that names it."
    assert "Allowed: plain" in folder.value.fix


def test_a_second_interrupt_at_the_end_of_the_process_prints_no_traceback(monkeypatch):
    """It met the cleanup of torch, and was printed as an ignored exception."""
    monkeypatch.setattr(cli, "main", lambda: 130)
    monkeypatch.setattr(cli, "end_with_parent", lambda: None)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with pytest.raises(SystemExit) as stop:
            cli.entry()
        assert stop.value.code == 130
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_checkpoints_of_a_finished_fold_that_were_not_deleted_are_deleted_by_a_resume(tiny_run, tmp_path):
    """They are several times the size of the weights, and stayed for ever."""
    root = shutil.copytree(tiny_run, tmp_path / "runs" / "tiny")
    left = [root / "fold_0" / "epoch-0002.ckpt", root / "fold_1" / "epoch-0002.ckpt"]
    commit(left[0], b"with its record", "swinft fit")
    left[1].write_bytes(b"without")
    assert main(["fit", "--config", str(root / "config.yaml"), "--runs", str(tmp_path / "runs"), "--resume"]) == 0
    assert list(root.rglob("epoch-*")) == []


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


def test_a_folder_that_was_being_deleted_is_not_put_back(tmp_path, monkeypatch):
    """Its successor was there, and a person deleted that later: a part of the earlier one appeared in its place."""
    folder = tmp_path / "bundle"
    for content in ("earlier", "later"):
        with monkeypatch.context() as patch, suppress(KeyboardInterrupt), new_folder(folder, "files") as part:
            for number in range(3):
                (part / f"{number}.txt").write_text(content)
            if content == "later":
                patch.setattr("swinft.whole_folders.shutil.rmtree", dies_in_the_middle)
    assert (folder / "0.txt").read_text() == "later"
    shutil.rmtree(folder)
    restore(folder)
    assert list(tmp_path.iterdir()) == []


def dies_in_the_middle(folder: Path, **_: object) -> None:
    if folder.is_dir():
        next(folder.iterdir()).unlink()
        raise KeyboardInterrupt


REPLACED = {  # the file that a command writes, and options with which its content is another
    "predict": ("test_predictions.csv", ["--device", "cpu", "--views", "hflip"]),
    "submit": ("submission.csv", ["--predictions", "red.csv"]),
}


@pytest.mark.parametrize("command", ["predict", pytest.param("submit", marks=pytest.mark.slow)])
def test_a_file_of_a_run_that_is_replaced_always_has_its_own_provenance(command, tiny_run, tmp_path, monkeypatch):
    """Predictions of hours were refused: they had taken their place, and what they were made with was not written yet."""
    monkeypatch.chdir(tmp_path)
    root, path = tmp_path / "tiny", tmp_path / "tiny" / REPLACED[command][0]
    ids = (tiny_run / "test_predictions.csv").read_text().splitlines()[1:]
    rows = [f"{line.partition(',')[0]},0,0,1" for line in ids]
    (tmp_path / "red.csv").write_text("\n".join(["id,blue,green,red", *rows]) + "\n")
    words = [command, "tiny", *REPLACED[command][1]]

    def state() -> tuple[bytes, object]:
        return path.read_bytes(), read_made_from(path, f"swinft {command}")

    shutil.copytree(tiny_run, root)
    before = state()
    with monkeypatch.context() as patch:
        targets = around_renames(patch, lambda _: None)
        assert main(words) == 0
    after = state()
    assert before[0] != after[0]
    assert None not in (before[1], after[1])
    numbers = [number for number, target in enumerate(targets) if path.stem in target.name]
    assert len(numbers) > 4
    for number in numbers:
        shutil.rmtree(root)
        shutil.copytree(tiny_run, root)
        dies_at(number, lambda: main(words), tmp_path / "log")
        assert state() in (before, after), number
