"""Commands besides `fit` and `predict` that die, or whose disk is full: the same command then ends as if undisturbed."""

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from swinft import cli
from swinft.cli import main
from swinft.store import verify
from swinft.whole_files import is_temporary
from tests.conftest import tiny_config, write_config
from tests.integration.faults.harness import in_child
from tests.kaggle.bundle.conftest import _not_loaded, make  # noqa: F401  # a fixture

WORDS = {
    "submit": ["submit", "RUN", "--output", "out/s.csv"],
    "predict": ["predict", "RUN", "--device", "cpu", "--output", "out/p.csv"],
    "safetensors": ["export", "RUN", "--fold", "0", "--to", "safetensors", "--output", "out/model.safetensors"],
    "timm": ["export", "RUN", "--fold", "0", "--to", "timm", "--output", "out/model.safetensors"],
}


def around_renames(patch: pytest.MonkeyPatch, before: Callable[[int], None]) -> list[Path]:
    """Calls `before` with the number of each rename; returns the targets of the renames so far."""
    targets: list[Path] = []

    def counted(operation: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def renamed(path: Path, target: Path) -> Path:
            targets.append(Path(target))
            before(len(targets) - 1)
            return operation(path, target)

        return renamed

    for name in ("replace", "rename"):
        patch.setattr(Path, name, counted(getattr(Path, name)))
    return targets


def dies_at(number: int, work: Callable[[], int], log: Path) -> None:
    """The work in a process that dies before a rename."""

    def die() -> int:
        around_renames(pytest.MonkeyPatch(), lambda now: os._exit(137) if now == number else None)
        return work()

    assert in_child(die, log).code == 137


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def place(tiny_run, tmp_path, monkeypatch) -> Iterator[Path]:
    """The working folder, with a run in it."""
    shutil.copytree(tiny_run.parent, tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not [path for path in tmp_path.rglob("*") if is_temporary(path.name)]


@pytest.mark.parametrize(
    ("command", "is_new"),
    [
        ("submit", True),
        ("submit", False),
        ("timm", True),
        pytest.param("timm", False, marks=pytest.mark.slow),
        pytest.param("predict", False, marks=pytest.mark.slow),
        pytest.param("safetensors", False, marks=pytest.mark.slow),
    ],
)
def test_files_outside_a_run_are_written_by_the_command_that_died(command, is_new, place, tmp_path_factory):
    """It was refused for ever: the file was not as the command had written it, since what describes it was missing."""
    words = ["runs/tiny" if word == "RUN" else word for word in WORDS[command]]
    with pytest.MonkeyPatch.context() as patch:
        targets = around_renames(patch, lambda _: None)
        assert main(words) == 0
    files = content(place / "out")
    own = [number for number, path in enumerate(targets) if path.name in files]
    assert len(own) == len(files) > 1
    for number in [own[-1]] if is_new else own[1:]:
        if is_new:
            shutil.rmtree(place / "out")
        dies_at(number, lambda: main(words), tmp_path_factory.mktemp("log") / "log")
        assert main(words) == 0, number
        assert content(place / "out") == files


def test_a_file_of_somebody_else_is_not_taken_for_one_of_a_command_that_died(place, tmp_path_factory, capsys):
    words = ["runs/tiny" if word == "RUN" else word for word in WORDS["submit"]]
    assert main(words) == 0
    dies_at(3, lambda: main(words), tmp_path_factory.mktemp("log") / "log")
    (place / "out" / "s.csv").write_text("mine")
    assert main(words) == 2
    assert "it is not overwritten" in capsys.readouterr().err
    assert (place / "out" / "s.csv").read_text() == "mine"
    (place / "out" / "s.csv").unlink()
    assert main(words) == 0


def test_maps_of_somebody_else_are_not_overwritten(place, capsys):
    (place / "out").mkdir()
    np.save(place / "out" / "p.maps.npy", np.ones(3))
    assert main(["predict", "runs/tiny", "--device", "cpu", "--output", "out/p.csv"]) == 2
    assert "p.maps.npy already exists" in capsys.readouterr().err


def swap(targets: list[Path], name: str) -> int:
    """Number of the rename that puts a folder in the place of the earlier one, which is away then."""
    return max(number for number, path in enumerate(targets) if path.name == name)


@pytest.mark.usefixtures("_not_loaded")
@pytest.mark.parametrize("how", ["dies", "interrupted"])
def test_a_bundle_that_is_replaced_is_never_lost(how, place, tmp_path_factory, capsys):
    """Ctrl-C deleted the earlier bundle and the new one; a kill hid the earlier one, and the next start deleted it."""
    words = ["runs/tiny", "--output", "b"]
    assert make(*words, "--title", "Earlier one") == 0
    earlier = content(place / "b")
    with pytest.MonkeyPatch.context() as patch:
        targets = around_renames(patch, lambda _: None)
        assert make(*words, "--overwrite") == 0
    whole, number = content(place / "b"), swap(targets, "b")
    assert whole != earlier
    assert make(*words, "--title", "Earlier one", "--overwrite") == 0
    if how == "dies":
        dies_at(number, lambda: make(*words, "--overwrite"), tmp_path_factory.mktemp("log") / "log")
    else:

        def interrupt(now: int) -> None:
            if now == number:
                raise KeyboardInterrupt

        with pytest.MonkeyPatch.context() as patch:
            around_renames(patch, interrupt)
            assert make(*words, "--overwrite") == 130
        assert content(place / "b") == earlier
    assert make(*words) == 2  # as it exists
    assert content(place / "b") == earlier
    assert make(*words, "--overwrite") == 0
    assert content(place / "b") == whole
    assert sorted(path.name for path in place.iterdir()) == ["b", "runs"]


def test_an_ensemble_that_is_replaced_is_never_lost(place, tmp_path_factory, monkeypatch, capsys):
    monkeypatch.setattr("swinft.run.ensemble.ensemble.write_report", lambda *_: None)
    shutil.copytree(place / "runs" / "tiny", place / "runs" / "other")
    words = ["ensemble", "runs/tiny", "runs/other", "--name", "e", "--bootstrap", "20", "--leave-one-out", "false"]
    assert main([*words, "--method", "mean"]) == 0
    earlier = content(place / "runs" / "e")
    with pytest.MonkeyPatch.context() as patch:
        targets = around_renames(patch, lambda _: None)
        assert main([*words, "--method", "mean", "--overwrite"]) == 0
    log = tmp_path_factory.mktemp("log") / "log"
    dies_at(swap(targets, "e"), lambda: main([*words, "--method", "mean", "--overwrite"]), log)
    assert not (place / "runs" / "e").exists()
    assert main(["submit", "runs/e"]) == 2
    assert "the same command puts the earlier one back" in capsys.readouterr().err
    assert main(words) == 2  # as it exists
    assert content(place / "runs" / "e") == earlier
    assert main(["submit", "runs/e"]) == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_what_was_committed_stays_if_its_successor_cannot_be_put_in_its_place(number, place, capsys, monkeypatch):
    """Its record was deleted before, so that it could not be read any more."""
    path = place / "runs" / "tiny" / "test_predictions.csv"
    before = path.read_bytes()

    def fail(_: int) -> None:
        if targets[-1].name == path.name:
            raise OSError(number, os.strerror(number))

    with pytest.MonkeyPatch.context() as patch:
        targets = around_renames(patch, fail)
        assert main(["predict", "runs/tiny", "--device", "cpu", "--views", "hflip"]) == 1
    assert "What was committed before is unchanged" in capsys.readouterr().err
    assert verify(path).read_bytes() == before
    assert main(["submit", "runs/tiny"]) == 0


def test_a_proposed_config_is_whole_or_absent(place, competition, capsys):
    words = ["new", "x", "--data", str(competition), "--no-check", "true"]
    assert main(words) == 0
    path = place / "configs" / "x.yaml"
    before = path.read_bytes()

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        around_renames(patch, fail)
        assert main([*words, "--overwrite", "true"]) == 1
    said = capsys.readouterr().err
    assert "x.yaml cannot be written: No space left on device" in said
    assert "Traceback" not in said
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "words",
    [
        ["ensemble", "runs/tiny", "--name", "e"],
        ["embed", "runs/tiny", "--fit", "ridge", "--name", "f"],
        ["lab", "variance", "runs/tiny"],
        ["report", "runs/tiny"],
    ],
    ids=lambda words: words[0],
)
def test_a_full_disk_is_no_traceback(words, place, monkeypatch, capsys):
    """Not even where the lock of a command is the first file that does not fit."""

    def full(path: Path, *given: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr("swinft.run.lock.Path.write_text", full)
    assert main(words) == 1
    said = capsys.readouterr().err
    assert "No space left on device. Free some space, and run the command again." in said
    assert len(said.splitlines()) == 1


def test_other_errors_of_the_system_keep_their_traceback(monkeypatch):
    def fail(_: list[str]) -> None:
        raise OSError(errno.EBADF, "a fault of the program")

    monkeypatch.setattr(cli, "_command", lambda _: fail)
    with pytest.raises(OSError, match="a fault of the program"):
        main(["runs"])


def test_a_table_that_changes_while_the_images_are_checked_is_an_error(competition, tmp_path, monkeypatch, capsys):
    """Its new SHA-256 was recorded: folds were made of the earlier labels, and trained on the new ones."""
    copied = Path(shutil.copytree(competition, tmp_path / "competition"))
    config = write_config(tmp_path / "c.yaml", tiny_config(copied, tmp_path / "runs"))
    table = copied / "train.csv"
    before = table.read_text()

    def edited(*given: object) -> int:
        table.write_text(before.replace("001,green", "001,red"))
        return 1

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("swinft.run.freeze.devices_per_fold", edited)
        assert main(["fit", "--config", str(config), "--fold", "0"]) == 2
    assert "train.csv changed while the images were checked" in capsys.readouterr().err
    assert not (tmp_path / "runs" / "tiny" / "config.yaml").exists()
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
