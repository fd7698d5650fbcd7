"""What comes from elsewhere is data: configs, weights, checkpoints, ids and labels do not run."""

import pickle
import re
import subprocess
import sys
import tomllib
import zipfile
from html.parser import HTMLParser
from importlib.metadata import version as installed
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch.loggers import CSVLogger
from packaging.requirements import Requirement

from swinft.cli import main
from swinft.run.layout import Run
from swinft.store import commit
from tests.conftest import ROOT, fit_in_process, power_gone_after, tiny_config, write_config

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
    message = f"'{name}.Head' is not in a trusted package, and would run its own code. If you trust it, add --allow-code {name}."
    assert message in capsys.readouterr().err
    assert not mark.exists()


@pytest.mark.parametrize("path", ["os.system", "subprocess.Popen", "builtins.eval", "torchx.Head", "swinft_evil.Head"])
def test_no_name_outside_the_trusted_packages_passes(path, competition, tmp_path, capsys):
    changes = {"model.head": {"class_path": path}}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config)]) == 2
    assert f"'{path}' is not in a trusted package" in capsys.readouterr().err


def test_a_run_from_elsewhere_does_not_run_its_code(evil, competition, tmp_path, capsys):
    name, mark = evil
    changes = {"model.head": {"class_path": f"{name}.Head"}, "trainer.max_epochs": 1}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--allow-code", name, "--fold", "0"]) == 0
    assert mark.exists()  # allowed: it runs
    run = str(tmp_path / "runs" / "tiny")
    assert main(["predict", run, "--folds", "0", "--device", "cpu"]) == 2
    assert "would run its own code" in capsys.readouterr().err
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


def test_a_forged_checkpoint_is_not_unpickled(competition, tmp_path):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    with power_gone_after(1):
        main(["fit", "--config", str(config), "--fold", "0"])
    (checkpoint,) = Run(tmp_path / "runs" / "tiny").fold(0).checkpoints
    # With a valid record: whoever forges the file can forge its hash.
    commit(checkpoint, lambda file: torch.save({"state_dict": Payload(tmp_path / "owned")}, file), "forger")
    with pytest.raises(Exception, match=r"[Ww]eights.only"):
        main(["fit", "--config", str(config), "--fold", "0", "--resume"])
    assert not (tmp_path / "owned").exists()


def legacy(mark: Path, path: Path) -> None:
    torch.save({"w": Payload(mark)}, path, _use_new_zipfile_serialization=False)


def plain_pickle(mark: Path, path: Path) -> None:
    path.write_bytes(pickle.dumps({"w": Payload(mark)}))


def in_zip(mark: Path, path: Path) -> None:
    """A whole archive whose pickle is another one."""
    torch.save({"w": torch.zeros(1)}, path)
    with zipfile.ZipFile(path) as whole:
        members = {name: whole.read(name) for name in whole.namelist()}
    with zipfile.ZipFile(path, "w") as forged:
        for name, content in members.items():
            forged.writestr(name, pickle.dumps(Payload(mark), 2) if name.endswith("data.pkl") else content)


def cut(mark: Path, path: Path) -> None:
    torch.save({"w": Payload(mark)}, path)
    path.write_bytes(path.read_bytes()[:-50])


FORGERIES = {
    "state": lambda mark, path: torch.save({"state_dict": Payload(mark)}, path),
    "nested": lambda mark, path: torch.save({"optimizer": [{"state": {0: Payload(mark)}}]}, path),
    "hyper-parameters": lambda mark, path: torch.save({"hyper_parameters": {"_instantiator": Payload(mark)}}, path),
    "legacy": legacy,
    "plain-pickle": plain_pickle,
    "in-zip": in_zip,
    "cut": cut,
    "named-safetensors": lambda mark, path: torch.save(Payload(mark), path),
}


@pytest.mark.parametrize("kind", FORGERIES)
def test_forged_weights_are_refused_and_run_nothing(kind, competition, tmp_path, capsys):
    path = tmp_path / ("w.safetensors" if kind == "named-safetensors" else "w.pth")
    FORGERIES[kind](tmp_path / "owned", path)
    changes = {"model.pretrained": str(path)}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config)]) == 2
    assert str(path) in capsys.readouterr().err
    assert not (tmp_path / "owned").exists()


def test_aliases_of_aliases_do_not_fill_the_memory(competition, tmp_path, capsys):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    bomb = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    bomb += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    config.write_text(config.read_text() + "\n".join(bomb) + "\n")
    assert main(["fit", "--config", str(config)]) == 2
    assert "expands to more than 100,000 values through its aliases" in capsys.readouterr().err


def test_an_archive_in_the_place_of_a_folder_is_not_opened(competition, tmp_path, capsys):
    archive = tmp_path / "data.zip"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("../owned", "x")
        file.writestr("train.csv", "id\n")
    changes = {"data.root": str(archive)}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["check", "--config", str(config)]) == 2
    assert "there is no such file" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml", "data.zip"]


class SpyLogger(CSVLogger):
    """A logger with a key, which it writes down where a test finds it."""

    def __init__(self, save_dir: str, api_key: str) -> None:
        super().__init__(save_dir)
        Path(save_dir, "seen").write_text(api_key)


@pytest.fixture
def spied(competition, tmp_path):
    """A config with a secret, and the options that allow its logger."""
    logger = {
        "class_path": "tests.integration.faults.test_security.SpyLogger",
        "init_args": {"save_dir": str(tmp_path), "api_key": "hunter2hunter2"},
    }
    changes = {"trainer.logger": logger, "trainer.max_epochs": 1}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    return config, ["--config", str(config), "--allow-code", "tests.integration.faults.test_security"]


@pytest.mark.slow
def test_a_run_whose_folds_are_processes_uses_a_secret_and_never_writes_it_down(spied, tmp_path):
    _, options = spied
    done = subprocess.run([sys.executable, "-m", "swinft", "fit", *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^pooled +[01]\.\d{4}", done.stdout, re.MULTILINE)
    assert all(f"fold {fold}  epoch 1/1" in done.stdout for fold in (0, 1))
    logs = [(tmp_path / "runs" / "tiny" / f"fold_{fold}" / "log.txt").read_text() for fold in (0, 1)]
    said = [line[21:] for log in logs for line in log.splitlines() if "  --- " not in line]  # after date and time
    assert said
    assert all(line in done.stdout.splitlines() for line in said)
    assert not re.search(r"[\x1b\r]", done.stdout + "".join(logs))  # no live line in a pipe or a log
    assert (tmp_path / "runs" / "tiny" / "oof.csv").is_file()
    assert (tmp_path / "seen").read_text() == "hunter2hunter2"  # by the fold's own process
    run = tmp_path / "runs" / "tiny"
    assert "api_key: '***'" in (run / "config.yaml").read_text()
    texts = [path.read_bytes() for path in run.rglob("*") if path.is_file()]
    assert len(texts) > 10
    assert not any(b"hunter2" in text for text in texts)
    assert "hunter2" not in done.stdout + done.stderr


def test_a_runs_own_config_asks_for_the_secrets_it_does_not_keep(spied, tmp_path, capsys):
    _, options = spied
    assert main(["fit", *options, "--fold", "0"]) == 0
    frozen = ["--config", str(tmp_path / "runs" / "tiny" / "config.yaml"), *options[2:]]
    assert main(["fit", *frozen, "--resume"]) == 2
    assert "secrets are masked:\n  trainer.logger.init_args.api_key" in capsys.readouterr().err
    assert main(["fit", *options, "--fold", "1", "--resume"]) == 0
    assert main(["predict", str(tmp_path / "runs" / "tiny"), "--device", "cpu", *options[2:]]) == 0


def test_a_secret_is_not_printed_with_an_error(spied, capsys):
    config, options = spied
    settings = yaml.safe_load(config.read_text())
    settings["trainer"]["logger"]["init_args"]["api_key"] = ["hunter2hunter2"]
    settings["trainer"]["max_epochs"] = "https://me:hunter2@example.org"
    config.write_text(yaml.safe_dump(settings))
    assert main(["fit", *options]) == 2
    assert "me:hunter2" not in capsys.readouterr().err


@pytest.mark.parametrize("is_help", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["help", "check"])
def test_nothing_reaches_for_the_network(is_help, competition, tmp_path):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    words = ["--help"] if is_help else ["check", "--config", str(config)]
    code = (
        "import socket, sys\n"
        "def refuse(*arguments): raise SystemExit('a connection was tried')\n"
        "socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse\n"
        "from swinft.cli import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_floors_of_the_dependencies_exclude_known_holes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    floors = {Requirement(text).name: Requirement(text).specifier for text in project["dependencies"]}
    holes = {
        "lightning": ["2.6.2", "2.6.3", "2.6.5"],
        "torch": ["2.5.1", "2.9.1"],
        "pillow": ["12.2.0"],
        "opencv-python-headless": ["4.11.0"],
        "jinja2": ["3.1.5"],
        "albumentations": ["2.1.0"],
    }
    for name, versions in holes.items():
        assert not any(floors[name].contains(version) for version in versions), name
        assert floors[name].contains(installed(name)), name


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
    scripts = [attributes for tag, attributes in parser.found if tag == "script"]
    assert [each for each in scripts if each.get("type") != "application/json"] == [{}]  # that of the page itself
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
