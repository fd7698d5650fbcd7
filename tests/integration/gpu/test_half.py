"""fp16 as on GPUs without bf16 units, on a CPU: loss scaling, steps that it skips, and number formats."""

import json
import math
import warnings
from contextlib import contextmanager
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from safetensors.torch import load_file

import swinft.model.task as task_module
from swinft import FineTuneTask, OptimConfig
from swinft.cli import main
from swinft.model.attention import swin as window_attention
from swinft.model.backbones.timm_backbone import create_backbone
from swinft.model.training.loss_scaling import first_not_finite
from swinft.model.training.schedules import warmup_cosine
from swinft.run.experiment import Experiment
from swinft.run.folds.recorder import FoldRecorder
from tests.conftest import TINY_SWIN, tiny_config, write_config
from tests.model.test_task import Rows, make_task
from tests.model.test_task import fit as fit_task


def half(**options) -> MixedPrecision:
    """What Lightning makes of `16-mixed` on a GPU, for this CPU."""
    return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", **options))


@pytest.fixture
def checked(monkeypatch) -> list[torch.dtype]:
    """What the attention's check computes in, in the order of its calls."""
    dtypes: list[torch.dtype] = []
    results = window_attention._results

    def seen(block, x, dtype):
        dtypes.append(dtype)
        return results(block, x, dtype)

    monkeypatch.setattr(window_attention, "_results", seen)
    return dtypes


def test_w6_the_attention_is_checked_in_what_a_trainer_trains_in(checked):
    fit_task(make_task(), Rows(8), max_epochs=1, plugins=[half()])
    assert set(checked) == {torch.float, torch.half}
    checked.clear()
    fit_task(make_task(), Rows(8), max_epochs=1)
    assert set(checked) == {torch.float}


def test_w6_the_attention_is_checked_in_what_a_run_trains_and_predicts_in(checked, competition, tmp_path):
    changes = {"trainer.precision": "bf16-mixed", "trainer.max_epochs": 1}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 0
    assert checked.count(torch.bfloat16) == checked.count(torch.float)
    per_network = len(checked) // 2  # one that trains, one that predicts
    checked.clear()
    assert main(["predict", str(tmp_path / "runs" / "tiny"), "--folds", "0", "--device", "cpu"]) == 0
    assert set(checked) == {torch.float, torch.bfloat16}
    assert len(checked) == per_network


def test_s12_a_kernel_is_compiled_for_the_formats_that_are_used_only(monkeypatch):
    model = create_backbone("swin_tiny_patch4_window7_224", 32, False, backbone_args=dict(TINY_SWIN)).model
    dtypes = []
    monkeypatch.setattr(window_attention, "_results", lambda block, x, dtype: dtypes.append(dtype) or [x])
    window_attention.accelerate(model, torch.device("cpu"), "torch", torch.half)
    assert set(dtypes) == {torch.float, torch.half}


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_w6_large_weights_are_no_false_alarm_in_fp16(name):
    size = {"swinv2_tiny_window8_256": 64}.get(name, 56)
    torch.manual_seed(0)
    wide = {"depths": [2], "embed_dim": 384, "num_heads": [12]}
    model = create_backbone(name, size, False, backbone_args=wide).model
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter *= 12
    window_attention.accelerate(model, dtype=torch.half)


LOST, TOO_LARGE = math.inf, 1e30  # factors on a loss: NaN or infinite; finite, with gradients that are not


@pytest.fixture
def spoil(monkeypatch):
    """Makes the losses of some batches, by epoch and number, what a function makes of them."""

    def spoil(batches, change) -> None:
        training_step, row_losses = FineTuneTask.training_step, task_module.row_losses

        def step(self, batch, batch_idx):
            is_bad = (self.current_epoch, batch_idx) in batches
            losses = (lambda *args: change(row_losses(*args))) if is_bad else row_losses
            with monkeypatch.context() as patch:
                patch.setattr(task_module, "row_losses", losses)
                return training_step(self, batch, batch_idx)

        monkeypatch.setattr(FineTuneTask, "training_step", step)

    return spoil


@pytest.fixture
def fit_half(monkeypatch, competition, tmp_path):
    """`swinft fit` of the first fold in fp16 on this CPU, four steps an epoch; its exit code and its folder."""

    def run(name="tiny", *options, scaler=None, **changes):
        make_trainer = Experiment.trainer

        def build(*args, **kwargs):
            trainer = make_trainer(*args, **kwargs)
            if isinstance(args[3], FoldRecorder):  # not the one that is only checked
                trainer.strategy.precision_plugin = half(**(scaler or {}))
            return trainer

        monkeypatch.setattr(Experiment, "trainer", build)
        changes = {"name": name, "data.batch_size": 3, **changes}
        config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
        return main(["fit", "--config", str(config), "--fold", "0", *options]), tmp_path / "runs" / name / "fold_0"

    return run


def lines_of(fold: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (fold / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("factor", [LOST, TOO_LARGE])
def test_w2_an_overflow_that_was_repaired_ends_nothing_and_is_said(factor, fit_half, spoil, capsys):
    spoil({(0, 0), (0, 2)}, lambda losses: losses * factor)
    code, fold = fit_half()
    out = capsys.readouterr().out
    assert code == 0
    assert "fold 0  epoch 1: 2 of 4 steps were skipped: fp16 overflow, scale now 16384\n" in out
    assert "epoch 2: " not in out
    assert [(line["skipped_steps"], line["loss_scale"]) for line in lines_of(fold)] == [(2, 16384), (0, 16384)]
    assert all(math.isfinite(line["train_loss"]) for line in lines_of(fold))
    assert all(tensor.isfinite().all() for tensor in load_file(fold / "weights.safetensors").values())


@contextmanager
def interrupted_after(epochs, monkeypatch):
    """Ctrl-C comes when an epoch has been saved."""
    saved = FoldRecorder.on_train_epoch_end

    def stop(self, *args):
        saved(self, *args)
        if len(self.history) == epochs:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FoldRecorder, "on_train_epoch_end", stop)
        yield


def test_w2_a_resumed_fold_skips_what_one_process_skips_and_ends_with_the_same_bytes(fit_half, spoil, monkeypatch):
    spoil({(0, 0), (1, 3), (2, 1)}, lambda losses: losses * LOST)
    changes = {"trainer.max_epochs": 4, "trainer.accumulate_grad_batches": 2, "data.batch_size": 2}
    code, whole = fit_half("whole", **changes)
    assert code == 0
    with interrupted_after(2, monkeypatch):
        assert fit_half("parts", **changes)[0] == 130
    code, parts = fit_half("parts", "--resume", **changes)
    assert code == 0
    assert (parts / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    times = dict.fromkeys(("seconds", "val_seconds", "loader_wait", "images_per_second"), 0)
    for one, other in zip(lines_of(parts), lines_of(whole), strict=True):
        assert one | times == other | times
    assert [line["skipped_steps"] for line in lines_of(whole)] == [1, 1, 1, 0]


@pytest.mark.slow
def test_a_soup_in_fp16_is_the_mean_of_finite_epochs_and_resumes_to_the_same_bytes(fit_half, spoil, monkeypatch):
    """Of the second epoch, whose steps are all skipped but one, and of others; its BatchNorm statistics are finite."""
    spoil({(0, 0), (1, 0), (1, 1), (1, 2)}, lambda losses: losses * LOST)
    changes = {
        "trainer.max_epochs": 4,
        "checkpoint": {"soup": "last", "epochs": 3},
        "model.backbone": "test_resnet",
        "model.backbone_args": None,
        "model.ema_decay": None,
    }
    kept = {}
    saved = FoldRecorder.on_train_epoch_end

    def look(self, trainer, task):
        kept[len(self.history) + 1] = {name: tensor.clone() for name, tensor in task.predictor.state_dict().items()}
        saved(self, trainer, task)

    with monkeypatch.context() as patch:
        patch.setattr(FoldRecorder, "on_train_epoch_end", look)
        code, whole = fit_half("whole", **changes)
    assert code == 0
    assert [line["skipped_steps"] for line in lines_of(whole)] == [1, 3, 0, 0]
    weights = load_file(whole / "weights.safetensors")
    assert all(tensor.isfinite().all() for tensor in weights.values())
    mean = torch.stack([kept[epoch]["head.linear.weight"] for epoch in (2, 3, 4)]).double().mean(0)
    torch.testing.assert_close(weights["head.linear.weight"].double(), mean, rtol=1e-5, atol=1e-7)

    with interrupted_after(3, monkeypatch):
        assert fit_half("parts", **changes)[0] == 130
    code, parts = fit_half("parts", "--resume", **changes)
    assert code == 0
    for name in ("weights.safetensors", "oof.csv"):
        assert (parts / name).read_bytes() == (whole / name).read_bytes()


def test_w2_an_epoch_of_skipped_steps_ends_the_run_with_the_cure(fit_half, spoil, capsys):
    spoil({(0, batch) for batch in (1, 2, 3)}, lambda losses: losses * LOST)
    code, fold = fit_half(scaler={"init_scale": 4.0})
    assert code == 2
    error = capsys.readouterr().err
    assert "fold 0: in epoch 1, 3 of 4 steps were skipped: fp16 overflow, scale now 0.5; below 1 small" in error
    assert "(the loss itself was NaN or infinite in batch 1 (ids 0" in error
    assert "Lower model.optim.lr or set trainer.precision to 32-true, under another --name." in error
    assert not list(fold.glob("*.ckpt"))


def test_w2_finding_the_scale_is_no_reason_to_end(fit_half, spoil):
    spoil({(0, batch) for batch in range(4)}, lambda losses: losses * TOO_LARGE)
    code, fold = fit_half()
    assert code == 0
    assert [line["skipped_steps"] for line in lines_of(fold)] == [4, 0]
    assert lines_of(fold)[0]["train_loss"] is None  # of no batch
    first, second = (line["lr"] for line in lines_of(fold))
    assert first < second  # the first step of warm-up is still to come after the first epoch


def test_w2_a_lost_loss_whose_step_was_taken_ends_the_run(fit_half, spoil, capsys):
    spoil({(0, 1)}, lambda losses: losses + math.inf)  # its gradients are finite
    code, _ = fit_half()
    assert code == 2
    assert "fold 0: the loss became NaN or infinite in epoch 1, batch 1 (ids 0" in capsys.readouterr().err


def test_w2_weights_that_the_last_step_has_lost_are_not_saved(competition, tmp_path, spoil, capsys):
    # A square root of 0: its value is finite, and its gradient is not.
    spoil({(1, 1)}, lambda losses: losses + (losses - losses.detach()).abs().sqrt())
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 2
    error = capsys.readouterr().err
    assert "fold 0: after epoch 2 backbone." in error
    assert "is NaN or infinite; highest learning rate now" in error
    assert "epoch 2/2" not in error


def test_w2_weights_and_statistics_must_be_finite_and_other_buffers_need_not():
    net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    net.register_buffer("bound", torch.tensor([-math.inf]))
    assert first_not_finite(net) is None
    net[1].running_mean[1] = math.nan
    assert first_not_finite(net) == "1.running_mean"
    net[0].bias.data[0] = math.inf
    assert first_not_finite(net) == "0.bias"


class Steps(pl.Callback):
    """What a Trainer does at every batch."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.updates: list[int] = []
        self.norms: list[float] = []

    def on_train_start(self, trainer, pl_module):
        """Sees the gradients that a step is taken with."""
        parameters = [p for group in trainer.optimizers[0].param_groups for p in group["params"]]
        norm = lambda *_: self.norms.append(  # noqa: E731
            float(torch.stack([p.grad.norm() for p in parameters if p.grad is not None]).norm())
        )
        trainer.optimizers[0].register_step_pre_hook(norm)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        """The rate that the batch learns at, and how often weights were averaged before."""
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])
        self.updates.append(int(pl_module.averaged.updates))


def steps_of(task, scaler=None, **options) -> tuple[Steps, pl.Trainer]:
    seen = Steps()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer = fit_task(task, Rows(16), callbacks=[seen], plugins=[half(**(scaler or {}))], **options)
    assert not [str(each.message) for each in caught if "lr_scheduler" in str(each.message)]
    return seen, trainer


@pytest.mark.parametrize(("accumulate", "freeze"), [(1, 0), (2, 0), (1, 1)])
def test_w2_averages_and_schedule_follow_the_steps_that_were_taken(accumulate, freeze, spoil):
    """With the first step skipped too: torch's warning about the order of schedule and optimiser has no cause."""
    spoil({(0, 0), (1, 2)}, lambda losses: losses * LOST)
    options = {"ema_decay": 0.9, "freeze_epochs": freeze, "optim": OptimConfig(lr=1e-3, warmup_epochs=1)}
    seen, trainer = steps_of(make_task(**options), max_epochs=3, accumulate_grad_batches=accumulate)
    due = [number for number in range(12) if number % accumulate == accumulate - 1]
    skipped = {accumulate - 1, 4 + 2 + accumulate - 1}
    taken = [sum(number not in skipped for number in due if number < batch) for batch in range(12)]
    assert seen.updates == taken
    task = trainer.lightning_module
    assert int(task.averaged.updates) == len(due) - 2
    total, per_epoch = len(due), len(due) // 3
    factors = [warmup_cosine(step, per_epoch, total, 0.01) for step in taken]
    assert seen.rates == pytest.approx([factor * 1e-3 for factor in factors])
    assert trainer.global_step == len(due)  # passes over the rows are not repeated
    assert [each["step"].item() for each in trainer.optimizers[0].state.values()].count(len(due) - 2) > 0


def test_w2_max_steps_counts_steps_that_were_due(spoil):
    spoil({(0, 1)}, lambda losses: losses * LOST)
    _, trainer = steps_of(make_task(ema_decay=0.9), max_epochs=-1, max_steps=5)
    assert trainer.global_step == 5
    assert int(trainer.lightning_module.averaged.updates) == 4


def test_s6_the_fused_kernel_steps_with_gradients_that_were_unscaled_and_then_clipped():
    seen, trainer = steps_of(make_task(ema_decay=0.9), max_epochs=1, gradient_clip_val=0.01)
    assert all(group["fused"] for group in trainer.optimizers[0].param_groups)
    assert seen.norms == pytest.approx([0.01] * 4, rel=1e-3)
    free, _ = steps_of(make_task(ema_decay=0.9), max_epochs=1)
    assert min(free.norms) > 0.01
    whole, _ = steps_of(make_task(ema_decay=0.9), max_epochs=1, gradient_clip_val=100.0)
    assert whole.norms == free.norms  # nothing to clip, where scaled gradients would be
