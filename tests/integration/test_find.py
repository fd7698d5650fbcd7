"""`swinft find`: a learning rate and a batch size, measured in throw-away processes and verified."""

import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

import swinft
from swinft.cli import main
from swinft.model.task import FineTuneTask
from swinft.run import throw_away
from swinft.run.find import batch
from swinft.run.layout import Run
from swinft.run.lock import hold
from tests.conftest import in_this_process, tiny_config, write_config
from tests.integration.gpu import heads
from tests.json_documents import document_of

HEADS = "tests.integration.gpu.heads"


@pytest.fixture
def config(competition, tmp_path, monkeypatch):
    """A config; what child processes would do is done in this one."""
    monkeypatch.setattr(throw_away, "run_children", in_this_process)
    return write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))


@pytest.fixture
def steps(monkeypatch):
    """What every training step is given: rows, those that fold 0 trains on, and learning rates."""
    seen, before = [], FineTuneTask.training_step

    def step(task, given, index):
        trained = set(task.trainer.datamodule.splits.trained_on(0).tolist())
        seen.append(
            (given["row"].tolist(), trained, [group["lr"] for group in task.trainer.optimizers[0].param_groups])
        )
        return before(task, given, index)

    monkeypatch.setattr(FineTuneTask, "training_step", step)
    return seen


def find(config, *options):
    return main(["find", "--config", str(config), "--steps", "20", *options])


def verified(said):
    """Rates and losses of the table of verified rates."""
    table = said.partition("verified by")[2]
    rows = re.findall(r"^ +([\d.e-]+) +(?:[\d.e-]+ +)?([\d.]+|diverged)(?:  best)?$", table, re.MULTILINE)
    return {float(rate): float(loss) if loss != "diverged" else np.inf for rate, loss in rows}


def test_the_best_of_three_verified_rates_is_printed(config, tmp_path, steps, capsys, monkeypatch):
    monkeypatch.setattr("swinft.data.datamodule.CSVDataModule.val_dataloader", None)  # held-out rows are not read
    options = ["--steps", "40", "--model.optim.layer_decay", "0.5", "--model.optim.head_lr", "0.006", "--seeds", "[7]"]
    assert find(config, *options) == 0
    said = capsys.readouterr().out
    found = yaml.safe_load(said[said.index("model:\n") :])["model"]["optim"]
    table = verified(said)
    assert len(table) == 3
    assert min(table, key=table.get) == found["lr"]
    assert found["head_lr"] == pytest.approx(2 * found["lr"], rel=0.05)
    assert "batch_size is left out: on a CPU" in said
    assert not (tmp_path / "runs").exists()
    assert all(set(rows) <= trained and len(trained) == 12 for rows, trained, _ in steps)
    ratios = np.array([np.array(rates) / max(rates) for *_, rates in steps])
    assert np.allclose(ratios, ratios[0], rtol=0.06)  # of layers and head, also in the verifications, with two digits
    assert ratios[0].min() < 0.3
    tested = [max(rates) for *_, rates in steps]
    assert tested[:3] == pytest.approx([2e-7, 2e-7 * 1e8 ** (1 / 39), 2e-7 * 1e8 ** (2 / 39)])


def test_the_largest_batch_that_fits_is_found_and_accumulated(competition, tmp_path, config, monkeypatch):
    # A real limit of the process: 8 rows of 1,000 MB fit, 12 do not; 10 may, in what earlier tests have freed.
    monkeypatch.setattr(batch, "available_memory", lambda: 10000 << 20)
    monkeypatch.setattr(heads.LargeHead, "megabytes", 1000)
    changes = {"model.head": {"class_path": f"{HEADS}.LargeHead"}, "data.batch_size": 12}
    given = tiny_config(competition, tmp_path / "runs", **changes)
    found = swinft.find(given, what=["batch_size"], allow_code=HEADS)
    assert found.keys == {"data.batch_size": 6, "trainer.accumulate_grad_batches": 2}
    assert re.fullmatch(r"largest batch that fits into 90% of the free memory: (8|10) of at most 12", found.lines[0])
    assert yaml.safe_load(found.yaml) == {"data": {"batch_size": 6}, "trainer": {"accumulate_grad_batches": 2}}
    assert not (tmp_path / "runs").exists()


def test_batches_are_tried_as_the_last_epochs_train_on_them(competition, tmp_path, monkeypatch):
    """Smaller images, a frozen backbone and a warm-up that is longer than the trial belong to the first epochs."""
    tried, step = set(), FineTuneTask.training_step

    def seen(task, given, index):
        is_trained = all(parameter.requires_grad for parameter in task.net.parameters())
        tried.add((tuple(given["image"].shape[-2:]), is_trained, task._sizes))
        return step(task, given, index)

    monkeypatch.setattr(FineTuneTask, "training_step", seen)
    monkeypatch.setattr(throw_away, "run_children", in_this_process)
    changes = {
        "model.backbone": "test_resnet", "model.backbone_args": None, "model.compute.fast_attention": False,
        "model.freeze_epochs": 1, "model.optim.sizes": [{"size": 16, "epochs": 1}], "model.optim.warmup_epochs": 2,
        "trainer.max_epochs": 4, "data.batch_size": 4,
    }  # fmt: skip
    found = swinft.find(tiny_config(competition, tmp_path / "runs", **changes), what=["batch_size"])
    assert found.keys["data.batch_size"] == 4
    assert tried == {((32, 32), True, None)}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--steps", "3"], "--steps is 3. Allowed: a number from 20"),
        (["--what", "speed"], "what"),
        (["--trainer.fast_dev_run", "true"], "trainer.fast_dev_run tries a run"),
        (["--data.target", "colour"], "'colour'"),
        (["--model.head", f"{HEADS}.NaNHead", "--allow-code", HEADS], "the loss of NaNHead is nan in a trial step"),
    ],
)
def test_what_cannot_be_found_is_an_error(options, words, config, capsys):
    assert find(config, *options) == 2
    assert words in capsys.readouterr().err


# --- slow: many configs, real processes

CONFIGS = {
    "sam": {"model.optim.name": "sam", "trainer.accumulate_grad_batches": 1},
    "schedule-free": {
        "model.optim.name": "schedulefree_adamw",
        "model.optim.schedule": "constant",
        "model.ema_decay": None,
    },
    "accumulated": {"trainer.accumulate_grad_batches": 2, "trainer.max_steps": 1, "trainer.max_epochs": None},
    "device": {"data.loading.augment_on": "device", "data.loading.sampler": "balanced"},
    "lora": {"model.optim.freeze": {"share": 1, "lora": {"rank": 2}}},
    "frozen at first": {"model.freeze_epochs": 1, "model.mix": {"mixup_alpha": 0.4, "cutmix_alpha": 1.0}},
    "probe": {"model.freeze_epochs": 2, "model.optim.sizes": [{"size": 16, "epochs": 1}], "model.backbone": "resnet18"},
    "auxiliary": {"data.columns": {"auxiliary": [{"target": "brightness", "target_kind": "regression"}]}},
    "several images": {"data.image": ["images/{id}.jpg", "images/{id}.jpg"]},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_every_recipe_has_a_rate_and_a_batch_and_the_same_ones_again(name, competition, tmp_path, config, monkeypatch):
    changes = {"data.loading.cache_dir": str(tmp_path / "cache"), **CONFIGS[name]}
    given = tiny_config(competition, tmp_path / "runs", **changes)
    if given["model"]["backbone"] == "resnet18":
        del given["model"]["backbone_args"]
    given["model"]["optim"].pop("warmup_epochs")
    steps = 100 if name == "auxiliary" else 20  # two losses are noisier than one
    first, again = (swinft.find(given, what=["lr", "batch_size"], steps=steps) for _ in range(2))
    assert first.lines[2:] == again.lines[2:]
    assert first.keys == again.keys
    assert {"data.batch_size", "trainer.accumulate_grad_batches", "model.optim.lr"} <= first.keys.keys()
    if name in ("several images", "sam"):
        run = swinft.fit(given, {**first.keys, "trainer.max_epochs": 1})  # the keys are those of a config
        assert run.config["model"]["optim"]["lr"] == first.keys["model.optim.lr"]


@pytest.mark.slow
def test_three_rows(tmp_path, competition, config, capsys):
    table = (competition / "train.csv").read_text().splitlines()
    (tmp_path / "train.csv").write_text("\n".join([*table[:7], ""]))
    options = ["--data.train", str(tmp_path / "train.csv"), "--data.batch_size", "32"]
    code = find(config, *options)
    said = capsys.readouterr()
    assert code == 0 or "does not fall by more than its noise" in said.err
    assert "fold 0: 3 rows to train on" in said.out


@pytest.mark.slow
def test_a_killed_process_has_tried_too_large_a_batch(config, capsys, monkeypatch):
    tried = []

    def fits(brief, size, accumulate, steps, epochs):
        tried.append((size, accumulate))
        if size > 4:
            raise SystemExit(137)
        return True

    def killed(children, slots):
        try:
            return in_this_process(children)
        except SystemExit as stop:
            return {0: stop.code}

    monkeypatch.setattr(throw_away, "run_children", killed)
    monkeypatch.setattr("swinft.run.find.child.fits", fits)
    monkeypatch.setattr(batch, "fits", fits)
    found = document_of(capsys, "find", "--config", str(config), "--what", "batch_size")
    assert found["keys"]["data.batch_size"] == 3
    assert tried[-1] == (3, 2)


@pytest.mark.slow
def test_a_run_of_the_same_name_is_not_touched_and_ctrl_c_leaves_no_process(competition, tmp_path):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    run = Run.at(tmp_path / "runs" / "tiny")
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    (tmp_path / "temporary").mkdir()
    words = [sys.executable, "-m", "swinft", "find", "--config", str(config), "--steps", "100000"]
    with hold(run.lock, root=run.root):
        before = sorted(tmp_path.joinpath("runs").rglob("*"))
        process = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
        for line in process.stdout:
            if "fold 0: 12 rows" in line:
                break
        until = time.monotonic() + 60
        while not children_of(process.pid) and time.monotonic() < until:
            time.sleep(0.1)
        children = children_of(process.pid)
        time.sleep(8)  # the training has begun
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(30) == 130
        assert sorted(tmp_path.joinpath("runs").rglob("*")) == before
    assert children
    assert not [pid for pid in children if os.path.exists(f"/proc/{pid}")]
    assert not [path for path in (tmp_path / "temporary").iterdir() if "runs" in os.listdir(path)]


def children_of(pid):
    """Ids of the child processes of one."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(each) for each in found.stdout.split()]
