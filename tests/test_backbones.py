"""One config, many backbones: the swap is one word."""

import json
import math

import pytest

from swinft.cli import main
from tests.conftest import ROOT
from tests.test_end_to_end import make_petfinder

BACKBONES = {
    "swin_tiny_patch4_window7_224": (224, 256),
    "swinv2_tiny_window8_256": (224, 256),
    "vit_small_patch16_224": (224, 256),
    "deit_small_patch16_224": (224, 256),
    "convnext_tiny": (224, 256),
    "resnet50": (224, 256),
    "tf_efficientnet_lite0": (224, 256),
    "mixer_b16_224": (224,),
}
CASES = [(name, size) for name, sizes in BACKBONES.items() for size in sizes]


@pytest.fixture(scope="module")
def petfinder(tmp_path_factory):
    root = tmp_path_factory.mktemp("petfinder")
    make_petfinder(root, num_rows=8)
    return root


@pytest.mark.parametrize(("name", "size"), CASES, ids=lambda value: str(value))
def test_the_petfinder_config_trains_two_steps_with(name, size, petfinder, tmp_path):
    options = [
        "--config",
        str(ROOT / "configs" / "petfinder.yaml"),
        "--runs",
        str(tmp_path),
        "--data.root",
        str(petfinder),
    ]
    options += [
        "--data.num_folds",
        "2",
        "--data.batch_size",
        "2",
        "--data.num_workers",
        "0",
        "--data.image_size",
        str(size),
    ]
    options += ["--model.backbone", name, "--model.pretrained", "false", "--predict.views", "[identity]"]
    options += ["--trainer.max_epochs", "1", "--trainer.accumulate_grad_batches", "1", "--trainer.accelerator", "cpu"]
    assert main(["fit", *options, "--fold", "0"]) == 0
    (line,) = (tmp_path / "petfinder" / "fold_0" / "metrics.jsonl").read_text().splitlines()
    numbers = json.loads(line)
    assert math.isfinite(numbers["train_loss"])
    assert 1 < numbers["val_rmse"] < 100


def test_a_backbone_of_one_size_says_so_at_another(petfinder, tmp_path, capsys):
    options = [
        "--config",
        str(ROOT / "configs" / "petfinder.yaml"),
        "--runs",
        str(tmp_path),
        "--data.root",
        str(petfinder),
    ]
    options += [
        "--data.num_folds",
        "2",
        "--model.backbone",
        "mixer_b16_224",
        "--model.pretrained",
        "false",
        "--data.image_size",
        "256",
    ]
    assert main(["fit", *options]) == 2
    assert "made for 224 px and no other size: set data.image_size to 224" in capsys.readouterr().err
