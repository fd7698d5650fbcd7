"""One config, many backbones: the swap is one word."""

import json
import math

import pytest

from swinft.cli import main
from tests.conftest import ROOT, tiny_config, write_config
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


def fit(petfinder, runs, *options: str) -> int:
    """Fits the real config, made small by its data and its plan only."""
    words = ["--config", str(ROOT / "configs" / "petfinder.yaml"), f"--runs={runs}", f"--data.root={petfinder}"]
    small = ["--data.num_folds=2", "--data.batch_size=2", "--data.num_workers=0", "--trainer.max_epochs=1"]
    cpu = ["--trainer.accelerator=cpu", "--trainer.accumulate_grad_batches=1", "--predict.views=[identity]"]
    return main(["fit", *words, *small, *cpu, "--model.pretrained=false", *options])


@pytest.mark.parametrize(("name", "size"), CASES, ids=lambda value: str(value))
def test_the_petfinder_config_trains_two_steps_with(name, size, petfinder, tmp_path):
    assert fit(petfinder, tmp_path, f"--model.backbone={name}", f"--data.image_size={size}", "--fold=0") == 0
    (line,) = (tmp_path / "petfinder" / "fold_0" / "metrics.jsonl").read_text().splitlines()
    numbers = json.loads(line)
    assert math.isfinite(numbers["train_loss"])
    assert 1 < numbers["val_rmse"] < 100


def test_a_size_that_a_backbone_cannot_do_is_found_before_training(competition, tmp_path, capsys):
    changes = {"model.backbone": "maxvit_pico_rw_256", "model.backbone_args": None, "data.image_size": 70}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["fit", "--config", str(config), "--fold", "0"]) == 2
    assert "'maxvit_pico_rw_256' cannot work at 70 x 70 px (data.image_size): " in capsys.readouterr().err
    assert not (tmp_path / "runs" / "tiny").exists()
    assert (
        main(["fit", "--config", str(config), "--fold", "0", "--data.image_size", "64", "--trainer.max_epochs", "1"])
        == 0
    )
