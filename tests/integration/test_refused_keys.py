"""Keys that would act on nothing in their config, and values that cannot be: `check` refuses each, and says the edit."""

import pytest

from swinft.cli import main
from tests.conftest import tiny_config, write_config

NUMBERS = {
    "data.target": "brightness",
    "data.target_kind": "regression",
    "model.head": {"class_path": "swinft.RegressionHead", "init_args": {"clip": [1000.0, 2000.0]}},
}
BATCH_NORM = {"model.backbone": "test_resnet", "model.backbone_args": {}}
IDLE = {
    "mix": ({"model.mix": {"probability": 0.5}}, "model.mix.probability does nothing without model.mix.mixup_alpha"),
    "decay": (
        {"model.optim": {"layer_decay_min_scale": 0.5}},
        "layer_decay_min_scale does nothing without model.optim.layer_decay: set that below 1, or this to 0",
    ),
    "metadata": ({"model.metadata_hidden": 64}, "model.metadata_hidden does nothing without metadata"),
    "clip": (NUMBERS, "all targets are beyond clip=[1000.0, 2000.0]"),
    "base": ({"model.head": {}}, "'swinft.Head' is only a base for other classes: name one that derives from it"),
    "number for a class": ({"model.head": 2}, "model.head: `2` is not allowed; it must be a mapping of `class_path`"),
    "nothing for a class": ({"model.head": ""}, "model.head: it must be a mapping of `class_path`"),
    "arguments": (
        {"model.head": {"class_path": "swinft.ClassificationHead", "init_args": "none"}},
        "model.head: it must be a mapping of `class_path`, a class, and `init_args`, its arguments.",
    ),
    "no word": ({"checkpoint": 0}, "checkpoint: `0` is not allowed; it must be last or best."),
    "base of a view": ({"predict.views": [{"class_path": "swinft.View"}]}, "'swinft.View' is only a base"),
    "large area": ({"data.image_size": 8_192}, "an image of 67,108,864 pixels. Allowed: up to 16,777,216"),
    "large": ({"data.image_size": 8_193}, "data.image_size is 8193. Allowed: a number from 1 to 8192."),
    "one row": ({"data.batch_size": 1, **BATCH_NORM}, "set data.batch_size to 2 or more, or a larger data.image_size"),
    "one row of an epoch": (
        {"data.loading.virtual_epochs": 12, **BATCH_NORM},
        "cannot train on one row, which is all that an epoch has on a device (data.loading.virtual_epochs",
    ),
    "no file": ({"data.test": ""}, "data.test is ''; write the path of a CSV"),
    "lacking": ({"data.folds.extra": [{}]}, "data.folds.extra needs table."),
    "new": (
        {"submission.rules": ["new_class"]},
        "new_class moves the threshold of the answer for a new class, and the format 'label' has none",
    ),
}


LARGE = 10**30
NUMBERS_TOO_LARGE = {
    "data.batch_size": (
        LARGE,
        "data.batch_size is 10000000000000000000… (31 digits). Allowed: a whole number from 1 to",
    ),
    "data.image_size": (
        LARGE,
        "data.image_size is 10000000000000000000… (31 digits). Allowed: a number from 1 to 8192.",
    ),
    "data.loading.num_workers": (
        5000,
        "data.loading.num_workers is '5000'. Allowed: auto, or a whole number from 0 to",
    ),
    "data.folds.num": (10**400, "data.folds.num is 10000000000000000000… (401 digits). Allowed: a whole number from 2"),
    "predict.batch_size": (
        LARGE,
        "predict.batch_size is 10000000000000000000… (31 digits). Allowed: a number from 1 to",
    ),
    "trainer.max_epochs": (LARGE, "trainer.max_epochs is 10000000000000000000… (31 digits). Allowed: a whole number"),
    "trainer.accumulate_grad_batches": (LARGE, "trainer.accumulate_grad_batches is 10000000000000000000… (31 digits)."),
    "trainer.gradient_clip_val": (10**400, "trainer.gradient_clip_val is 10000000000000000000… (401 digits). Allowed"),
    "trainer.limit_train_batches": (10**400, "trainer.limit_train_batches is 10000000000000000000… (401 digits)."),
    "trainer.devices": (LARGE, "trainer.devices is 10000000000000000000… (31 digits). Allowed: auto, or on the CPU a"),
    "trainer.num_nodes": (
        LARGE,
        "trainer.num_nodes is 10000000000000000000… (31 digits). Allowed: a whole number from",
    ),
    "model.freeze_epochs": (
        10**400,
        "model.freeze_epochs is 10000000000000000000… (401 digits). Allowed: a number from",
    ),
    "model.optim.weight_decay": (
        10**400,
        "model.optim.weight_decay: a whole number of 309 or more digits is too large",
    ),
    "seed": ("1" * 5000, "is not valid YAML: Exceeds the limit"),
}


@pytest.mark.parametrize("key", NUMBERS_TOO_LARGE)
def test_a_number_that_nothing_can_hold_is_refused_with_its_key(key, competition, tmp_path, capsys):
    value, said = NUMBERS_TOO_LARGE[key]
    path = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **{key: "VALUE"}))
    path.write_text(path.read_text().replace("VALUE", str(value)))
    assert main(["check", "--config", str(path)]) == 2
    assert said in capsys.readouterr().err


def test_an_option_of_too_many_digits_is_named(competition, tmp_path, capsys):
    path = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs"))
    assert main(["check", "--config", str(path), f"--distill.weight={10**400}"]) == 2
    assert "--distill.weight: a whole number of 309 or more digits is too large" in capsys.readouterr().err


@pytest.mark.parametrize("case", IDLE)
def test_a_key_that_acts_on_nothing_or_cannot_be_is_refused(case, competition, tmp_path, capsys):
    changes, said = IDLE[case]
    path = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["check", "--config", str(path)]) == 2
    assert said in capsys.readouterr().err


def test_a_format_of_another_kind_of_target_is_not_proposed_again(competition, tmp_path, capsys):
    changes = {"data.target": "brightness", "data.target_kind": "regression", "submission.format": "label"}
    changes |= {
        "model.head": {"class_path": "swinft.RegressionHead"},
        "data.sample_submission": "sample_submission.csv",
    }
    path = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["check", "--config", str(path)]) == 2
    err = capsys.readouterr().err
    assert "a regression run can write number or integer." in err
    assert "Did you mean 'label'" not in err
