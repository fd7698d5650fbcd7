"""What a config asks of training: found wrong at `check` and before a run is frozen, or done as it says."""

import json
import logging
import re
import time
from pathlib import Path
from types import UnionType
from typing import Union, get_args, get_origin

import pytest
import torch
from jsonargparse import Namespace
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import WeightAveraging

import swinft
from swinft.cli import main
from swinft.model.training.steps import count_steps
from swinft.run.config.parser import key_types
from swinft.run.config.sections import build_parser
from swinft.run.folds.hours import DEADLINE, deadline, fold_limit
from swinft.run.layout import Run
from tests.conftest import TINY_SWIN, power_gone_after, tiny_config, write_config


def ask(command, competition, tmp_path, *options, **changes) -> int:
    tmp_path.mkdir(exist_ok=True)
    path = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    return main([command, "--config", str(path), *options])


def left_behind(tmp_path) -> list[str]:
    return [path.name for path in (tmp_path / "runs").glob("*") if path.name != ".locks"]


WRONG = {
    "metric": (["--model.metrics", "[acuracy]"], "Did you mean 'accuracy'?"),
    "backbone": (["--model.backbone", "swin_tiny_patch4_windw7_224"], "swin_tiny_patch4_window7_224"),
    "weights": (["--model.pretrained", "nowhere.pth"], "no file 'nowhere.pth'"),
    "head": (["--model.head", "swinft.RegressionHead"], "data.target_kind is 'classification'"),
    "views": (["--predict.views", "[rot90]", "--data.image_size", "[32,64]"], "swap height and width"),
    "clipping": (["--trainer.gradient_clip_algorithm", "foo"], "foo"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=list(WRONG))
def test_f118_check_refuses_what_fit_refuses_with_the_same_words(options, message, competition, tmp_path, capsys):
    said = {}
    for command in ("check", "fit"):
        assert ask(command, competition, tmp_path, *options) == 2
        said[command] = capsys.readouterr().err.removeprefix(f"swinft {command}: ")
    assert message in said["check"]
    assert said["check"] == said["fit"]
    assert not left_behind(tmp_path)


@pytest.mark.parametrize("option", [["--model.metrics", "[acuracy]"], ["--model.backbone", "nonsense"]])
def test_f082_a_wrong_network_is_found_before_an_image_is_opened(option, competition, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("swinft.data.inspection.image_files.scan", lambda *_, **__: pytest.fail("an image was opened"))
    assert ask("check", competition, tmp_path, *option) == 2
    assert ask("fit", competition, tmp_path, *option) == 2


CALLBACKS = "lightning.pytorch.callbacks"
TRAINER = {
    "gradient_clip_algorithm foo": "norm, value",
    "gradient_clip_val -1": "a number from 0",
    "gradient_clip_val .nan": "a number from 0",
    "accumulate_grad_batches 0": "a whole number from 1",
    "limit_train_batches 0": "a number of batches from 1",
    "limit_train_batches 1.5": "a number of batches from 1",
    "max_epochs 0": "a whole number from 1",
    "max_epochs -1": "null if trainer.max_steps is set",
    "max_epochs null": "null if trainer.max_steps is set",
    "max_steps 0": "a whole number from 1",
    "num_nodes 0": "a whole number from 1",
    "profiler foo": "simple, advanced, pytorch",
    "accelerator gpu": "Allowed: auto, cpu",
    "accelerator foo": "auto, cpu, gpu",
    "strategy fsdp": "saves the whole network",
    "strategy ddp_spawn": "saves the whole network",
    "devices 0": "a number of processes from 1",
    "devices -1": "a number of processes from 1",
    "devices [0,1]": "a number of processes from 1",
    "sync_batchnorm true": "needs several GPUs",
    "log_every_n_steps 1": "without a logger",
    "precision 16-mixed": "auto, 32-true, bf16-mixed",
    "logger neptune": "csv, tensorboard, wandb, mlflow, trackio",
    f"callbacks {CALLBACKS}.LearningRateMonitor": "needs a logger: set trainer.logger to csv",
    f"callbacks {CALLBACKS}.DeviceStatsMonitor": "needs a logger: set trainer.logger to csv",
}


@pytest.mark.parametrize("setting", TRAINER)
def test_f034_a_wrong_trainer_value_is_one_line_before_anything_is_made(setting, competition, tmp_path, capsys):
    key, value = setting.split()
    if key == "accelerator" and value == "gpu" and (torch.cuda.is_available() or torch.backends.mps.is_available()):
        pytest.skip("there is a GPU")
    for command in ("check", "fit"):
        assert ask(command, competition, tmp_path, f"--trainer.{key}", value) == 2
        err = capsys.readouterr().err
        assert err.count("\n") == 1, err
        assert TRAINER[setting] in err
        assert key in err or value.rpartition(".")[2] in err
    assert not left_behind(tmp_path)


def test_f034_all_wrong_values_are_listed_at_once(competition, tmp_path, capsys):
    options = ["--trainer.max_epochs", "0", "--trainer.num_nodes", "0", "--model.metrics", "[acuracy]"]
    assert ask("check", competition, tmp_path, *options, "--predict.views", "[]") == 2
    err = capsys.readouterr().err
    for part in ("trainer.max_epochs is 0", "trainer.num_nodes is 0", "Did you mean 'accuracy'?", "predict.views"):
        assert part in err


def test_f034_checking_a_trainer_changes_nothing_in_the_process(competition, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    assert ask("check", competition, tmp_path) == 0
    assert not torch.backends.cudnn.benchmark
    assert ask("check", competition, tmp_path, "--trainer.deterministic", "true", "--trainer.benchmark", "true") == 0
    assert not torch.are_deterministic_algorithms_enabled()
    assert not torch.backends.cudnn.benchmark


class Averages(WeightAveraging):
    """A user's own, with another name."""


REFUSED = {
    "f032": [
        ({"class_path": f"{CALLBACKS}.StochasticWeightAveraging", "init_args": {"swa_lrs": 0.01}}, "model.ema_decay"),
        ({"class_path": f"{CALLBACKS}.EMAWeightAveraging"}, "model.ema_decay"),
        ({"class_path": f"{CALLBACKS}.ModelCheckpoint"}, "checkpoint: best"),
        ({"class_path": f"{CALLBACKS}.OnExceptionCheckpoint", "init_args": {"dirpath": "x"}}, "checkpoint: best"),
        ({"class_path": f"{CALLBACKS}.Timer", "init_args": {"duration": "00:01:00:00"}}, "max_hours"),
        ({"class_path": "tests.integration.test_trainer.Averages"}, "model.ema_decay"),
    ],
    "f033": [
        (
            {"class_path": f"{CALLBACKS}.GradientAccumulationScheduler", "init_args": {"scheduling": {0: 1, 2: 4}}},
            "trainer.accumulate_grad_batches",
        ),
        ({"class_path": f"{CALLBACKS}.BatchSizeFinder"}, "data.batch_size"),
        ({"class_path": f"{CALLBACKS}.LearningRateFinder"}, "model.optim.lr"),
    ],
    "f035": [({"class_path": f"{CALLBACKS}.BackboneFinetuning"}, "model.freeze_epochs")],
}


@pytest.mark.parametrize(
    ("callback", "instead"),
    [pytest.param(*each, id=f"{fault}-{each[0]['class_path']}") for fault, all in REFUSED.items() for each in all],
)
def test_a_callback_that_changes_what_is_recorded_is_refused(callback, instead, competition, tmp_path, capsys):
    changes = {"trainer.callbacks": [callback]}
    assert ask("fit", competition, tmp_path, "--allow-code", "tests.integration.test_trainer", **changes) == 2
    err = capsys.readouterr().err
    assert f"{callback['class_path']} is refused" in err
    assert instead in err
    assert not left_behind(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"monitor": "val_acc"}, "Did you mean 'val_accuracy'?"),
        ({"monitor": "val_acc", "strict": False}, "Did you mean 'val_accuracy'?"),
        ({"monitor": "val_accuracy"}, "Set mode to max"),
        ({"monitor": "val_loss", "mode": "max"}, "Set mode to min"),
        ({"monitor": "val_loss", "mode": "up"}, "`mode` can be min, max, got up"),
    ],
)
def test_f034_early_stopping_watches_what_is_logged_in_its_direction(arguments, message, competition, tmp_path, capsys):
    callback = {"class_path": f"{CALLBACKS}.EarlyStopping", "init_args": arguments}
    assert ask("check", competition, tmp_path, **{"trainer.callbacks": [callback]}) == 2
    assert message in capsys.readouterr().err


def fit_one_fold(competition, tmp_path, *options, **changes) -> Path:
    """Fits fold 0 alone and gives its folder."""
    assert ask("fit", competition, tmp_path, "--fold", "0", *options, **{"data.batch_size": 4, **changes}) == 0
    return tmp_path / "runs" / "tiny" / "fold_0"


def history(fold: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (fold / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("epochs", ["null", "-1"])
def test_f030_steps_alone_have_a_whole_schedule(epochs, competition, tmp_path, capsys):
    options = ["--trainer.max_epochs", epochs, "--trainer.max_steps", "6"]
    steps = history(fit_one_fold(competition, tmp_path, *options))
    epochs = history(fit_one_fold(competition, tmp_path / "epochs", "--trainer.max_epochs", "2"))
    for line in (*steps, *epochs):
        for name in ("seconds", "val_seconds", "images_per_second", "loader_wait"):
            del line[name]
    assert steps == epochs
    assert steps[-1]["lr"] == pytest.approx(3e-3 * 0.01)  # min_lr_ratio: the schedule has come to its end
    assert "epoch 2/2" in capsys.readouterr().out


@pytest.mark.parametrize("trainer", [{"max_steps": 6}, {"max_steps": 4}, {"max_epochs": 2}, {"fast_dev_run": True}])
def test_f030_a_trainer_from_python_gets_a_positive_rate_at_every_step(trainer, competition):
    rates = []

    class Rates(Callback):
        def on_train_batch_start(self, trainer, *_: object) -> None:
            rates.extend(group["lr"] for group in trainer.optimizers[0].param_groups)

    data = swinft.CSVDataModule(
        root=str(competition), train="train.csv", image="images/{id}.jpg", target="color", folds={"num": 2},
        target_kind="classification", image_size=32, batch_size=4,
    )  # fmt: skip
    task = swinft.FineTuneTask(swinft.ClassificationHead, backbone_args=dict(TINY_SWIN), pretrained=False)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    Trainer(**trainer, **quiet, enable_model_summary=False, callbacks=[Rates()]).fit(task, datamodule=data)
    assert rates
    assert all(0 < rate <= 1e-3 for rate in rates)  # the highest rate that `auto` gives a transformer


def test_f030_a_training_without_an_end_is_refused_from_python():
    with pytest.raises(swinft.InputError, match="needs the length of the training"):
        count_steps(3, 1, -1, -1)
    with pytest.raises(swinft.InputError, match="does not tell how many batches"):
        count_steps(float("inf"), 1, 10, -1)


@pytest.mark.parametrize("checkpoint", ["last", "best"])
def test_f031_steps_that_end_inside_an_epoch_end_with_a_validation(checkpoint, competition, tmp_path):
    fold = fit_one_fold(competition, tmp_path, "--trainer.max_steps", "4", "--checkpoint", checkpoint)
    first, last = history(fold)
    assert first["val_loss"] != last["val_loss"], "the numbers of the epoch before"
    result = json.loads((fold / "result.json").read_text())
    used = result[f"{checkpoint}_epoch"]
    for name, value in result["oof"].items():  # what was validated is what predicts
        assert value == pytest.approx(used[f"val_{name}"], abs=1e-6)


def test_f031_steps_that_end_inside_the_first_epoch_are_kept(competition, tmp_path):
    (line,) = history(fit_one_fold(competition, tmp_path, "--trainer.max_steps", "2"))
    assert 0 <= line["val_accuracy"] <= 1


CANNOT_ACT = {
    "limit_train_batches": (["--trainer.limit_train_batches", "0.01"], "which is none"),
    "virtual_epochs": (["--data.loading.virtual_epochs", "50"], "12 rows to train on"),
    "warmup_epochs": (["--model.optim.warmup_epochs", "5"], "training has 2 epochs"),
    "max_steps": (["--trainer.max_steps", "100"], "ends after 4 steps"),
}


@pytest.mark.parametrize(("options", "message"), CANNOT_ACT.values(), ids=list(CANNOT_ACT))
def test_f030_what_could_not_act_in_a_fold_is_refused_at_check(options, message, competition, tmp_path, capsys):
    for command in ("check", "fit"):
        assert ask(command, competition, tmp_path, *options) == 2
        assert message in capsys.readouterr().err
    assert not left_behind(tmp_path)


EARLY = {
    "class_path": f"{CALLBACKS}.EarlyStopping",
    "init_args": {"monitor": "val_loss", "patience": 2, "min_delta": 9},
}


@pytest.mark.parametrize("epochs", [2, 12])
def test_f038_a_resume_after_the_end_of_training_adds_nothing(epochs, competition, tmp_path, capsys, monkeypatch):
    changes = {"trainer.max_epochs": epochs, "trainer.callbacks": [EARLY]}
    whole = fit_one_fold(competition, tmp_path / "whole", **changes)
    with monkeypatch.context() as patched:
        patched.setattr("swinft.run.folds.fold._finish", lambda *_, **__: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception, match="killed"):
            fit_one_fold(competition, tmp_path / "resumed", **changes)
    capsys.readouterr()
    resumed = fit_one_fold(competition, tmp_path / "resumed", "--resume", **changes)
    assert "epoch" not in re.sub(r"resumed from epoch-\d+.ckpt", "", capsys.readouterr().out)
    for name in ("weights.safetensors", "oof.csv"):
        assert (whole / name).read_bytes() == (resumed / name).read_bytes()
    ends = [json.loads((fold / "result.json").read_text())["end"] for fold in (whole, resumed)]
    assert ends[0] == ends[1]
    assert ("did not improve" in ends[0]) == (epochs == 12)


def test_f038_patience_is_counted_on_over_a_resume(competition, tmp_path):
    changes = {"trainer.max_epochs": 12, "trainer.callbacks": [EARLY]}
    whole = fit_one_fold(competition, tmp_path / "whole", **changes)
    with power_gone_after(2):
        fit_one_fold(competition, tmp_path / "resumed", **changes)
    resumed = fit_one_fold(competition, tmp_path / "resumed", "--resume", **changes)
    assert len(history(whole)) == len(history(resumed)) == 3
    assert (whole / "weights.safetensors").read_bytes() == (resumed / "weights.safetensors").read_bytes()


class Swaps(Callback):
    """Replaces weights behind the recorder's back, derived from none of Lightning's callbacks that do."""

    def __init__(self, hook: str) -> None:
        setattr(self, hook, self.swap)

    def swap(self, trainer, task, *_: object) -> None:
        with torch.no_grad():
            for parameter in task.predictor.parameters():
                parameter.mul_(0.5)


class Accumulates(Callback):
    def on_train_start(self, trainer, task) -> None:
        trainer.accumulate_grad_batches = 2


class Grows(Callback):
    def on_fit_start(self, trainer, task) -> None:
        trainer.datamodule.batch_size = 12


@pytest.mark.parametrize(
    ("callback", "message"),
    [
        *(
            pytest.param(f"Swaps:{hook}", "not those that were validated", id=f"f032-{hook}")
            for hook in ("on_train_epoch_end", "on_validation_end", "on_train_end")
        ),
        pytest.param("Accumulates", "trainer.accumulate_grad_batches changed", id="f033-accumulation"),
        pytest.param("Grows", "data.batch_size changed", id="f033-batch"),
    ],
)
def test_a_users_callback_that_changes_the_run_is_found_while_it_trains(
    callback, message, competition, tmp_path, capsys
):
    name, _, hook = callback.partition(":")
    named = {"class_path": f"{__name__}.{name}", **({"init_args": {"hook": hook}} if hook else {})}
    changes = {"trainer.callbacks": [named], "data.batch_size": 4}
    assert ask("fit", competition, tmp_path, "--fold", "0", "--allow-code", __name__, **changes) == 2
    err = capsys.readouterr().err
    assert message in err
    assert f"callbacks: {name}" in err
    assert not (tmp_path / "runs" / "tiny" / "fold_0" / "result.json").exists()


def test_f036_f125_what_is_asked_for_appears(competition, tmp_path, caplog, monkeypatch):
    for name in ("lightning.pytorch", "lightning.fabric"):  # before pytest 9 they are imported without a handler
        monkeypatch.setattr(logging.getLogger(name), "propagate", True)
    early = {"class_path": f"{CALLBACKS}.EarlyStopping", "init_args": {"monitor": "val_loss", "verbose": True}}
    rates = {"class_path": f"{CALLBACKS}.LearningRateMonitor"}
    changes = {"trainer.callbacks": [early, rates], "trainer.log_every_n_steps": 1, "trainer.max_epochs": 1}
    options = ["--trainer.profiler", "simple", "--trainer.enable_model_summary", "true", "--trainer.logger", "csv"]
    fold = fit_one_fold(competition, tmp_path, *options, **changes)
    for part in ("Metric val_loss improved", "run_training_batch", "Trainable params"):
        assert part in caplog.text
    (table,) = fold.rglob("metrics.csv")
    assert "val_loss" in table.read_text()
    assert "lr-AdamW" in table.read_text()
    assert not any("lr-" in name for line in history(fold) for name in line)  # the columns are the same for every run
    assert not list(tmp_path.glob("lightning_logs"))


# Numbers that say something else when they are below 0, or that other settings are needed for.
NOT_TRIED = {"trainer.devices", "trainer.log_every_n_steps", "submission.threshold"}
BAD = {float: (".nan", ".inf", "-0.5"), int: ("-7",)}


def number_keys() -> list[tuple[str, str]]:
    """Every key of a config that takes a number, with values that are wrong for each."""
    cases = []
    for key, hint in key_types(build_parser("check")).items():
        members = get_args(hint) if get_origin(hint) in (Union, UnionType) else [hint]
        kind = float if float in members else int if int in members else None
        values = BAD[kind] if kind and key not in NOT_TRIED else ()
        if get_origin(hint) is tuple:
            values = ("[.nan, 0.9]", "[0.9, 1.0]") if get_args(hint)[0] is float else ("[-1, 0, 0]",)
        cases += [(key, value) for value in values if key not in NOT_TRIED]
    return cases


def test_f037_the_keys_that_take_numbers_are_found():
    assert {"model.optim.lr", "model.optim.betas", "seed", "predict.batch_size"} <= {key for key, _ in number_keys()}
    assert len(number_keys()) > 50


@pytest.mark.parametrize(("key", "value"), number_keys(), ids=lambda text: text)
def test_f037_every_number_has_a_range(key, value, competition, tmp_path, capsys):
    assert ask("check", competition, tmp_path, f"--{key}", value) == 2
    assert key in capsys.readouterr().err


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("model.optim.lr", "0", "Allowed: a number above 0."),
        ("model.drop_path_rate", "1.0", "Allowed: a number from 0, below 1."),
        ("model.ema_decay", "1.0", "Allowed: a number above 0, below 1."),
        ("predict.batch_size", "0", "Allowed: a number from 1."),
        ("model.mix.probability", "1.5", "Allowed: a number from 0 to 1."),
        ("seed", "4294967295", "Allowed: a number from 0 to"),
        ("data.folds.num", "1", "Allowed: a whole number from 2."),
        ("model.head.class_weights", "[1,.nan,1]", "finite"),
        ("model.head.class_weights", "[0,0,0]", "not all 0"),
    ],
)
def test_f037_the_ends_of_ranges_are_said(key, value, allowed, competition, tmp_path, capsys):
    for command in ("check", "fit"):
        assert ask(command, competition, tmp_path, f"--{key}", value) == 2
        err = capsys.readouterr().err
        assert allowed in err
    assert not left_behind(tmp_path)


def test_f037_predict_refuses_a_batch_of_none(tiny_run, capsys):
    assert main(["predict", str(tiny_run), "--batch-size", "0"]) == 2
    assert "--batch-size is 0. Allowed: a number from 1." in capsys.readouterr().err


def test_f035_a_frozen_backbone_keeps_its_weights_and_statistics_and_learns_after(competition, tmp_path):
    states = []

    class States(Callback):
        def on_train_epoch_end(self, trainer, task) -> None:
            states.append({name: tensor.clone() for name, tensor in task.net.state_dict().items()})

    data = swinft.CSVDataModule(
        root=str(competition), train="train.csv", image="images/{id}.jpg", target="color", folds={"num": 2},
        target_kind="classification", image_size=32, batch_size=4,
    )  # fmt: skip
    task = swinft.FineTuneTask(
        swinft.ClassificationHead, "test_resnet", pretrained=False, freeze_epochs=1, num_outputs=3
    )
    states.append({name: tensor.clone() for name, tensor in task.net.state_dict().items()})
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    Trainer(max_epochs=2, **quiet, enable_model_summary=False, callbacks=[States()]).fit(task, datamodule=data)
    start, frozen, trained = states
    backbone = [name for name in start if name.startswith("backbone.")]
    assert any("running_mean" in name for name in backbone)
    assert all(torch.equal(start[name], frozen[name]) for name in backbone)
    assert not torch.equal(start["head.linear.weight"], frozen["head.linear.weight"])
    moved = [name for name in backbone if not torch.equal(frozen[name], trained[name])]
    assert {name.rpartition(".")[2] for name in moved} >= {"weight", "bias", "running_mean", "running_var"}


def test_f035_a_resume_while_frozen_or_after_gives_the_same_bytes(competition, tmp_path):
    changes = {"trainer.max_epochs": 3, "model.freeze_epochs": 2, "model.backbone": "test_resnet"}
    changes["model.backbone_args"] = None
    whole = fit_one_fold(competition, tmp_path / "whole", **changes)
    for stop in (1, 2):
        root = tmp_path / f"resumed{stop}"
        with power_gone_after(stop):
            fit_one_fold(competition, root, **changes)
        resumed = fit_one_fold(competition, root, "--resume", **changes)
        assert (whole / "weights.safetensors").read_bytes() == (resumed / "weights.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model.freeze_epochs", "3"], "training has 2 epochs"),
        (["--model.freeze_epochs", "1", "--trainer.devices", "2"], "ddp_find_unused_parameters_true"),
        (["--model.optim.lr", "0"], "model.optim.lr is 0.0. Allowed: a number above 0."),
    ],
)
def test_f035_freezing_that_cannot_act_is_refused(options, message, competition, tmp_path, capsys):
    assert ask("check", competition, tmp_path, *options) == 2
    assert message in capsys.readouterr().err


def test_a_fold_whose_time_is_up_ends_with_a_whole_epoch_and_a_resume_adds_nothing(
    competition, tmp_path, capsys, monkeypatch
):
    changes = {"trainer.max_epochs": 12, "max_hours": 1e-7}
    with monkeypatch.context() as patched:
        patched.setattr("swinft.run.folds.fold._finish", lambda *_, **__: pytest.fail("killed"))
        with pytest.raises(pytest.fail.Exception, match="killed"):
            fit_one_fold(competition, tmp_path, **changes)
    out = capsys.readouterr().out
    assert "training ends after epoch 1 of 12: max_hours" in out
    assert "planned over 12 epochs, is" in out
    fold = fit_one_fold(competition, tmp_path, "--resume", **changes)
    assert len(history(fold)) == 1
    assert json.loads((fold / "result.json").read_text())["end"] == "max_hours"
    assert (fold / "oof.csv").exists()


def test_time_that_is_enough_changes_nothing(competition, tmp_path):
    fold = fit_one_fold(competition, tmp_path, max_hours=9.0)
    assert len(history(fold)) == 2
    assert json.loads((fold / "result.json").read_text())["end"] == "as planned"


def test_what_is_left_of_the_hours_is_shared_by_the_folds_that_wait(competition, tmp_path, monkeypatch):
    fit_one_fold(competition, tmp_path, max_hours=2.0)  # the first of two
    run = Run(tmp_path / "runs" / "tiny")
    config = Namespace(max_hours=2.0, fold=1, predict=Namespace(views=["identity", "hflip"]))
    told = deadline(run, config, 1)[DEADLINE]
    spent = sum(line["seconds"] for line in history(run.fold(0).root))
    assert float(told.split("/")[0]) == pytest.approx(time.time() + 7200 - spent, abs=5)
    assert fold_limit(run, config).left == pytest.approx(3600, abs=5)  # alone: half of the run's
    monkeypatch.setenv(DEADLINE, told)
    assert fold_limit(run, config).left == pytest.approx(7200 - spent, abs=5)  # the last one: all that is left
    (run.fold(0).root / "result.json").unlink()
    assert fold_limit(run, config).left == pytest.approx((7200 - spent) / 2, abs=5)
    monkeypatch.setenv(DEADLINE, told.replace("/1", "/2"))
    assert fold_limit(run, config).left == pytest.approx(7200 - spent, abs=5)  # both at a time
    assert fold_limit(run, Namespace(max_hours=None)) is None


@pytest.mark.parametrize(
    ("options", "warmup"), [(["--trainer.fast_dev_run", "true"], 3), (["--trainer.fast_dev_run", "2"], "auto")]
)
def test_f107_fast_dev_run_does_a_batch_of_everything_and_keeps_nothing(
    options, warmup, competition, tmp_path, capsys, monkeypatch
):
    seen = []
    monkeypatch.setattr(
        "swinft.inference.predictions.Predictions.write", lambda table, path, *_: seen.append((path, len(table)))
    )
    changes = {"trainer.max_epochs": 12, "model.optim.warmup_epochs": warmup, "data.batch_size": 4}
    assert ask("fit", competition, tmp_path, *options, "--trainer.logger", "csv", **changes) == 0
    out = capsys.readouterr().out
    assert "epoch 1/1" in out
    assert "Nothing is saved" in out
    ((path, rows),) = seen
    assert rows == (8 if "2" in options else 4)
    assert not path.parent.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


def test_f107_fast_dev_run_checks_the_whole_run(competition, tmp_path, capsys):
    options = ["--trainer.fast_dev_run", "true"]
    assert ask("fit", competition, tmp_path, *options, "--model.optim.warmup_epochs", "5") == 2
    assert "training has 2 epochs" in capsys.readouterr().err
    assert ask("fit", competition, tmp_path, *options, "--resume") == 2
    assert "--resume does nothing" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["c.yaml"]


def test_f037_a_key_that_takes_numbers_or_auto_takes_whole_ones(competition, tmp_path):
    assert ask("check", competition, tmp_path, **{"model.optim.warmup_epochs": 1, "model.optim.lr": 1}) == 0


SINGLE, PRECISION = "lightning.pytorch.strategies.SingleDeviceStrategy", "lightning.pytorch.plugins.precision"
STRATEGIES = {
    "half": ({"precision_plugin": {"class_path": f"{PRECISION}.HalfPrecision"}}, "computes in 16-true"),
    "double": ({"precision_plugin": {"class_path": f"{PRECISION}.DoublePrecision"}}, "computes in 64-true"),
    "meta": ({"device": "meta"}, "trains on meta, and trainer.accelerator is cpu"),
}


@pytest.mark.parametrize(("arguments", "message"), STRATEGIES.values(), ids=list(STRATEGIES))
def test_a_strategy_computes_where_and_in_what_the_run_says(arguments, message, competition, tmp_path, capsys):
    """environment.json named 32-true, and the weights were float16."""
    changes = {"trainer.strategy": {"class_path": SINGLE, "init_args": {"device": "cpu", **arguments}}}
    for command in ("check", "fit"):
        assert ask(command, competition, tmp_path, **changes) == 2
        assert message in capsys.readouterr().err
    assert not left_behind(tmp_path)


def test_text_for_an_argument_that_takes_functions_is_frozen_as_it_is(competition, tmp_path, capsys):
    """A complaint of the parser's stood in its place, and no fold could read the frozen config."""
    pruning = {"class_path": f"{CALLBACKS}.ModelPruning", "init_args": {"pruning_fn": "l1_unstructured", "amount": 0.5}}
    changes = {"trainer.callbacks": [pruning], "trainer.max_epochs": 1}
    fold = fit_one_fold(competition, tmp_path, **changes)
    assert "serialize" not in capsys.readouterr().err
    frozen = (fold.parent / "config.yaml").read_text()
    assert "pruning_fn: l1_unstructured\n" in frozen
    assert main(["fit", "--config", str(fold.parent / "config.yaml"), "--fold", "1", "--resume"]) == 0


def test_what_a_transform_does_not_take_is_one_line(competition, tmp_path, capsys):
    transform = {"class_path": "albumentations.FDA", "init_args": {"reference_images": ["a"], "read_fn": "torch.load"}}
    assert ask("check", competition, tmp_path, **{"data.augment": [transform]}) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "read_fn Input should be callable" in err
