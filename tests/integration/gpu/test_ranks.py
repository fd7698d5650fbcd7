"""Several processes that fit one fold: they stop together, send no more than they must, and are as many as at the start."""

import os
import subprocess
import sys

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from swinft import ClassificationHead, FineTuneTask
from swinft.cli import main
from swinft.errors import InputError
from swinft.model.settings import TaskContext
from swinft.run.folds.recorder import FoldRecorder
from tests.conftest import ROOT, TINY_SWIN, tiny_config, write_config


class BrokenOnOneRank(ClassificationHead):
    """Its loss is infinite on the second rank, and finite on the first."""

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        losses = super().loss(logits, target)
        return losses / 0 if os.environ.get("LOCAL_RANK") == "1" else losses


@pytest.mark.slow
def test_s4_a_broken_batch_of_one_rank_stops_all_of_them_with_the_same_message(competition, tmp_path):
    changes = {"trainer.devices": 2, "trainer.strategy": "ddp", "model.ema_decay": None}
    changes["model.head"] = {"class_path": f"{__name__}.BrokenOnOneRank"}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    words = [sys.executable, "-m", "swinft", "fit", "--config", str(config), "--fold", "0", "--allow-code", "tests"]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2, done.stderr
    said = [line for line in done.stderr.splitlines() if "the loss became NaN or infinite in epoch 1, batch 0" in line]
    # With the ids of the second rank's batch. A rank that the first one has outrun ends before it says so.
    assert len(set(said)) == 1, done.stderr
    for noise in ("Traceback", "Connection closed", "sync_dist"):
        assert noise not in done.stderr
    assert not list((tmp_path / "runs" / "tiny" / "fold_0").glob("epoch-*.ckpt"))


@pytest.fixture
def alone(tmp_path):
    """A process group of one."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("backbone", "arguments"),
    [("swin_tiny_patch4_window7_224", TINY_SWIN), ("swinv2_tiny_window8_256", TINY_SWIN), ("resnet18", None)],
)
def test_s7_only_running_statistics_are_sent_before_each_forward(backbone, arguments, alone):
    task = FineTuneTask(
        ClassificationHead, backbone=backbone, backbone_args=arguments, pretrained=False, num_outputs=3, context=TaskContext(image_size=32),
        ema_decay=0.9,
    )  # fmt: skip
    wrapped = DistributedDataParallel(task)
    names = {id(buffer): name for name, buffer in task.named_buffers()}
    sent = {names[id(buffer)] for buffer in wrapped.modules_buffers}
    running = {name for name in names.values() if name.rpartition(".")[2].startswith("running_")}
    heads = {"net.head.weights", "averaged.module.head.weights"}  # a number per class
    assert sent == running | heads
    assert bool(running) == (backbone == "resnet18")
    assert {name.partition(".")[0] for name in sent} == {"net", "averaged"}  # one is trained, the other validated


def test_running_statistics_that_come_with_the_first_validated_batch_are_no_change(competition, tmp_path, monkeypatch):
    """DDP sends those of the first rank before each forward pass: the other ranks ended with an error."""
    step = FineTuneTask.validation_step

    def received(task, batch, batch_idx, *more):
        for name, buffer in task.named_buffers():
            if batch_idx == 0 and name.endswith("running_mean"):
                buffer += 0.01
        return step(task, batch, batch_idx, *more)

    monkeypatch.setattr(FineTuneTask, "validation_step", received)
    changes = {"model.backbone": "test_resnet", "model.backbone_args": None, "trainer.max_epochs": 1}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0


def test_s7_buffers_of_a_users_head_are_still_sent(alone):
    class Counting(ClassificationHead):
        def __init__(self, num_features: int, num_outputs: int) -> None:
            super().__init__(num_features, num_outputs)
            self.register_buffer("seen", torch.zeros(()))

    task = FineTuneTask(
        Counting, backbone_args=TINY_SWIN, pretrained=False, num_outputs=3, context=TaskContext(image_size=32)
    )
    assert any(buffer is task.net.head.seen for buffer in DistributedDataParallel(task).modules_buffers)


def interrupted(config, monkeypatch) -> list[str]:
    """Ends a fold after its first epoch; returns the words that go on with it."""
    words = ["fit", "--config", str(config), "--fold", "0"]

    start = FoldRecorder.on_train_epoch_start

    def stop(recorder, *given):
        if recorder.history:
            raise InputError("enough")
        start(recorder, *given)

    with monkeypatch.context() as patch:
        patch.setattr(FoldRecorder, "on_train_epoch_start", stop)
        assert main(words) == 2
    return [*words, "--resume"]


def test_w1_a_checkpoint_of_one_process_is_refused_by_two(competition, tmp_path, monkeypatch, capsys):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    words = interrupted(config, monkeypatch)
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(pl.Trainer, "world_size", property(lambda _: 2))
        patch.setattr(FineTuneTask, "_of_all_ranks", lambda _, value: [value, value])
        assert main(words) == 2
    err = capsys.readouterr().err
    assert (
        "its checkpoint was saved with 1 process, 6 rows per batch, 1 batch per step, and this process has 2 processes"
        in err
    )
    assert main(words) == 0


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_w1_a_rank_that_the_fold_does_not_have_is_refused(name, competition, tmp_path, monkeypatch, capsys):
    """A launcher that starts two processes for a fold on one device: the second one would write the first one's files."""
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    words = interrupted(config, monkeypatch)
    monkeypatch.setenv(name, "1")
    capsys.readouterr()
    assert main(words) == 2
    err = capsys.readouterr().err
    assert f"{name} is 1 in the environment, but fold 0 is fitted on 1 device(s)" in err
