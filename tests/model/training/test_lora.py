"""`model.optim.freeze.lora`: adapters learn in the place of frozen weights, and what is saved is a plain network."""

import pytest
import torch
from safetensors.torch import load_file

import swinft
from swinft import ClassificationHead, FineTuneTask, OptimConfig
from swinft.cli import main
from swinft.errors import InputError
from swinft.model.training.freezing import FreezeConfig
from swinft.model.training.lora import LoRAConfig, merged_state
from tests.conftest import TINY_SWIN, power_gone_after, tiny_config, with_context, write_config


def task_of(
    backbone="swin_tiny_patch4_window7_224", size=32, share=1.0, epochs=None, names=None, ema_decay=None, **lora
):
    torch.manual_seed(0)
    freeze = FreezeConfig(share, names, epochs=epochs, lora=LoRAConfig(**lora))
    arguments = dict(TINY_SWIN) if backbone.startswith("swin") else None
    given = {"pretrained": False, "backbone_args": arguments, "num_outputs": 3, "image_size": size}
    optim = OptimConfig(lr=1e-2, freeze=freeze)
    return FineTuneTask(
        **with_context(head=ClassificationHead, backbone=backbone, optim=optim, ema_decay=ema_decay, **given)
    )


@pytest.mark.parametrize(
    ("backbone", "size"), [("swin_tiny_patch4_window7_224", 32), ("test_vit", 160), ("test_convnext", 32)]
)
def test_adapters_start_as_nothing_and_merge_into_what_they_compute(backbone, size):
    images = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
    plain, task = task_of(backbone, size), task_of(backbone, size, rank=2, alpha=3.0, ema_decay=0.5)
    plain.net.head.load_state_dict(task.net.head.state_dict())
    with torch.no_grad():
        torch.testing.assert_close(task.eval().net(images), plain.eval().net(images))
        for name, parameter in task.net.named_parameters():
            if parameter.requires_grad and name.endswith(".b"):
                parameter.normal_()
        task.averaged.update(task.net)
        adapted = task.net(images)
        assert not torch.allclose(adapted, plain.net(images))
        assert set(merged_state(task.net)) == set(plain.net.state_dict())
        plain.net.load_state_dict(merged_state(task.net))
        torch.testing.assert_close(plain.net(images), adapted)
        plain.net.load_state_dict(merged_state(task.averaged.module))
        torch.testing.assert_close(plain.net(images), task.predictor(images))
    trained = {name for name, parameter in task.net.backbone.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(name.endswith(("weight.0.a", "weight.0.b")) for name in trained)
    numbers = [
        sum(p.numel() for p in task.net.backbone.parameters() if p.requires_grad == learns) for learns in (True, False)
    ]
    assert numbers[0] < numbers[1]


def test_only_frozen_layers_that_are_named_are_adapted():
    task = task_of(share=0.0, names=["layers.0"], rank=2, targets=["q*"])
    adapted = {name.split(".parametrizations")[0] for name, _ in task.net.named_parameters() if ".parametr" in name}
    assert adapted == {"backbone.model.layers.0.blocks.0.attn.qkv"}
    whole = {id(each) for group in task.parameter_groups() for each in group["params"]}
    assert whole == {id(each) for each in task.net.parameters() if each.requires_grad}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"rank": -1}, "lora.rank is -1"),
        ({"alpha": 2.0}, "alpha and targets do nothing without rank"),
        ({"rank": 2, "epochs": 1}, "adapts weights that are frozen for the whole training"),
        ({"rank": 2, "share": 0.0}, "adapts weights that are frozen for the whole training"),
        ({"rank": 2, "targets": ["query"]}, "frozen linear layers are named fc1, fc2, proj, qkv, reduction"),
        ({"rank": 2, "backbone": "test_resnet"}, "none of its linear layers is frozen"),
    ],
)
def test_adapters_that_would_do_nothing_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        task_of(**given)


def test_a_run_with_adapters_resumes_saves_a_plain_network_and_predicts(competition, tmp_path):
    def fitted(name, *options, **changes):
        freeze = {"share": 1.0, "lora": {"rank": 2}}
        changes = {"model.optim.freeze": freeze, "model.optim.lr": 1e-2, **changes}
        config = write_config(
            tmp_path / f"{name}.yaml", tiny_config(competition, tmp_path / "runs", name=name, **changes)
        )
        assert main(["fit", "--config", str(config), "--fold", "0", *options]) == 0
        return tmp_path / "runs" / name / "fold_0"

    whole = fitted("whole")
    with power_gone_after(1):
        fitted("again")
    again = fitted("again", "--resume")
    for file in ("weights.safetensors", "oof.csv"):
        assert (whole / file).read_bytes() == (again / file).read_bytes()
    weights = load_file(whole / "weights.safetensors")
    assert not any("parametrizations" in name for name in weights)
    start = load_file(fitted("start", **{"model.optim.freeze": {"share": 1.0}}) / "weights.safetensors")
    assert set(start) == set(weights)
    moved = {name for name in weights if not torch.equal(weights[name], start[name]) and name.startswith("backbone")}
    assert moved
    assert all(name.endswith(("qkv.weight", "proj.weight", "fc1.weight", "fc2.weight")) for name in moved)
    assert main(["predict", str(whole.parent), "--folds", "0", "--device", "cpu"]) == 0
    task = swinft.FineTuneTask(ClassificationHead, backbone_args=dict(TINY_SWIN), pretrained=False, num_outputs=3,
                               context=swinft.TaskContext(32))  # fmt: skip
    task.net.load_state_dict(weights)
