"""`model.backbone` as a class: any module with `num_features`, and no traceback where it does not fit."""

import functools

import lightning.pytorch as pl
import pytest
import torch
from torch import nn

from swinft import ClassificationHead, FineTuneTask
from swinft.cli import main
from swinft.errors import InputError
from tests.conftest import tiny_config, with_context, write_config


class Net(nn.Module):
    """A convolution and a linear layer; `lie` adds to the width that it says."""

    mean = (0.5, 0.25, 0.125)

    def __init__(self, width: int = 8, lie: int = 0, side: int = 0) -> None:
        super().__init__()
        self.num_features = width + lie
        self.convolution = nn.Conv2d(3, width, 4, 4)
        self.linear = nn.Linear(side, width) if side else None

    def forward_features(self, image):
        return self.convolution(image)

    def forward(self, image):
        found = self.forward_features(image).mean((2, 3))
        return found if self.linear is None else self.linear(image.flatten(1))


class Nothing(nn.Module):
    """A module that says no width."""


def task_of(backbone=Net, **options):
    defaults = {"pretrained": False, "num_outputs": 3, "image_size": 32}
    return FineTuneTask(ClassificationHead, backbone, **with_context(**{**defaults, **options}))


def test_a_class_is_normalised_as_it_says_and_comes_back_from_a_checkpoint(tmp_path):
    task = task_of(functools.partial(Net, width=6), pooling="gem").eval()
    assert task.hparams["backbone"] == {"class_path": f"{__name__}.Net", "init_args": {"width": 6}}
    assert task.net.backbone.mean.flatten().tolist() == [127.5, 63.75, 31.875]
    assert task.net.backbone.std.flatten().tolist() == pytest.approx([0.229 * 255, 0.224 * 255, 0.225 * 255])
    trainer = pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_model_summary=False)
    trainer.strategy.connect(task)
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    again = FineTuneTask.load_from_checkpoint(tmp_path / "a.ckpt").eval()
    images = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8)
    torch.testing.assert_close(again(images), task(images))
    assert again.net.pooling.exponent.item() == 3.0


def test_layer_decay_counts_twelve_tensors_as_a_layer():
    class Deep(nn.Module):
        num_features = 3

        def __init__(self):
            super().__init__()
            self.layers = nn.Sequential(*(nn.Linear(3, 3) for _ in range(12)))

        def forward(self, image):
            return self.layers(image.mean((2, 3)))

    task = task_of(Deep, optim={"lr": 1.0, "layer_decay": 0.5})
    rates = {id(p): group["lr"] for group in task.parameter_groups() for p in group["params"]}
    found = [rates[id(p)] for p in task.net.backbone.parameters()]
    assert found == [0.25] * 12 + [0.5] * 12
    assert rates[id(task.net.head.linear.weight)] == 1.0


@pytest.mark.parametrize(
    ("backbone", "options", "message"),
    [
        (Net, {"pretrained": True}, "model.pretrained is true, and no weights of the class .*Net"),
        (Net, {"drop_path_rate": 0.1}, "model.drop_path_rate is for timm's models, and model.backbone is the class"),
        (Net, {"compute": {"grad_checkpointing": True}}, "cannot recompute activations: set model.compute.grad_chec"),
        (Nothing, {}, "Nothing has num_features None; it must be the number of features"),
        (functools.partial(Net, width="a"), {}, "Net cannot be built: TypeError"),
        (Net(), {}, "model.backbone is a Net; it must be a name, or a class"),
        (lambda: Net(), {}, "model.backbone is a function; it must be a name, or a class"),
        ({"class_path": "torch.optim.SGD"}, {}, "model.backbone is a 'torch.optim.SGD', which is not loaded"),
        (Net, {"pretrained": "no.pth"}, "model.pretrained: no file 'no.pth'"),
    ],
)
def test_what_a_class_cannot_be_is_refused(backbone, options, message):
    with pytest.raises(InputError, match=message):
        task_of(backbone, **options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"lie": 1},
            "returns features (2, 8) for 2 images, and its num_features is 9: it must return (B, num_features)",
        ),
        ({"side": 7}, "at 32 x 32 px (data.image_size) fails in test_custom.py:"),
    ],
)
def test_a_wrong_shape_is_found_before_a_run_and_named(competition, tmp_path, capsys, arguments, message):
    named = {"class_path": "tests.model.backbones.test_custom.Net", "init_args": arguments}
    changes = {"model.backbone": named, "model.backbone_args": None}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["check", "--config", str(config), "--allow-code", "tests.model.backbones.test_custom"]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_a_backbone_of_another_kind_is_refused_before_it_is_called(competition, tmp_path, capsys):
    changes = {"model.backbone": {"class_path": "torch.optim.SGD"}, "model.backbone_args": None}
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path / "runs", **changes))
    assert main(["check", "--config", str(config)]) == 2
    assert (
        "'torch.optim.SGD' has the wrong type: model.backbone needs a class derived from torch's"
        in capsys.readouterr().err
    )
