"""One config, many backbones: the swap is one word.

Each is shrunk by arguments that leave its patches, windows and strides, and so what an image's size does to it: whole, most
of the time would go into writing weights. benchmarks/families.py trains whole ones.
"""

import json
import math

import pytest

from swinft.cli import main
from tests.conftest import ROOT, tiny_config, write_config
from tests.integration.layouts import some_numbers

SWIN = {"embed_dim": 48, "depths": [2, 2, 2, 2]}
VIT = {"embed_dim": 96, "depth": 2, "num_heads": 3}
BACKBONES = {
    "swin_tiny_patch4_window7_224": ((224, 256), SWIN),
    "swinv2_tiny_window8_256": ((224, 256), SWIN),
    "vit_small_patch16_224": ((224, 256), VIT),
    "deit_small_patch16_224": ((224, 256), VIT),
    "convnext_tiny": ((224, 256), {"depths": [1, 1, 1, 1], "dims": [24, 48, 96, 192]}),
    "resnet50": ((224, 256), {"layers": [1, 1, 1, 1]}),
    "tf_efficientnet_lite0": ((224, 256), None),  # small enough as it is
    "mixer_s32_224": ((224,), None),  # the smallest; timm takes no arguments that would shrink it
    "mobilenetv3_small_100": ((224, 256), None),
    "regnety_002": ((224, 256), None),
    "pvt_v2_b0": ((224, 256), None),
    "edgenext_xx_small": ((224, 256), None),
}
IN_EVERY_SUITE = [*BACKBONES][:8]
CASES = [
    pytest.param(name, size, args, marks=pytest.mark.slow if size != sizes[-1] or name not in IN_EVERY_SUITE else ())
    for name, (sizes, args) in BACKBONES.items()
    for size in sizes
]


@pytest.fixture(scope="module")
def petfinder(tmp_path_factory):
    return some_numbers.petfinder(tmp_path_factory.mktemp("petfinder"), 1, train_rows=8).root


def fit(petfinder, runs, *options: str) -> int:
    """Fits the real config, made small by its data and its plan only."""
    words = ["--config", str(ROOT / "configs" / "petfinder.yaml"), f"--runs={runs}", f"--data.root={petfinder}"]
    small = ["--data.folds.num=2", "--data.batch_size=2", "--data.loading.num_workers=0", "--trainer.max_epochs=1"]
    cpu = ["--trainer.accelerator=cpu", "--trainer.accumulate_grad_batches=1", "--predict.views=[identity]"]
    return main(["fit", *words, *small, *cpu, "--model.pretrained=false", *options])


@pytest.mark.parametrize(
    ("name", "size", "args"), CASES, ids=lambda value: "" if isinstance(value, dict) else str(value)
)
def test_the_petfinder_config_trains_two_steps_with(name, size, args, petfinder, tmp_path):
    changes = [f"--model.backbone={name}", f"--model.backbone_args={json.dumps(args)}", f"--data.image_size={size}"]
    assert fit(petfinder, tmp_path, *changes, "--fold=0") == 0
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
