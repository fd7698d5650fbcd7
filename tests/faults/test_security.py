"""What comes from elsewhere is data: configs, weights, checkpoints, ids and labels do not run."""

from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from swinft.cli import main
from swinft.run.layout import Run
from swinft.run.recorder import FoldRecorder
from swinft.run.store import commit
from tests.conftest import fit_in_process, tiny_config, write_config

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def evil(tmp_path, monkeypatch):
    """A module that leaves a mark when it is imported."""
    mark = tmp_path / "owned"
    name = f"evil_{tmp_path.name}"  # another module each time: Python imports a module once
    code = f"from swinft import ClassificationHead\nopen({str(mark)!r}, 'w')\nclass Head(ClassificationHead): pass\n"
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return name, mark


NESTED = {
    "head": ("model.head", lambda path: {"class_path": path}),
    "bare-head": ("model.head", lambda path: path),
    "inside-a-head": (
        "model.head",
        lambda path: {"class_path": "swinft.ClassificationHead", "init_args": {"dropout": {"class_path": path}}},
    ),
    "transform": ("data.augment", lambda path: [{"class_path": path}]),
    "inside-a-transform": (
        "data.augment",
        lambda path: [{"class_path": "albumentations.OneOf", "init_args": {"transforms": [{"class_path": path}]}}],
    ),
    "callback": ("trainer.callbacks", lambda path: [{"class_path": path}]),
    "bare-callback": ("trainer.callbacks", lambda path: [path]),
    "bare-logger": ("trainer.logger", lambda path: path),
    "bare-profiler": ("trainer.profiler", lambda path: path),
    "strategy": ("trainer.strategy", lambda path: {"class_path": path}),
}


@pytest.mark.parametrize("place", NESTED)
def test_a_config_does_not_run_code_that_nobody_allowed(place, evil, competition, tmp_path, capsys):
    name, mark = evil
    key, value = NESTED[place]
    changes = {key: value(f"{name}.Head")}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config)]) == 2
    message = f"naming '{name}.Head' would run code of its own. If you trust it, add --allow-code {name}."
    assert message in capsys.readouterr().err
    assert not mark.exists()


@pytest.mark.parametrize("path", ["os.system", "subprocess.Popen", "builtins.eval", "torchx.Head", "swinft_evil.Head"])
def test_no_name_outside_the_trusted_packages_passes(path, competition, tmp_path, capsys):
    changes = {"model.head": {"class_path": path}}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config)]) == 2
    assert f"naming '{path}' would run code" in capsys.readouterr().err


def test_a_run_from_elsewhere_does_not_run_its_code(evil, competition, tmp_path, capsys):
    name, mark = evil
    changes = {"model.head": {"class_path": f"{name}.Head"}, "trainer.max_epochs": 1}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--allow-code", name, "--fold", "0"]) == 0
    assert mark.exists()  # allowed: it runs
    run = str(tmp_path / "runs" / "tiny")
    assert main(["predict", run, "--folds", "0", "--device", "cpu"]) == 2
    assert "would run code of its own" in capsys.readouterr().err
    assert main(["predict", run, "--folds", "0", "--device", "cpu", "--allow-code", name]) == 0


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['touch owned']", "!!python/name:os.system"])
def test_yaml_tags_do_not_run(tag, competition, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    config.write_text(config.read_text() + f"seed: {tag}\n")
    assert main(["fit", "--config", str(config)]) == 2
    assert not Path("owned").exists()


class Payload:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (open, (str(self.mark), "w"))


def test_a_forged_checkpoint_is_not_unpickled(competition, tmp_path, monkeypatch):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    save = FoldRecorder.on_train_epoch_end

    def stop(recorder, trainer, task):
        save(recorder, trainer, task)
        raise RuntimeError("the power is gone")

    with monkeypatch.context() as patch:
        patch.setattr(FoldRecorder, "on_train_epoch_end", stop)
        with pytest.raises(RuntimeError, match="power"):
            main(["fit", "--config", str(config), "--fold", "0"])
    (checkpoint,) = Run(tmp_path / "runs" / "tiny").fold(0).checkpoints
    # With a valid record: whoever forges the file can forge its hash.
    commit(checkpoint, lambda file: torch.save({"state_dict": Payload(tmp_path / "owned")}, file), "forger")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        main(["fit", "--config", str(config), "--fold", "0", "--resume"])
    assert not (tmp_path / "owned").exists()


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def test_hostile_ids_and_labels_are_shown_and_not_run(competition, tmp_path):
    ids = [row.split(",")[0] for row in (competition / "train.csv").read_text().splitlines()[1:]]
    lines = [f"</b>{HOSTILE}{i},{id},{HOSTILE if i % 2 else '</script>'}" for i, id in enumerate(ids)]
    (competition / "hostile.csv").write_text("\n".join(["name,file,label", *lines, ""]))
    changes = {
        "data.train": "hostile.csv",
        "data.id": "name",
        "data.image": "images/{file}.jpg",
        "data.target": "label",
    }
    changes |= {"data.test": None, "data.sample_submission": None, "trainer.max_epochs": 1}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    fit_in_process(config)
    page = (tmp_path / "runs" / "tiny" / "report.html").read_text()
    parser = Tags()
    parser.feed(page)
    assert "script" not in {tag for tag, _ in parser.found}
    assert not any(name.startswith("on") for _, attributes in parser.found for name in attributes)
    assert all(attributes["src"].startswith("data:image/") for tag, attributes in parser.found if tag == "img")
    assert "&lt;img src=x onerror=alert(1)&gt;" in page


def test_control_characters_do_not_reach_the_terminal(competition, tmp_path, capsys):
    table = (
        (competition / "train.csv")
        .read_text()
        .replace("005,blue", "005,\x1b[2Jblue")
        .replace("006,red", "\x1b]0;x6,red")
    )
    (competition / "ansi.csv").write_text(table)
    config = write_config(
        tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **{"data.train": "ansi.csv"})
    )
    assert main(["check", "--config", str(config)]) == 2
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert "\\x1b" in err
