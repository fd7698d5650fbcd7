"""Damage, second starters, folders that cannot be written to, data that changes: each is found, named and survived."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from swinft.cli import main
from swinft.errors import InputError, StoreError
from swinft.run.layout import Run
from swinft.run.lock import hold
from swinft.store import commit, newest_intact, probe
from tests.conftest import ROOT, power_gone_after, tiny_config, write_config
from tests.integration.test_end_to_end import start


def flip(content: bytes) -> bytes:
    """One bit in the middle: neither torch nor safetensors notices."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGE = {
    "flip": flip,
    "truncate": lambda content: content[:-100],
    "empty": lambda content: b"",
    "zero-page": lambda content: content[:4096] + bytes(4096) + content[8192:],
}


@pytest.fixture(scope="module")
def interrupted(competition, tmp_path_factory):
    """A run that lost its power after the third of four epochs, and the OOF it would have had."""
    folder = tmp_path_factory.mktemp("interrupted")
    config = write_config(folder / "c.yaml", tiny_config(competition, folder / "runs", **{"trainer.max_epochs": 4}))
    assert main(["fit", "--config", str(config), "--fold", "0", "--name", "whole"]) == 0
    with power_gone_after(3):
        main(["fit", "--config", str(config), "--fold", "0", "--name", "parts"])
    shutil.copytree(folder / "runs" / "parts", folder / "backup")
    return folder


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_goes_on(
    damage, interrupted, tmp_path, capsys, monkeypatch
):
    run = Run(interrupted / "runs" / "parts")
    shutil.rmtree(run.root)
    shutil.copytree(interrupted / "backup", run.root)
    fold = run.fold(0)
    newest, before = fold.checkpoints
    newest.write_bytes(DAMAGE[damage](newest.read_bytes()))
    assert main(["fit", "--config", str(interrupted / "c.yaml"), "--fold", "0", "--name", "parts", "--resume"]) == 0
    out, err = capsys.readouterr()
    assert f"WARNING: {newest} is damaged; moved to {fold.root / 'quarantine' / newest.name}" in err
    assert f"resumed from {before.name}" in out
    whole = interrupted / "runs" / "whole" / "fold_0" / "oof.csv"
    assert fold.oof.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("name", ["fold_1/weights.safetensors", "schema.json", "folds.csv"])
def test_damaged_artefacts_are_named_and_not_used(name, tiny_run, tmp_path, capsys):
    shutil.copytree(tiny_run, tmp_path / "run")
    path = tmp_path / "run" / name
    path.write_bytes(flip(path.read_bytes()))
    before = (tmp_path / "run" / "test_predictions.csv").read_bytes()
    assert main(["predict", str(tmp_path / "run"), "--device", "cpu"]) == 1
    assert f"{path} has changed since it was written" in capsys.readouterr().err
    assert (tmp_path / "run" / "test_predictions.csv").read_bytes() == before


def test_nothing_starts_from_scratch_when_every_checkpoint_is_damaged(tmp_path):
    paths = [tmp_path / f"epoch-{epoch}.ckpt" for epoch in (2, 1)]
    for path in paths:
        commit(path, b"good", "test")
        path.write_bytes(b"bad!")
    with pytest.raises(StoreError, match=r"none of the artefacts .* Delete .* to start from scratch"):
        newest_intact(paths)
    assert sorted(p.name for p in (tmp_path / "quarantine").glob("*.ckpt")) == ["epoch-1.ckpt", "epoch-2.ckpt"]
    assert newest_intact([]) is None


@pytest.mark.slow
def test_a_second_process_in_the_same_run_refuses_and_names_the_first(competition, tmp_path, capsys):
    config = write_config(
        tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **{"trainer.max_epochs": 500})
    )
    process = start("fit", "--config", str(config))
    try:
        run = Run(tmp_path / "runs" / "tiny")
        deadline = time.monotonic() + 60
        while not run.fold(0).checkpoints and time.monotonic() < deadline:
            time.sleep(0.05)
        for option in ("--resume", "--overwrite"):
            assert main(["fit", "--config", str(config), option]) == 2
            assert f"tiny is in use by process {process.pid} on " in capsys.readouterr().err
        assert main(["fit", "--config", str(config), "--fold", "0", "--resume"]) == 2
        assert "tiny.fold_0 is in use by process" in capsys.readouterr().err
    finally:
        process.kill()
        process.communicate()


def test_a_second_starter_is_refused_before_anything_heavy_is_imported(competition, tmp_path):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", name="other"))
    code = "import sys; from swinft.cli import main; code = main(sys.argv[1:]); print(code, 'torch' in sys.modules)"
    words = [sys.executable, "-c", code, "fit", "--config", str(config), "--name=tiny"]
    run = Run(tmp_path / "runs" / "tiny")
    for lock, options in ((run.lock, ["--resume"]), (run.fold(1).lock, ["--fold", "1"])):
        with hold(lock):
            done = subprocess.run([*words, *options], cwd=ROOT, capture_output=True, text=True, check=True)
        assert f"in use by process {os.getpid()} on " in done.stderr
        assert done.stdout.split() == ["2", "False"]


@pytest.mark.parametrize("options", [[], ["--fold", "0"]], ids=["run", "fold"])
def test_overwrite_deletes_no_run_whose_other_folds_are_being_fitted(options, interrupted, capsys):
    run = Run(interrupted / "runs" / "parts")
    before = sorted(run.root.rglob("*"))
    words = ["fit", "--config", str(interrupted / "c.yaml"), "--name", "parts", "--overwrite", *options]
    with hold(run.fold(1).lock):
        assert main(words) == 2
    assert "parts.fold_1 is in use by process" in capsys.readouterr().err
    assert sorted(run.root.rglob("*")) == before


def test_a_lock_is_free_again_when_its_holder_is_gone(tmp_path):
    for _ in range(2):
        with hold(tmp_path / "run.lock"):
            pass
    with hold(tmp_path / "run.lock"), pytest.raises(InputError, match="in use"), hold(tmp_path / "run.lock"):
        pass


def test_a_folder_that_cannot_be_written_to_is_found_before_training(competition, tmp_path, capsys):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, blocked / "runs"))
    assert main(["fit", "--config", str(config)]) == 2
    assert f"runs cannot be written to {blocked / 'runs'}: " in capsys.readouterr().err


def test_too_little_space_is_found_before_training(tmp_path):
    with pytest.raises(InputError, match=r"GB free, the run needs about 1000000\.0 GB"):
        probe(tmp_path, 10**15)
    probe(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_data_that_changed_since_the_start_is_refused(competition, tmp_path, capsys):
    root = tmp_path / "data"
    shutil.copytree(competition, root)
    config = write_config(tmp_path / "c.yaml", tiny_config(root, tmp_path / "runs", **{"trainer.max_epochs": 1}))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    train = root / "train.csv"
    train.write_text(train.read_text().replace("000,red", "000,blue"))
    assert main(["fit", "--config", str(config), "--fold", "1", "--resume"]) == 2
    err = capsys.readouterr().err
    assert "was started with other data" in err
    assert f"{train} (SHA-256 was " in err


def test_a_loss_that_is_lost_stops_the_fold_and_names_the_rows(competition, tmp_path, capsys):
    changes = {"model.optim": {"lr": 1e38, "warmup_epochs": 0}, "trainer.gradient_clip_val": None}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 2
    err = capsys.readouterr().err
    assert "fold 0: the loss became NaN or infinite in epoch 1, batch 1 (ids 0" in err
    assert "highest learning rate now" in err
    assert not Run(tmp_path / "runs" / "tiny").fold(0).checkpoints
