"""Every artefact damaged in every way: found each time, and never where nothing is damaged."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from swinft.cli import main
from swinft.data.schema import Schema
from swinft.errors import StoreError
from swinft.inference.predictions import Predictions
from swinft.run.compute.choices import read_choice
from swinft.run.experiment import Experiment
from swinft.run.layout import Run
from swinft.run.trainer import StoreCheckpointIO
from swinft.store import RECORDS, commit, newest_intact, verify
from tests.conftest import power_gone_after, tiny_config, write_config
from tests.integration.faults.harness import RECIPE

# How often each kind of damage is done to each artefact.
TIMES = {
    "fast": {"flip": 20, "truncate": 14, "zero": 14, "swap": 4, "older": 1, "empty": 1, "delete": 1, "record": 8},
    "full": {"flip": 80, "truncate": 60, "zero": 50, "swap": 8, "older": 1, "empty": 1, "delete": 1, "record": 24},
}


def read_weights(run: Run, path: Path) -> object:
    schema = Schema.from_dict(run.read_schema())
    return Experiment.of_run(run, "predict", None).network(schema, path, torch.device("cpu"))


# What each artefact is read with, in the commands.
READERS: dict[str, Callable[[Run, Path], object]] = {
    "fold_1/epoch-0002.ckpt": lambda run, path: StoreCheckpointIO().load_checkpoint(path),
    "fold_0/weights.safetensors": read_weights,
    "fold_0/oof.csv": lambda run, path: Predictions.read(path, 3),
    "fold_0/result.json": lambda run, path: run.fold(0).read_result(),
    "fold_0/metrics.jsonl": lambda run, path: run.fold(0).read_history(),
    "environment.json": lambda run, path: run.read_environment(),
    "devices.json": lambda run, path: run.devices_per_fold(),
    "choice.json": lambda run, path: read_choice(run),
    "scores.json": lambda run, path: run.read_scores(),
    "folds.csv": lambda run, path: run.planned_folds(),
    "schema.json": lambda run, path: run.read_schema(),
    "config.yaml": lambda run, path: run.read_config(),
    "images.csv": lambda run, path: verify(path),
    "inputs.json": lambda run, path: verify(path),
}


@pytest.fixture(scope="module")
def run(competition, tmp_path_factory):
    """A run whose second fold lost its power after the second of three epochs."""
    folder = tmp_path_factory.mktemp("damaged")
    changes = {**RECIPE, "trainer.max_epochs": 3}
    config = write_config(folder / "c.yaml", tiny_config(competition, folder / "runs", **changes))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    with power_gone_after(2):
        main(["fit", "--config", str(config), "--fold", "1", "--resume"])
    run = Run(folder / "runs" / "tiny")
    commit(run.scores, json.dumps({"pooled": {"accuracy": 0.5}}).encode(), "swinft fit")
    return run


def damage(kind: str, content: bytes, others: list[bytes], random_: random.Random) -> bytes | None:
    """The content as it might be found; None where the file is gone."""
    place = random_.randrange(len(content))
    if kind == "flip":
        return content[:place] + bytes([content[place] ^ (1 << random_.randrange(8))]) + content[place + 1 :]
    if kind == "truncate":
        return content[:place]
    if kind == "zero":
        zeros = bytes(min(4096, len(content) - place))
        return content[:place] + zeros + content[place + len(zeros) :]
    return {"swap": random_.choice(others), "older": b"older\n" + content[:-7], "empty": b"", "delete": None}[kind]


def count(tier: str) -> int:
    return len(READERS) * sum(TIMES[tier].values())


def test_both_tiers_have_the_damage_that_is_promised():
    assert count("fast") >= 490
    assert count("full") >= 1960


@pytest.mark.parametrize("name", READERS)
def test_nothing_is_found_where_nothing_is_wrong(name, run):
    READERS[name](run, run.root / name)


def is_found(read: Callable[[], object]) -> bool:
    """Whether reading refuses, in the words of the store and not with a traceback of its own."""
    try:
        read()
    except StoreError:
        return True
    return False


@pytest.mark.parametrize("kind", TIMES["fast"])
@pytest.mark.parametrize("name", READERS)
def test_damage_is_found(name, kind, run, pytestconfig):
    path = run.root / name
    victim = path.parent / RECORDS / f"{path.name}.json" if kind == "record" else path
    content = victim.read_bytes()
    others = [other for each in READERS if (other := (run.root / each).read_bytes()) != content]
    random_ = random.Random(f"{name} {kind}")
    for number in range(TIMES[pytestconfig.getoption("--faults")][kind]):
        way = random_.choice(["flip", "truncate", "zero", "empty", "delete"]) if kind == "record" else kind
        damaged = damage(way, content, others, random_)
        while damaged == content:  # zeros over zeros
            damaged = damage(way, content, others, random_)
        try:
            victim.unlink() if damaged is None else victim.write_bytes(damaged)
            assert is_found(lambda: READERS[name](run, path)), f"{way} number {number}"
        finally:
            victim.write_bytes(content)
    READERS[name](run, path)


@pytest.mark.parametrize("victim", ["", RECORDS], ids=["file", "record"])
@pytest.mark.parametrize("kind", ["flip", "truncate", "zero", "empty"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(kind, victim, run, tmp_path, capsys):
    shutil.copytree(run.root, tmp_path / "run")
    fold = Run(tmp_path / "run").fold(1)
    newest, before = fold.checkpoints
    path = newest.parent / victim / (f"{newest.name}.json" if victim else newest.name)
    path.write_bytes(damage(kind, path.read_bytes(), [b""], random.Random(0)))
    assert newest_intact(fold.checkpoints) == before
    assert "is damaged; moved to" in capsys.readouterr().err


def test_an_older_version_with_its_own_record_is_whole(tmp_path):
    """A restored backup is no damage: what it says was committed once."""
    commit(tmp_path / "a", b"old", "test")
    shutil.copytree(tmp_path, tmp_path.parent / "backup")
    commit(tmp_path / "a", b"new", "test")
    shutil.copytree(tmp_path.parent / "backup", tmp_path, dirs_exist_ok=True)
    assert verify(tmp_path / "a").read_bytes() == b"old"
