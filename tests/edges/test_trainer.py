"""What a config asks of training: found wrong at `check` and before a run is frozen, or done as it says."""

import pytest
import torch
from lightning.pytorch.callbacks import WeightAveraging

from swinft.cli import main
from tests.conftest import tiny_config, write_config


def ask(command, competition, tmp_path, *options, **changes) -> int:
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
    monkeypatch.setattr("swinft.data.pictures.scan", lambda *_, **__: pytest.fail("an image was opened"))
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
    "max_epochs -1": "where trainer.max_steps says when training ends",
    "max_epochs null": "where trainer.max_steps says when training ends",
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
    "logger tensorboard": "tensorboard",
    "logger wandb": "wandb",
    f"callbacks {CALLBACKS}.RichProgressBar": "rich",
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


def test_f034_checking_a_trainer_changes_nothing_in_the_process(competition, tmp_path):
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
        ({"class_path": "tests.edges.test_trainer.Averages"}, "model.ema_decay"),
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
    assert ask("fit", competition, tmp_path, "--allow-code", "tests.edges.test_trainer", **changes) == 2
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
