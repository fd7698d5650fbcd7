"""Keys that would act on nothing in their config, and values that cannot be: `check` refuses each, and says the edit."""

import pytest

from swinft.cli import main
from tests.conftest import tiny_config, write_config

NUMBERS = {
    "data.target": "brightness",
    "data.target_kind": "regression",
    "model.head": {"class_path": "swinft.RegressionHead", "init_args": {"clip": [1000.0, 2000.0]}},
}
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
    "large": ({"data.image_size": 100_000_000}, "cannot work at 100000000 x 100000000 px (data.image_size)"),
    "no file": ({"data.test": ""}, "data.test is ''; write the path of a CSV"),
    "lacking": ({"data.folds.extra": [{}]}, "data.folds.extra needs table."),
    "new": (
        {"submission.rules": ["new_class"]},
        "new_class moves the threshold of the answer for a new class, and the format 'label' has none",
    ),
}


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
