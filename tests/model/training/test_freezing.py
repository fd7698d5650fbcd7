"""`model.optim.freeze`: what is frozen stays as it is, for as long as it is said, and rates do not change for it."""

import pytest
import torch
from safetensors.torch import load_file

from swinft import ClassificationHead, FineTuneTask, OptimConfig
from swinft.cli import main
from swinft.errors import InputError
from swinft.model.training.freezing import FreezeConfig
from tests.conftest import power_gone_after, tiny_config, with_context, write_config

SWIN = {"embed_dim": 12, "depths": [2, 2], "num_heads": [1, 2], "window_size": 4}


def task_of(backbone="swin_tiny_patch4_window7_224", freeze_epochs=0, layer_decay=0.5, **freeze):
    torch.manual_seed(0)
    return FineTuneTask(
        **with_context(
            head=ClassificationHead,
            backbone=backbone,
            backbone_args=SWIN if backbone.startswith("swin") else None,
            pretrained=False,
            num_outputs=3,
            image_size=32,
            freeze_epochs=freeze_epochs,
            optim=OptimConfig(lr=1e-2, layer_decay=layer_decay, freeze=FreezeConfig(**freeze)),
        )
    )


def frozen_in(task, epoch):
    task.train()
    task._freezing.apply(epoch)
    return {name for name, parameter in task.net.backbone.model.named_parameters() if not parameter.requires_grad}


def test_layers_are_frozen_from_the_input_on_and_unfrozen_from_the_head():
    whole = task_of(share=0.5)
    half = frozen_in(whole, 0)
    assert {"patch_embed.proj.weight", "layers.0.blocks.0.norm1.weight"} <= half
    assert not any(name.startswith("layers.1") for name in frozen_in(whole, 0))
    assert frozen_in(whole, 0) == frozen_in(whole, 99)
    gradual = task_of(share=1.0, epochs=3, gradual=True)
    sets = [frozen_in(gradual, epoch) for epoch in range(4)]
    assert len(sets[0]) == len(list(gradual.net.backbone.parameters()))
    assert sets[0] > sets[1] > sets[2] > sets[3] == set()
    assert not any(name.startswith(("layers.1.blocks.1", "norm")) for name in sets[1])
    assert any(name.startswith("patch_embed") for name in sets[2])
    at_once = task_of(share=0.5, epochs=2, names=["layers.1.blocks.1"])
    assert frozen_in(at_once, 0) == frozen_in(at_once, 1) > frozen_in(whole, 0)
    assert frozen_in(at_once, 2) == set()
    # With freeze_epochs besides, all of the backbone is frozen first.
    both = task_of(share=0.5, freeze_epochs=1)
    assert len(frozen_in(both, 0)) > len(frozen_in(both, 1)) == len(frozen_in(whole, 0))


def test_rates_by_layer_are_the_same_where_layers_are_frozen():
    def rates(task):
        return {id: group["lr"] for group in task.parameter_groups() for id in map(task.name_of, group["params"])}

    FineTuneTask.name_of = lambda task, wanted: next(n for n, p in task.net.named_parameters() if p is wanted)
    try:
        plain, frozen = rates(task_of()), rates(task_of(share=0.5))
    finally:
        del FineTuneTask.name_of
    assert 0 < len(frozen) < len(plain)
    assert all(plain[name] == rate for name, rate in frozen.items())
    assert len({plain[name] for name in frozen}) > 1


def test_frozen_batch_norm_computes_as_in_evaluation():
    task = task_of("test_resnet", share=0.5)
    frozen = frozen_in(task, 0)
    norms = {n: m for n, m in task.net.backbone.model.named_modules() if isinstance(m, torch.nn.BatchNorm2d)}
    modes = {name: module.training for name, module in norms.items()}
    assert {name for name, training in modes.items() if not training} == {
        name for name in norms if f"{name}.weight" in frozen
    }
    assert set(modes.values()) == {True, False}


@pytest.mark.parametrize(
    ("freeze", "message"),
    [
        ({"share": 1.5}, "freeze.share is 1.5. Allowed: a number from 0 to 1"),
        ({"share": 0.01}, "is none of the .* layers"),
        ({"names": ["layer.0"]}, "has no 'layer.0'. Did you mean 'layers.0'"),
        ({"epochs": 2}, "epochs does nothing without"),
        ({"share": 0.5, "gradual": True}, "gradual needs"),
    ],
)
def test_what_would_freeze_nothing_is_refused(freeze, message):
    with pytest.raises(InputError, match=message):
        task_of(**freeze)


def fitted(competition, folder, *options, **changes):
    given = {"trainer.max_epochs": 3, "data.batch_size": 4, "model.backbone": "test_resnet", **changes}
    given |= {"model.backbone_args": None, "model.optim.lr": 1e-2}
    folder.mkdir(exist_ok=True)
    config = write_config(folder / "c.yaml", tiny_config(competition, folder / "runs", **given))
    assert main(["fit", "--config", str(config), "--fold", "0", *options]) == 0
    return folder / "runs" / "tiny" / "fold_0"


def test_a_run_that_unfreezes_step_by_step_resumes_to_the_same_bytes(competition, tmp_path, capsys):
    freeze = {"model.optim.freeze": {"share": 1.0, "epochs": 2, "gradual": True}}
    whole = fitted(competition, tmp_path / "whole", **freeze)
    assert "of the backbone, 100% of its weights, frozen less and less" in capsys.readouterr().out
    with power_gone_after(1):
        fitted(competition, tmp_path / "again", **freeze)
    again = fitted(competition, tmp_path / "again", "--resume", **freeze)
    for name in ("weights.safetensors", "oof.csv"):
        assert (whole / name).read_bytes() == (again / name).read_bytes()
    plain = fitted(competition, tmp_path / "plain")
    assert (whole / "weights.safetensors").read_bytes() != (plain / "weights.safetensors").read_bytes()


def test_what_is_frozen_for_the_whole_training_stays_and_the_rest_learns(competition, tmp_path):
    one = load_file(
        fitted(competition, tmp_path / "1", **{"model.optim.freeze.share": 0.5, "trainer.max_epochs": 1})
        / "weights.safetensors"
    )
    two = load_file(
        fitted(competition, tmp_path / "2", **{"model.optim.freeze.share": 0.5, "trainer.max_epochs": 2})
        / "weights.safetensors"
    )
    same = {name for name in one if torch.equal(one[name], two[name])}
    assert any("running_mean" in name for name in same)
    assert any(name.startswith("backbone.") for name in set(one) - same)
    assert "head.linear.weight" not in same


def test_freezing_that_outlasts_the_training_is_refused(competition, tmp_path, capsys):
    config = write_config(tmp_path / "c.yaml", tiny_config(competition, tmp_path, **{"model.optim.freeze.share": 0.5}))
    words = ["check", "--config", str(config), "--model.optim.freeze.epochs"]
    assert main([*words, "3"]) == 2
    assert "model.optim.freeze.epochs is 3, and training has 2 epochs" in capsys.readouterr().err
    assert main([*words, "1", "--trainer.devices", "2"]) == 2
    assert "ddp_find_unused_parameters_true" in capsys.readouterr().err
