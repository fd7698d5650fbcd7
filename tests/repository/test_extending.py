"""Every section of docs/extending.md runs as printed: its module, and its keys laid over configs/bluemarble.yaml."""

import functools
import importlib
import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from swinft.cli import main
from tests.conftest import ROOT, TINY_SWIN, write_config

CONFIG = ROOT / "configs" / "bluemarble.yaml"
DATA = ROOT / "competitions" / "bluemarble"
AT_SUBMIT = {"Submission format", "Rule", "Fitted rule"}  # `submit` builds nothing of a config but these


class Section(NamedTuple):
    """A door: its word, the module that is printed, the keys that use it."""

    door: str
    code: str
    keys: str

    @property
    def module(self) -> str:
        """The module's name, from the class path in the keys."""
        classes = "|".join(re.findall(r"^class (\w+)", self.code, re.MULTILINE))
        return re.search(rf"\b(\w+)\.(?:{classes})\b", self.keys)[1]


def sections() -> list[Section]:
    """The sections that print a module."""
    text = (ROOT / "docs" / "extending.md").read_text()
    found = []
    for part in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        code, keys = (re.search(rf"```{name}\n(.*?)```", part, re.DOTALL) for name in ("python", "yaml"))
        assert code, part.partition("\n")[0]
        assert keys, part.partition("\n")[0]
        found.append(Section(part.partition("\n")[0], code[1], keys[1]))
    return found


SECTIONS = sections()


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config of few rows and a tiny backbone, to be laid between configs/bluemarble.yaml and a section's keys."""
    folder = tmp_path_factory.mktemp("small")
    rows = (DATA / "train.csv").read_text().splitlines()
    by_class: dict[str, list[str]] = {}
    for row in rows[1:]:
        by_class.setdefault(row.split(",")[2], []).append(row)
    few = [rows[0], *(row for of_class in by_class.values() for row in of_class[::8][:6])]
    (folder / "train.csv").write_text("\n".join(few) + "\n")
    for name in ("test.csv", *(path.name for path in DATA.glob("sample_submission*.csv"))):
        (folder / name).write_text("\n".join((DATA / name).read_text().splitlines()[:7]) + "\n")
    (folder / "images").symlink_to(DATA / "images")
    data = {"root": str(folder)}  # a section may name another sample, or other parts of the images
    return write_config(
        folder / "small.yaml",
        {
            "data": {**data, "folds": {"num": 2}, "image_size": 32, "batch_size": 6},
            "model": {"backbone_args": {**TINY_SWIN, "patch_size": 4}, "optim": {"warmup_epochs": 0.5}},
            "trainer": {"max_epochs": 1, "accelerator": "cpu", "precision": "32-true"},
        },
    )


@pytest.fixture
def counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Section], tuple[Counter[str], set[str]]]]:
    """Makes a section's module as printed importable; its functions count their calls."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield functools.partial(load, tmp_path, monkeypatch)
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and tmp_path in Path(str(sys.modules[name].__file__)).parents:
            del sys.modules[name]


def load(folder: Path, monkeypatch: pytest.MonkeyPatch, section: Section) -> tuple[Counter[str], set[str]]:
    """The calls of a section's functions, and the names of those that it defines."""
    (folder / f"{section.module}.py").write_text(section.code)
    module = importlib.import_module(section.module)
    calls: Counter[str] = Counter()
    classes = [cls for _, cls in inspect.getmembers(module, inspect.isclass) if cls.__module__ == module.__name__]
    own = {
        f"{cls.__name__}.{name}": (cls, name, function)
        for cls in classes
        for name, function in vars(cls).items()
        if inspect.isfunction(function) and name != "__init__" and function.__code__.co_filename == module.__file__
    }

    def counting(label: str, function):  # type: ignore[no-untyped-def]
        @functools.wraps(function)
        def called(*args, **kwargs):  # type: ignore[no-untyped-def]
            calls[label] += 1
            return function(*args, **kwargs)

        return called

    for label, (cls, name, function) in own.items():
        monkeypatch.setattr(cls, name, counting(label, function))
    return calls, set(own)


@pytest.mark.parametrize("section", SECTIONS, ids=[section.door for section in SECTIONS])
def test_the_section_runs_as_printed(section, small, counted, tmp_path, monkeypatch, capsys):
    calls, own = counted(section)
    (tmp_path / "mine.yaml").write_text(section.keys)
    config = [word for path in (CONFIG, small, tmp_path / "mine.yaml") for word in ("--config", str(path))]
    allow = ["--allow-code", section.module]
    assert main(["check", *config]) == 2
    assert f"add --allow-code {section.module}" in capsys.readouterr().err
    assert main(["fit", *config, *allow, "--fold", "0"]) == 0, capsys.readouterr().err
    for fold in (["--fold", "1"], []) if section.door == "Fitted rule" else ():  # it needs the predictions of all folds
        assert main(["fit", *config, *allow, *fold, "--resume"]) == 0, capsys.readouterr().err
    run = tmp_path / "runs" / "bluemarble"
    assert main(["predict", str(run), "--folds", "0", "--device", "cpu", *allow]) == 0, capsys.readouterr().err
    assert main(["submit", str(run), *(allow if section.door in AT_SUBMIT else [])]) == 0, capsys.readouterr().err
    assert f"{section.module}." in (run / "config.yaml").read_text()
    assert own, "a door's class has functions of its own"
    assert own - set(calls) == set()


def test_a_section_stands_for_every_door():
    doors = {section.door for section in SECTIONS}
    assert {
        "Head",
        "Target kind",
        "Loss",
        "Pooling",
        "Fusion",
        "Backbone",
        "Optimiser",
        "Schedule",
        "Image source",
        "Table step",
        "Sampler",
        "Callback",
        "Logger",
        "Rule",
        "Fitted rule",
    } <= doors
