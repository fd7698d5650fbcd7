"""Children of a command: they end with it, whatever ends it, and what they said is kept."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import Namespace

from swinft.cli import main
from swinft.data.datamodule import CSVDataModule
from swinft.data.inspection.scan import ImageSet
from swinft.data.loading.dataset import PADDING, ImageDataset
from swinft.errors import InputError
from swinft.run import fit
from swinft.run.compute.devices import check_devices, devices_per_fold, freeze_devices, slots_for
from swinft.run.layout import Fold, Run
from swinft.run.lock import hold
from swinft.store import commit
from swinft.system import processes
from tests.conftest import PYTHON_LINE, ROOT, tiny_config, write_config

# A parent as `swinft fit` and `swinft predict --devices` are one, whose children cost no imports.
PARENT = """
import signal
import sys
from swinft.system import processes
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs begin with it ignored
from swinft.system.processes import Child, run_children
sys.executable = sys.argv[1]
processes.TERMINATED_SECONDS = 1.0
try:
    codes = run_children({k: Child(words.split(",")) for k, words in enumerate(sys.argv[2:])}, [{}, {}], together=True)
except KeyboardInterrupt:
    sys.exit(130)
print(codes)
"""
CHILD = f"""{PYTHON_LINE}
import os, signal, sys, time
from pathlib import Path
from swinft.system.orphans import end_with_parent
end_with_parent()
for name in sys.argv[4:]:  # after -m swinft FOLDER
    if name == "fail":
        sys.exit(3)
    signal.signal(getattr(signal, name), signal.SIG_IGN)
(Path(sys.argv[3]) / str(os.getpid())).touch()
time.sleep(60)
"""


@pytest.fixture
def parent(tmp_path):
    """Starts a parent with two children that live for a minute; returns it and their ids."""
    stub = tmp_path / "stub"
    stub.write_text(CHILD)
    stub.chmod(0o755)
    (tmp_path / "ids").mkdir()
    started = []

    def start(*ignored: str) -> tuple[subprocess.Popen[str], list[int]]:
        words = ",".join([str(tmp_path / "ids"), *ignored])
        command = [sys.executable, "-c", PARENT, str(stub), words, words]
        started.append(subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True))
        wait_for(lambda: len(list((tmp_path / "ids").iterdir())) == 2)
        return started[0], [int(path.name) for path in (tmp_path / "ids").iterdir()]

    yield start
    for process in started:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(happened, seconds=20):
    until = time.monotonic() + seconds
    while not happened() and time.monotonic() < until:
        time.sleep(0.02)
    assert happened()


def lives(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False


def test_f047_children_of_a_killed_parent_end_with_it(parent):
    process, children = parent("SIGINT", "SIGTERM", "SIGHUP")
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: not any(map(lives, children)), seconds=5)


def test_f047_sigterm_to_the_parent_ends_its_children(parent):
    process, children = parent()
    process.terminate()
    assert process.wait(timeout=10) == 143
    assert not any(map(lives, children))


@pytest.mark.parametrize("ignored", [["SIGINT"], ["SIGINT", "SIGTERM"]], ids=["sigint", "both"])
def test_f048_sigint_to_the_parent_alone_ends_its_children(ignored, parent):
    process, children = parent(*ignored)
    started = time.monotonic()
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(timeout=15) == 130
    assert time.monotonic() - started >= processes.INTERRUPTED_SECONDS  # the terminal's own Ctrl-C comes first
    assert not any(map(lives, children))


def test_f048_a_second_signal_does_not_wait(parent):
    process, children = parent("SIGINT", "SIGTERM")
    started = time.monotonic()
    for _ in range(2):
        os.kill(process.pid, signal.SIGINT)
        time.sleep(0.5)
    assert process.wait(timeout=5) == 130
    assert time.monotonic() - started < processes.INTERRUPTED_SECONDS
    assert not any(map(lives, children))


def test_f053_a_part_that_fails_ends_the_others_at_once(tmp_path):
    stub = tmp_path / "stub"
    stub.write_text(CHILD)
    stub.chmod(0o755)
    command = [sys.executable, "-c", PARENT, str(stub), str(tmp_path), f"{tmp_path},fail"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.strip() in ("{1: 3, 0: 143}", "{1: 3, 0: 137}")


def test_f053_what_a_fold_says_is_shown_and_kept_in_its_log(tmp_path, capfd, monkeypatch):
    stub = tmp_path / "stub"
    # Each line in one piece: `print` writes its end by itself, and the other stream's line may come between.
    stub.write_text(
        f"{PYTHON_LINE}\nimport os\nos.write(1, 'said ü\\n'.encode())\nos.write(2, b'complained\\n')\nos._exit(5)\n"
    )
    stub.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(stub))
    log = Run(tmp_path / "run").fold(0).log
    for _ in range(2):  # and again on resume
        assert processes.run_children({7: processes.Child(["fit"], {}, log)}, [{}]) == {7: 5}
    out, err = capfd.readouterr()
    assert (out, err) == ("said ü\n" * 2, "complained\n" * 2)
    lines = [line[21:] for line in log.read_text().splitlines()]  # after date and time
    assert (lines[0], lines[3]) == ("--- started: swinft fit", "--- ended with exit code 5")
    assert lines[4:].count("--- started: swinft fit") == 1
    assert sorted(line for line in lines if "---" not in line) == ["complained"] * 2 + ["said ü"] * 2


@pytest.mark.parametrize(
    ("codes", "words", "advises"),
    [({0: 137}, "lack of memory: --data.loading.num_workers 0", True), ({0: 2}, "says what to change", False)],
    ids=["killed", "refused"],
)
def test_f053_a_fold_that_ended_badly_is_explained(codes, words, advises, competition, tmp_path, capsys, monkeypatch):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    monkeypatch.setattr(fit, "run_children", lambda *_, **__: codes)
    assert main(["fit", "--config", str(config)]) == codes[0]
    err = capsys.readouterr().err
    assert words in err
    assert str(tmp_path / "runs" / "tiny" / "fold_0" / "log.txt") in err
    assert ("Resume with: swinft fit" in err) == advises  # a command that is in use, or wrong, would only say so again


def test_f053_ten_thousand_epochs_are_newer_than_9999(tmp_path):
    fold = Fold(tmp_path, 0)
    for epoch in (9999, 10000, 10001):
        commit(fold.checkpoint(epoch), b"x", "test")
    assert [path.name for path in fold.checkpoints] == ["epoch-10001.ckpt", "epoch-10000.ckpt", "epoch-9999.ckpt"]


def test_f053_the_note_of_who_holds_a_lock_goes_with_the_lock(tmp_path):
    with pytest.raises(InputError), hold(tmp_path / "a.lock"):
        raise InputError("wrong")
    assert not (tmp_path / "a.json").exists()


def test_f053_a_part_prints_no_next_step(tiny_run, tmp_path, capsys):
    words = ["--device", "cpu", "--part", "0/2", "--output", str(tmp_path / "part.csv")]
    assert main(["predict", str(tiny_run), *words]) == 0
    assert "next:" not in capsys.readouterr().out


def test_f053_one_named_device_is_not_shared(tiny_run, monkeypatch, capsys):
    monkeypatch.setattr("swinft.run.prediction.options.choose_device", lambda _: torch.device("cuda", 1))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert main(["predict", str(tiny_run), "--device", "cuda:1", "--devices", "2"]) == 2
    assert "--device cuda:1 names one device, --devices 2 several: give --device cuda." in capsys.readouterr().err
    assert main(["predict", str(tiny_run), "--device", "cuda", "--devices", "8"]) == 2
    assert "--devices is 8, but there are 4 GPUs here." in capsys.readouterr().err


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_f050_a_rank_without_a_fold_is_refused(name, competition, tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    monkeypatch.setenv(name, "1")
    assert main(["fit", "--config", str(config)]) == 2
    assert f"{name} is 1 in the environment" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("command", ["fit", "check", "predict", "submit"])
def test_f050_a_rank_that_is_no_number_is_refused(command, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "x")
    assert main([command, "--config", "nowhere.yaml"]) == 2
    assert "RANK is 'x'" in capsys.readouterr().err


def test_f050_an_empty_rank_is_none(competition, tmp_path, monkeypatch):
    """Lightning reads it as a number when it is imported."""
    monkeypatch.setenv("SLURM_PROCID", "")
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    assert main(["fit", "--config", str(config), "--fold", "7"]) == 2  # there is none, which is said much later
    assert "SLURM_PROCID" not in os.environ


def gpus(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


def settings(devices="auto", per_fold=None) -> Namespace:
    return Namespace(trainer=Namespace(accelerator="auto", devices=devices), devices_per_fold=per_fold)


def test_f039_the_last_fold_gets_as_many_devices_as_the_others(tmp_path, monkeypatch):
    run = Run(tmp_path / "run")
    gpus(monkeypatch, 2)
    freeze_devices(run, devices_per_fold(settings(), 5))
    check_devices(run, settings())
    assert slots_for(settings(), run.devices_per_fold(), 1) == [{"CUDA_VISIBLE_DEVICES": "0"}]
    gpus(monkeypatch, 8)
    assert slots_for(settings(), run.devices_per_fold(), 1) == [{"CUDA_VISIBLE_DEVICES": "0"}]


@pytest.mark.parametrize(
    ("frozen", "here", "config", "words"),
    [
        (2, 1, settings(), "fitted on 2 GPUs, and this machine has 1"),
        (2, 0, settings(), "fitted on 2 GPUs, and this machine has 0"),
        (1, 2, settings(per_fold=2), r"fitted on 1 device, and 2 are requested"),
        (2, 4, settings(devices=-1), r"fitted on 2 devices, and 4 are requested"),
        (2, 4, settings(devices="0,1,2"), r"fitted on 2 devices, and 3 are requested"),
    ],
)
def test_f039_a_resume_on_other_devices_is_refused(frozen, here, config, words, tmp_path, monkeypatch):
    run = Run(tmp_path / "run")
    gpus(monkeypatch, here)
    freeze_devices(run, frozen)
    with pytest.raises(InputError, match=words):
        check_devices(run, config)


def test_f039_devices_are_frozen_with_the_run(tiny_run):
    assert json.loads((tiny_run / "devices.json").read_text()) == {"devices_per_fold": 1}


TARGETS = {
    "classification": (np.array([-1, 2, 1]), 2),
    "regression": (np.array([[np.nan], [3.5], [1.0]], dtype=np.float32), [3.5]),
    "several": (np.array([[1.0, np.nan], [0.0, 1.0], [1.0, 1.0]], dtype=np.float32), [0.0, 1.0]),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_f051_padding_carries_the_target_of_a_row_that_is_used(kind):
    targets, expected = TARGETS[kind]
    rows = ImageDataset(None, ImageSet(["a", "b", "c"]), None, (4, 4), 0, targets=targets)
    assert rows[0, PADDING]["target"].tolist() == expected
    assert rows[0, PADDING]["row"] == PADDING


def test_f051_a_skipped_first_row_does_not_reach_the_loss(competition):
    lines = (competition / "train.csv").read_text().splitlines()
    lines[1] = lines[1].replace(",red,", ",,")
    (competition / "first_row_empty.csv").write_text("\n".join(lines) + "\n")
    data = CSVDataModule(
        target="color", target_kind="classification", train="first_row_empty.csv", root=str(competition), folds={"num": 2},
        image="images/{id}.jpg", image_size=32, columns={"on_missing_target": "skip"}, batch_size=6,
    )  # fmt: skip
    data.setup("fit")
    assert data.targets[0] == -1
    assert data.val_dataloader().dataset[0, PADDING]["target"] >= 0


@pytest.mark.slow
def test_children_import_from_where_their_parent_does(competition, tmp_path, monkeypatch):
    name = f"beside_{tmp_path.name}"
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / f"{name}.py").write_text(
        "from swinft import ClassificationHead\nclass Head(ClassificationHead): pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "code")  # as a notebook's sys.path.append of a folder of the competition
    changes = {"model.head": {"class_path": f"{name}.Head"}}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    child = processes.Child(["check", "--config", str(config), "--allow-code", name])
    assert processes.run_children({0: child}, [{}]) == {0: 0}


def test_no_loader_worker_outlives_the_pass_that_needed_it(competition, tmp_path):
    """One that is left to the collector of garbage holds up the program for five seconds, at any time later."""
    changes = {"data.loading.num_workers": 2, "trainer.max_epochs": 1}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    assert multiprocessing.active_children() == []
    run = str(tmp_path / "runs" / "tiny")
    assert main(["predict", run, "--folds", "0", "--device", "cpu", "--num_workers", "1"]) == 0
    assert multiprocessing.active_children() == []
