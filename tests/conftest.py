"""Tiny competitions on disk, and one tiny run that many tests read."""

import os
import sys

# Two test processes of two threads each on two cores wait for one another: many times slower. Before torch is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from swinft.cli import main
from swinft.model.settings import TaskContext
from swinft.run.folds.recorder import FoldRecorder
from swinft.system import live
from swinft.system.processes import Child
from tests.terminals import Terminal

os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()  # decoded images of tests stay out of the user's cache
os.environ["HF_HUB_OFFLINE"] = "1"  # a test that would download must fail at once

ROOT = Path(__file__).parent.parent
PYTHON_LINE = f"#!/usr/bin/env -S '{sys.executable}'"  # the first line of a script; the path may have blanks
SECTIONS = ("columns", "folds", "loading")  # of a datamodule
# A real Swin, shrunk: 11 thousand parameters.
TINY_SWIN = {"embed_dim": 12, "depths": [1, 1], "num_heads": [1, 2], "window_size": 4}


def write_image(
    path: Path, color: tuple[int, int, int], rng: np.random.Generator, size: tuple[int, int] = (40, 36)
) -> None:
    """A noisy image of one colour."""
    noise = rng.normal(0, 12, (*size, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(np.array(color) + noise, 0, 255).astype(np.uint8)).save(path, quality=95)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips tests that need a GPU where there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("there is no GPU here")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--faults full` runs every kill and every damage, not a sample of them."""
    parser.addoption("--faults", choices=["fast", "full"], default="fast", help="how many faults to inject")


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A terminal; standard output is one from `attach` on."""
    terminal = Terminal()
    terminal.attach = lambda: monkeypatch.setattr(sys, "stdout", terminal.stream)  # pytest has its own in a fixture
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("LINES", "40")
    monkeypatch.delenv("JPY_PARENT_PID", raising=False)
    monkeypatch.setattr(live, "REDRAW_SECONDS", 0.0)
    monkeypatch.setattr(live, "TALK_SECONDS", 0.0)
    yield terminal
    terminal.close()


@pytest.fixture(scope="session")
def competition(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 training and 6 test images in three colours, with labels of every kind; some ids are all digits."""
    return make_competition(tmp_path_factory.mktemp("competition"))


def make_competition(root: Path) -> Path:
    """Writes what the fixture `competition` has."""
    rng = np.random.default_rng(0)
    colors = {"red": (200, 40, 40), "green": (40, 190, 40), "blue": (40, 40, 200)}
    lines = ["id,color,brightness,is_red,is_green,tags"]
    for i in range(24):
        name = list(colors)[i % 3]
        id = f"{i:03d}"
        write_image(root / "images" / f"{id}.jpg", colors[name], rng)
        tags = {"red": "warm", "green": "cool plant", "blue": "cool"}[name]
        lines.append(f"{id},{name},{20 + 3 * i},{int(name == 'red')},{int(name == 'green')},{tags}")
    (root / "train.csv").write_text("\n".join(lines) + "\n")
    test_ids = [f"t{i}" for i in (3, 1, 2, 6, 5, 4)]
    for i, id in enumerate(test_ids):
        write_image(root / "images" / f"{id}.jpg", list(colors.values())[i % 3], rng)
    (root / "test.csv").write_text("id\n" + "".join(f"{id}\n" for id in sorted(test_ids)))
    (root / "sample_submission.csv").write_text("id,color\n" + "".join(f"{id},red\n" for id in test_ids))
    return root


def tiny_config(competition: Path, runs: Path, **changes: object) -> dict[str, object]:
    """A complete config on the tiny competition; `changes` are dotted keys."""
    config: dict[str, object] = {
        "name": "tiny",
        "runs": str(runs),
        "data": {
            "root": str(competition),
            "train": "train.csv",
            "test": "test.csv",
            "sample_submission": "sample_submission.csv",
            "image": "images/{id}.jpg",
            "target": "color",
            "target_kind": "classification",
            "folds": {"num": 2},
            "image_size": 32,
            "batch_size": 6,
        },
        "model": {
            "backbone": "swin_tiny_patch4_window7_224",
            "backbone_args": dict(TINY_SWIN),
            "pretrained": False,
            "head": {"class_path": "swinft.ClassificationHead"},
            "optim": {"lr": 3e-3, "warmup_epochs": 0.5},
            "ema_decay": 0.9,
        },
        "trainer": {"max_epochs": 2, "accelerator": "cpu", "precision": "32-true"},
    }
    for key, value in changes.items():
        *sections, last = key.split(".")
        place = config
        for section in sections:
            place = place.setdefault(section, {})  # type: ignore[assignment]
        place[last] = value
    if "data.target" in changes and "data.sample_submission" not in changes:
        config["data"]["sample_submission"] = None  # type: ignore[index]  # the sample is of another target
    return config


def merged(arguments: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a datamodule with changes; in `columns`, `folds` and `loading` only of the keys that they hold."""
    given = [name for name in SECTIONS if isinstance(changes.get(name), dict)]
    nested = {name: {**arguments.get(name, {}), **changes[name]} for name in given}
    return {**arguments, **changes, **nested}


def write_config(path: Path, config: dict[str, object]) -> Path:
    """Writes a config as YAML."""
    path.write_text(yaml.safe_dump(config))
    return path


def in_this_process(children: Mapping[int, Child], *_: object, **__: object) -> dict[int, int]:
    """What children do, in the place of `run_children`: the imports of a process each would cost more than the work."""
    return {number: main(list(child.words)) for number, child in children.items()}


def fit_in_process(config: Path, *options: str) -> None:
    """What `swinft fit` does, without a process per fold: the imports would cost more than the training."""
    words = ["fit", "--config", str(config), *options]
    settings = yaml.safe_load(config.read_text())
    for fold in range(settings["data"]["folds"]["num"]):
        assert main([*words, "--fold", str(fold), *(["--resume"] if fold else [])]) == 0
    assert main([*words, "--resume"]) == 0


def with_context(**options: object) -> dict[str, object]:
    """Arguments of a task; those that its context holds, as image_size, are brought there."""
    names = {field.name for field in dataclasses.fields(TaskContext)}
    context = {name: options.pop(name) for name in names & options.keys()}
    return {**options, "context": TaskContext(**context)}  # type: ignore[arg-type]


@contextmanager
def power_gone_after(epochs: int, training: str | None = None) -> Iterator[None]:
    """What fits a fold inside dies once it has saved its epoch number `epochs`, as if the power were gone.

    With the name of a training, as `1_seed_7`, in no other.
    """
    save = FoldRecorder.on_train_epoch_end

    def stop(recorder: FoldRecorder, *given: object) -> None:
        save(recorder, *given)
        if len(recorder.history) == epochs and training in (None, str(recorder.fold.index)):
            raise RuntimeError("the power is gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FoldRecorder, "on_train_epoch_end", stop)
        with pytest.raises(RuntimeError, match="power"):
            yield


@pytest.fixture(scope="session")
def tiny_run(competition: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run with predictions and a submission. Read it, do not change it."""
    folder = tmp_path_factory.mktemp("tiny_run")
    config = write_config(folder / "config.yaml", tiny_config(competition, folder / "runs"))
    fit_in_process(config)
    run = folder / "runs" / "tiny"
    assert main(["predict", str(run), "--device", "cpu"]) == 0
    assert main(["submit", str(run)]) == 0
    return run
