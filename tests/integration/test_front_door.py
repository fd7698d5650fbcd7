"""Faults that the commands and the public classes show by themselves: nothing here knows how the code is cut up."""

import importlib.metadata
import importlib.util
import io
import json
import logging
import os
import shutil
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from swinft import ClassificationHead, CSVDataModule, MultilabelHead, RegressionHead
from swinft.cli import main
from tests.conftest import merged, power_gone_after, tiny_config, write_config

NUMBER = {"data.target_kind": "regression", "model.head": {"class_path": "swinft.RegressionHead"}}
DAY = 86_400


@pytest.fixture
def root(competition, tmp_path) -> Path:
    """The images of the competition, for tables of other rows."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "images").symlink_to(competition / "images")
    return tmp_path / "data"


def write(path: Path, columns: dict[str, object]) -> None:
    pd.DataFrame(columns).to_csv(path, index=False)


def config_of(root: Path, tmp_path: Path, **changes: object) -> Path:
    changes = {"data.image": "images/{file}.jpg", "data.test": None, "data.sample_submission": None, **changes}
    return write_config(tmp_path / "c.yaml", tiny_config(root, tmp_path / "runs", **changes))


def module(root: Path, **changes: object) -> CSVDataModule:
    arguments = {
        "root": str(root),
        "train": "train.csv",
        "image": "images/{file}.jpg",
        "image_size": 32,
        "folds": {"num": 2},
    }
    return CSVDataModule(**merged({**arguments, "target": "color", "target_kind": "classification"}, changes))


def files(rows: int) -> list[str]:
    return [f"{k % 24:03d}" for k in range(rows)]


def test_f023_a_rare_category_is_predicted_like_the_others(root, tmp_path):
    """It is 1 in training; what it becomes when it is predicted must not be many times that."""
    rows, rng = 400, np.random.default_rng(0)
    write(
        root / "train.csv",
        {
            "id": [f"i{k}" for k in range(rows)],
            "file": files(rows),
            "kind": ["rare" if k in (100, 101) else "usual" for k in range(rows)],
            "y": rng.normal(0, 1, rows).round(3),
        },
    )
    write(root / "test.csv", {"id": [*"abcdef"], "file": files(3) * 2, "kind": ["usual"] * 3 + ["rare"] * 3})
    changes = {
        "data.target": "y",
        "data.columns.categorical_features": ["kind"],
        **NUMBER,
    }
    changes |= {"data.test": "test.csv", "data.batch_size": 16, "trainer.max_epochs": 6}
    assert main(["fit", "--config", str(config_of(root, tmp_path, **changes)), "--fold", "0"]) == 0
    assert main(["predict", str(tmp_path / "runs" / "tiny"), "--folds", "0", "--device", "cpu"]) == 0
    predictions = pd.read_csv(tmp_path / "runs" / "tiny" / "test_predictions.csv")["y"].to_numpy()
    assert np.abs(predictions[3:] - predictions[:3]).max() < 1  # the target's deviation


def test_f023_a_batch_of_one_row_with_metadata_is_trained(competition, tmp_path):
    changes = {"data.columns.numeric_features": ["brightness"], "data.test": None, "data.sample_submission": None}
    changes |= {"data.batch_size": 1, "trainer.max_epochs": 1}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0


def test_f024_metadata_is_mixed_with_the_targets(root, tmp_path):
    """The target is the metadata: it can be learnt from mixed rows only if both are mixed."""
    rows = 400
    values = np.random.default_rng(0).uniform(0, 100, rows).round(2)
    ids = [f"i{k}" for k in range(rows)]
    write(root / "train.csv", {"id": ids, "file": ["000"] * rows, "x": values, "y": values})
    changes = {"data.target": "y", "data.columns.numeric_features": ["x"], "data.folds.duplicates": "report", **NUMBER}
    changes |= {"data.batch_size": 16, "trainer.max_epochs": 8, "model.mix.mixup_alpha": 1.0, "model.optim.lr": 0.01}
    assert main(["fit", "--config", str(config_of(root, tmp_path, **changes)), "--fold", "0"]) == 0
    lines = (tmp_path / "runs" / "tiny" / "fold_0" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["train_loss"] < 0.15  # of units in which the targets' variance is 1


@pytest.fixture
def processes(monkeypatch):
    """The environments of the children that a command would start; each fails at once."""
    started = []

    class Failed:
        returncode, pid = 1, 0

        def __init__(self, command, env=None, **_: object) -> None:
            started.append(env)
            self.stdin, self.stdout, self.stderr = io.BytesIO(), io.BytesIO(), io.BytesIO()

        def poll(self) -> int:
            return 1

        def wait(self, timeout: float | None = None) -> int:
            return 1

    return Failed, started


def test_f039_the_last_fold_of_a_resume_gets_as_many_devices_as_the_others(
    competition, tmp_path, processes, monkeypatch
):
    failed, started = processes
    changes = {"trainer.accelerator": "auto", "trainer.max_epochs": 1, "data.folds.num": 3}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    words = ["fit", "--config", str(config)]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def two_for_swinft() -> int:
        """Torch itself would look for the driver of what it counts."""
        return 2 if sys._getframe(1).f_globals["__name__"].startswith("swinft.") else 0

    def on_two_devices(*more: str) -> list[str]:
        started.clear()
        with monkeypatch.context() as patched, suppress(Exception):
            patched.setattr(torch.cuda, "device_count", two_for_swinft)
            patched.setattr(subprocess, "Popen", failed)
            main([*words, *more])
        return [environment["CUDA_VISIBLE_DEVICES"] for environment in started]

    assert on_two_devices()[:2] == ["0", "1"]
    for fold in ("0", "1"):
        assert main([*words, "--fold", fold, "--resume"]) == 0
    assert on_two_devices("--resume") == ["0"]


def test_f044_checkpoints_whose_records_are_lost_are_not_trained_over(competition, tmp_path, capsys):
    changes = {"trainer.max_epochs": 3}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    words = ["fit", "--config", str(config), "--fold", "0"]
    with power_gone_after(2):
        main(words)
    shutil.rmtree(tmp_path / "runs" / "tiny" / "fold_0" / ".commits")  # as `cp -r fold_0/*` leaves it behind
    capsys.readouterr()
    main([*words, "--resume"])
    assert "epoch 1/3" not in capsys.readouterr().out


def test_f046_another_version_is_said_on_resume(competition, tmp_path, monkeypatch, capsys):
    changes = {"trainer.max_epochs": 1}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    found = property(lambda self: "0.0.9" if self.metadata["Name"] == "timm" else self.metadata["Version"])
    monkeypatch.setattr(importlib.metadata.Distribution, "version", found)
    capsys.readouterr()
    assert main(["fit", "--config", str(config), "--fold", "1", "--resume"]) == 0
    assert "timm" in capsys.readouterr().out


def test_f064_a_long_tail_does_not_end_stratification(root):
    def spread(kind: str) -> float:
        """How far the folds' medians are apart, over several tables."""
        found = []
        for seed in range(6):
            values = np.random.default_rng(seed).lognormal(0, 2, 300).round(4)
            write(root / "train.csv", {"id": range(300), "file": files(300), "y": values})
            data = module(root, target="y", target_kind="regression", folds={"num": 5, "kind": kind})
            data.setup("fit")
            found.append(np.ptp([np.median(values[data.fold_of_row == fold]) for fold in range(5)]))
        return float(np.mean(found))

    assert spread("auto") < 0.6 * spread("kfold")


def test_f079_many_look_alikes_take_little_memory(tmp_path, capsys):
    """All pairs of 800 images are 90 MB, and one line of thousands of characters."""
    frame = np.asarray(Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)).resize((24, 18)))
    (tmp_path / "images").mkdir()
    for row in range(800):
        image = frame.copy()
        image[row // 24 % 18, row % 24, row // 432] ^= 255
        Image.fromarray(image).save(tmp_path / "images" / f"{row:03d}.png")
    peaks = []
    for rows in (20, 800):
        ids = [f"{row:03d}" for row in range(rows)]
        write(tmp_path / "train.csv", {"id": ids, "color": ["ab"[k % 2] for k in range(rows)]})
        changes = {"data.image": "images/{id}.png"}
        tracemalloc.start()
        assert main(["check", "--config", str(config_of(tmp_path, tmp_path, **changes))]) == 0
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 40e6
    assert max(map(len, capsys.readouterr().out.splitlines())) < 1000


def folder_of_images(root: Path, grey: int) -> Path:
    """Twelve images without compression, of one grey each, with times as an archive has them."""
    (root / "images").mkdir(parents=True)
    for row in range(12):
        path = root / "images" / f"{row}.bmp"
        Image.fromarray(np.full((20, 20, 3), grey + row, dtype=np.uint8)).save(path)
        os.utime(path, ns=(0, 0))
    write(root / "train.csv", {"id": range(12), "file": range(12), "color": ["ab"[k % 2] for k in range(12)]})
    return root


def looked_at(root: Path, cache: Path, **changes: object) -> CSVDataModule:
    arguments = {"image": "images/{file}.bmp", "loading": {"cache": True, "cache_dir": str(cache)}, "augment": "none"}
    data = module(root, **merged(arguments, changes))
    data.setup("fit")
    data.check()
    return data


def test_f080_another_data_sets_pixels_are_not_taken_from_the_cache(tmp_path):
    seen = []
    for name, grey in (("one", 10), ("two", 200)):
        data = looked_at(folder_of_images(tmp_path / name, grey), tmp_path / "cache")
        seen.append([int(image.max()) for batch in data.train_dataloader() for image in batch["image"]])
    assert max(seen[0]) < 30
    assert min(seen[1]) >= 200


def test_f085_a_cache_that_nobody_has_used_for_long_goes(tmp_path):
    root, cache = folder_of_images(tmp_path / "one", 10), tmp_path / "cache"
    next(iter(looked_at(root, cache).train_dataloader()))
    old = [path for path in cache.iterdir() if path.stat().st_size > 1000]
    assert old
    for path in cache.iterdir():
        then = path.stat().st_mtime - 60 * DAY
        os.utime(path, (then, then))
    next(iter(looked_at(root, cache, image_size=24).train_dataloader()))
    assert not any(path.exists() for path in old)


def test_f087_images_are_decoded_on_the_cores_that_are_allowed(tmp_path, monkeypatch):
    workers = []
    make = ThreadPoolExecutor.__init__

    def spy(self, max_workers=None, *args, **kwargs) -> None:
        workers.append(max_workers or os.cpu_count())
        make(self, max_workers, *args, **kwargs)

    monkeypatch.setattr(ThreadPoolExecutor, "__init__", spy)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1}, raising=False)
    looked_at(folder_of_images(tmp_path / "one", 10), tmp_path / "cache")
    assert workers
    assert max(workers) <= 8


def test_f117_folds_run_the_code_of_their_parent_wherever_it_is_started(competition, tmp_path, monkeypatch):
    decoy = tmp_path / "swinft"
    decoy.mkdir()
    for name in ("__init__.py", "__main__.py", "cli.py"):
        (decoy / name).write_text(f"open({str(tmp_path / 'decoy_ran')!r}, 'w')\n")
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    real, codes = subprocess.Popen, []

    class OnlyVersion(real):
        """The child as it is started, with another command behind it."""

        def __init__(self, command, **options) -> None:
            words = command[: command.index("fit")] if "fit" in command else command
            super().__init__([*words, "--version"] if "fit" in command else command, **options)
            codes.append(self.wait())

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with monkeypatch.context() as patched, suppress(Exception):
        patched.setattr(subprocess, "Popen", OnlyVersion)
        main(["fit", "--config", str(config)])
    assert codes
    assert not (tmp_path / "decoy_ran").exists()


HEADS = {"classification": ClassificationHead, "regression": RegressionHead, "multilabel": MultilabelHead}


def submitted(root: Path, tmp_path: Path, monkeypatch, kind: str, sample: str, predictions, **changes: object) -> Path:
    """A run whose network predicts what is given, to its submission; `sample` is the header and a row's cells."""
    header, cells = sample.split("\n")
    ids = [f"{k:03d}" for k in range(24)]
    (root / "sample.csv").write_text("\n".join([header, *(f"{id},{cells}" for id in ids)]) + "\n")
    write(root / "test.csv", {"id": ids, "file": ids})
    changes = {"data.target_kind": kind, "data.test": "test.csv", "data.sample_submission": "sample.csv", **changes}
    changes |= {"model.head": {"class_path": f"swinft.{HEADS[kind].__name__}"}, "trainer.max_epochs": 1}
    assert main(["fit", "--config", str(config_of(root, tmp_path, **changes)), "--fold", "0"]) == 0
    run = tmp_path / "runs" / "tiny"
    with monkeypatch.context() as patched:
        rows = torch.tensor(predictions)
        patched.setattr(HEADS[kind], "decode", lambda _, logits: rows.repeat(len(logits), 1)[: len(logits)])
        assert main(["predict", str(run), "--folds", "0", "--device", "cpu"]) == 0
    assert main(["submit", str(run)]) == 0
    return run / "submission.csv"


TAGS = ["cool|plant", "cool", "warm"]
SUBMISSIONS = {
    # target's cells, its kind, the sample, predictions of every other row, what is written for them
    "f001": ([0, 1], "classification", "id,y\n0.5", [[0.75, 0.25], [0.5, 0.5]], ["0.25", "0.5"], {}),
    "f002": (
        [0, 1, 2, 3],
        "regression",
        "id,y\n0",
        [[1.19], [2.6]],
        ["1", "3"],
        {"model.metrics": ["quadratic_kappa"]},
    ),
    "f003": ([0, 1, 2, 3], "regression", "id,y\n0", [[-0.3], [4.7]], ["0", "3"], {"submission.format": "integer"}),
    "f004": (TAGS, "multilabel", "id,y\ncool|plant", [[0.9, 0.9, 0.1], [0.1, 0.1, 0.9]], ["cool|plant", "warm"], {}),
    "f005": (["0.0", "1.0"], "classification", "id,y\n0", [[0.9, 0.1], [0.1, 0.9]], ["0", "1"], {}),
}


@pytest.mark.parametrize("fault", SUBMISSIONS)
def test_a_submission_holds_what_the_sample_asks_for(fault, root, tmp_path, monkeypatch):
    targets, kind, sample, predictions, expected, changes = SUBMISSIONS[fault]
    ids = files(24)
    write(root / "train.csv", {"id": ids, "file": ids, "y": [targets[k % len(targets)] for k in range(24)]})
    changes = {"data.target": "y", **changes}
    changes |= {"model.metrics": ["log_loss"]} if fault == "f001" else {}
    changes |= {"data.columns.label_delimiter": "|"} if kind == "multilabel" else {}
    path = submitted(root, tmp_path, monkeypatch, kind, sample, predictions, **changes)
    assert [line.split(",")[1] for line in path.read_text().splitlines()[1:]] == expected * 12


@pytest.mark.parametrize("fault", ["f010", "f011"])
def test_what_is_refused_replaces_nothing_and_sums_are_said(fault, root, tmp_path, monkeypatch, capsys):
    ids = files(24)
    share = [k % 4 / 4 for k in range(24)]
    write(root / "train.csv", {"id": ids, "file": ids, "x": share, "y": [1 - value for value in share]})
    changes = {"data.target": ["x", "y"]}
    path = submitted(root, tmp_path, monkeypatch, "regression", "id,x,y\n0.5,0.5", [[0.5, 0.4], [0.25, 0.7]], **changes)
    if fault == "f011":
        assert "sum to 1" in capsys.readouterr().out
        return
    before = path.read_bytes()
    for name, loaded in list(sys.modules.items()):
        if name.startswith("swinft.") and hasattr(loaded, "check_submission"):
            monkeypatch.setattr(loaded, "check_submission", lambda *_: ["line 2 would be refused"])
    inode = path.stat().st_ino
    assert main(["submit", str(path.parent)]) == 2
    assert (path.stat().st_ino, path.read_bytes()) == (inode, before)


def test_f036_a_profile_and_a_summary_that_are_asked_for_appear(competition, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(
        logging.getLogger("lightning.pytorch"), "propagate", True
    )  # or caplog misses it, by pytest's version
    changes = {"trainer.profiler": "simple", "trainer.enable_model_summary": True, "trainer.max_epochs": 1}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    said = caplog.text
    assert "run_training_batch" in said
    assert "Trainable params" in said


def test_f125_a_logger_that_is_not_installed_is_said_before_anything_is_made(competition, tmp_path, capsys):
    logger = {"class_path": "lightning.pytorch.loggers.CometLogger"}
    changes = {"trainer.logger": logger}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 2
    assert "comet" in capsys.readouterr().err
    assert not list((tmp_path / "runs").glob("[!.]*"))
